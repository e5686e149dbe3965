import builtins
import errno
import math
import os

import numpy as np
import pytest
import soundfile
import torch

from revox_lightning import audio, files
from revox_lightning.errors import UserError

torch.set_num_threads(1)
RATE_HZ = 44_100


def noise(channels=2, frames=5000, seed=0, level=0.1):
    return level * torch.randn(channels, frames, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("name", "subtype", "step"),
    [
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_32", 2**-24),
        ("a.wav", "FLOAT", 0.0),
        ("a.wav", "DOUBLE", 0.0),
        ("a.flac", "PCM_16", 2**-15),
        ("a.flac", "PCM_24", 2**-23),
        ("a.aiff", "PCM_24", 2**-23),
    ],
)
def test_a_written_file_reads_back(tmp_path, name, subtype, step, channels):
    x = noise(channels)
    audio.write(tmp_path / name, x, RATE_HZ, subtype)
    header = audio.info(tmp_path / name)
    assert (header.sample_rate_hz, header.channels, header.frames) == (RATE_HZ, channels, 5000)
    assert header.subtype == subtype
    y = audio.read(tmp_path / name)
    assert y.dtype == torch.float32
    assert (y - x).abs().max() <= 1.5 * step  # half a step of rounding and up to one step of dither
    assert os.listdir(tmp_path) == [name]


def test_ogg_reads_back_nearly(tmp_path):
    x = 0.5 * torch.sin(2 * torch.pi * 440 / RATE_HZ * torch.arange(200_000))[None]
    audio.write(tmp_path / "a.ogg", x, RATE_HZ, "VORBIS")
    y = audio.read(tmp_path / "a.ogg")
    assert y.shape == x.shape
    assert ((y - x) ** 2).mean() < 1e-3 * (x**2).mean()


def test_24_bit_codes_survive_a_round_trip_exactly(tmp_path):
    codes = torch.tensor([[-(2**23), -1, 0, 1, 12345, 2**23 - 1]])
    audio.write(tmp_path / "a.wav", codes / 2**23, RATE_HZ)
    assert torch.equal((audio.read(tmp_path / "a.wav") * 2**23).long(), codes)


def test_parts_and_blocks_join_to_the_whole(tmp_path):
    audio.write(tmp_path / "a.flac", noise(), RATE_HZ)
    whole = audio.read(tmp_path / "a.flac")
    assert torch.equal(audio.read(tmp_path / "a.flac", 1000, 64), whole[:, 1000:1064])
    assert torch.equal(audio.read(tmp_path / "a.flac", 4990, 64), whole[:, 4990:])
    parts = list(audio.blocks(tmp_path / "a.flac", 999))
    assert [part.shape[1] for part in parts] == [999] * 5 + [5]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("reader", [audio.info, audio.read, lambda path: audio.blocks(path, 64)])
def test_bad_files_are_one_clear_sentence(tmp_path, reader):
    (tmp_path / "text.wav").write_text("this is not audio\n")
    (tmp_path / "zero.wav").touch()
    soundfile.write(str(tmp_path / "none.wav"), np.zeros((0, 1)), RATE_HZ)
    cases = {"missing.wav": "no audio file", ".": "folder", "text.wav": "cannot be read as audio"}
    cases |= {"zero.wav": "empty", "none.wav": "empty"}
    for name, words in cases.items():
        with pytest.raises(UserError, match=words) as caught:
            reader(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_nan_samples_are_named_with_their_time(tmp_path):
    samples = np.zeros((RATE_HZ, 2), dtype=np.float32)
    samples[RATE_HZ // 2, 1] = np.nan
    soundfile.write(str(tmp_path / "nan.wav"), samples, RATE_HZ, "FLOAT")
    for reader in (audio.read, lambda path: list(audio.blocks(path, 1000))):
        with pytest.raises(UserError, match=r"nan\.wav.*0\.500 s"):
            reader(tmp_path / "nan.wav")
    assert audio.read(tmp_path / "nan.wav", 0, 1000).shape == (2, 1000)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    audio.write(tmp_path / "a.wav", noise(1, 100), RATE_HZ)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(KeyError), audio.writer(tmp_path / "a.wav", RATE_HZ, 1) as file:
        file.write(noise(1, 1000))
        raise KeyError
    with pytest.raises(UserError, match="NaN"):
        audio.write(tmp_path / "a.wav", torch.full((1, 10), math.nan), RATE_HZ)
    assert (tmp_path / "a.wav").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.wav"]


def test_unwritable_targets(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"):
        audio.write(tmp_path / "no" / "a.wav", noise(), RATE_HZ)
    with pytest.raises(UserError, match="folder"):
        audio.write(tmp_path, noise(), RATE_HZ)
    with pytest.raises(UserError, match="format"):
        audio.write(tmp_path / "a.mystery", noise(), RATE_HZ)
    with pytest.raises(UserError, match="FLAC files hold no FLOAT"):
        audio.write(tmp_path / "a.flac", noise(), RATE_HZ, "FLOAT")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def on_a_full_disk(self, format):
        self._handle, self._temporary = files.begin(self.path)
        return soundfile.SoundFile("/dev/full", "w", self.sample_rate_hz, self.channels, self.subtype, format="RAW")

    monkeypatch.setattr(audio.AudioWriter, "_create", on_a_full_disk)
    with pytest.raises(UserError, match=r"cannot write .*a\.wav"):
        audio.write(tmp_path / "a.wav", noise(2, 200_000), RATE_HZ)
    assert os.listdir(tmp_path) == []


def test_a_failing_flush_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        audio.write(tmp_path / "a.wav", noise(), RATE_HZ)
    assert os.listdir(tmp_path) == []


def test_clipping_is_counted_never_silent(tmp_path):
    x = torch.tensor([[0.5, 1.0, 1.25, -2.0, -1.0, 0.0]])
    with audio.writer(tmp_path / "a.wav", RATE_HZ, 1) as file:
        file.write(x)
    assert (file.clipped_samples, file.peak) == (2, 2.0)
    assert audio.read(tmp_path / "a.wav").abs().max() <= 1.0
    with audio.writer(tmp_path / "b.wav", RATE_HZ, 1, "FLOAT") as file:
        file.write(x)
    assert (file.clipped_samples, file.peak) == (0, 2.0)
    assert torch.equal(audio.read(tmp_path / "b.wav"), x)


def test_16_bit_dither_keeps_what_lies_below_one_step(tmp_path):
    x = torch.full((1, 200_000), 0.3 / 2**15)  # rounding alone would give zeros
    audio.write(tmp_path / "a.wav", x, RATE_HZ, "PCM_16")
    steps = audio.read(tmp_path / "a.wav") * 2**15
    assert steps.mean() == pytest.approx(0.3, abs=0.01)
    assert steps.var() == pytest.approx(0.25, abs=0.01)  # TPDF: a quarter of a squared step, whatever the signal
    with audio.writer(tmp_path / "b.wav", RATE_HZ, 1, "PCM_16") as file:
        for block in x.split(777, dim=1):
            file.write(block)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_long_wav_becomes_rf64_without_a_seam(tmp_path, monkeypatch, subtype):
    x = noise(1, 300_000)
    audio.write(tmp_path / "short.wav", x, RATE_HZ, subtype)
    monkeypatch.setattr(audio, "WAV_LIMIT_BYTES", 600_000)
    audio.write(tmp_path / "long.wav", x, RATE_HZ, subtype)
    assert [audio.info(tmp_path / f"{name}.wav").format for name in ("short", "long")] == ["WAV", "RF64"]
    assert torch.equal(audio.read(tmp_path / "long.wav"), audio.read(tmp_path / "short.wav"))
    assert sorted(os.listdir(tmp_path)) == ["long.wav", "short.wav"]


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 48_000), (96_000, 44_100), (48_000, 16_000)])
def test_resampling_moves_a_tone_to_the_same_tone(from_hz, to_hz):
    tones = [
        torch.sin(2 * torch.pi * 997 * torch.arange(rate_hz, dtype=torch.float64) / rate_hz)
        for rate_hz in (from_hz, to_hz)
    ]
    y = audio.resample(tones[0].float()[None], from_hz, to_hz)
    assert y.shape == (1, to_hz)
    assert (y[0, 500:-500] - tones[1][500:-500]).abs().max() < 1e-6


@pytest.mark.parametrize("block", [1, 64, 999, 20_000])
@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 48_000), (96_000, 44_100), (16_000, 48_000)])
def test_streamed_resampling_equals_the_whole(from_hz, to_hz, block):
    x = noise(2, 1001 if block == 1 else 12_345)
    stream = audio.StreamResampler(from_hz, to_hz, channels=2)
    y = torch.cat([*(stream.push(part) for part in x.split(block, dim=1)), stream.flush()], dim=1)
    whole = audio.resample(x, from_hz, to_hz)
    assert y.shape == whole.shape
    assert (y - whole).abs().max() < 1e-6


def test_equal_rates_pass_through():
    x = noise()
    stream = audio.StreamResampler(RATE_HZ, RATE_HZ, channels=2)
    assert audio.resample(x, RATE_HZ, RATE_HZ) is x
    assert torch.equal(torch.cat([stream.push(x), stream.flush()], dim=1), x)


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_a_broken_torchaudio_says_what_to_run(monkeypatch, error):
    genuine = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.startswith("torchaudio"):
            raise error("libcudart.so.13: cannot open shared object file")
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(UserError, match="revox doctor --fix"):
        audio.resample(noise(), 44_100, 48_000)


def test_true_peak_sees_between_the_samples():
    x = torch.sin(torch.pi / 2 * torch.arange(9600) + torch.pi / 4)[None]  # every sample at -3.01 dBFS
    whole, parts = audio.TruePeak(1), audio.TruePeak(1)
    whole.update(x)
    for part in x.split(7, dim=1):
        parts.update(part)
    assert whole.dbtp == pytest.approx(parts.dbtp, abs=1e-4)
    assert whole.dbtp > -0.01  # the onset rings a little above full scale
    steady = audio.TruePeak(1)
    steady.update(x * torch.hann_window(9600))
    assert steady.dbtp == pytest.approx(0.0, abs=0.02)
    assert audio.TruePeak(2).dbtp == -math.inf


def test_a_file_that_goes_away_is_not_a_damaged_one(tmp_path):
    path = tmp_path / "a.wav"
    audio.write(path, torch.zeros(1, 100), 8000)
    header = audio.info(path)
    path.unlink()
    with pytest.raises(UserError, match="can no longer be read") as told:
        audio.read(header)
    assert not isinstance(told.value, audio.DamagedAudio)
