"""Noise as data."""

import pytest
import torch

from revox_lightning import audio
from revox_lightning.data.hiss import Hiss, quiet_stretches
from revox_lightning.data.module import PairData
from revox_lightning.errors import UserError
from revox_lightning.tape import noise
from revox_lightning.tape.machine import TapeMachine

MACHINE = TapeMachine(hiss=noise.Hiss(signal_to_noise_db=60.0))
SECONDS = {"train": 1.5, "val": 0.5, "test": 0.5}
RATE_HZ = 16_000


def hiss(place, **other):
    return Hiss(MACHINE, sample_rate_hz=RATE_HZ, seconds=SECONDS, cache_dir=str(place), **other)


def test_it_is_what_the_whole_machine_adds_to_silence(tmp_path):
    takes = hiss(tmp_path).takes()
    assert [take.split for take in takes] == ["train", "val", "test"]
    x = audio.read(takes[1].wet)
    whole = MACHINE.play(torch.zeros(2, 8000).numpy(), RATE_HZ, seed=1).wet
    torch.testing.assert_close(x, torch.from_numpy(whole), rtol=0, atol=1e-9)
    assert takes[1].dry == takes[1].wet and x.shape == (2, 8000)


def test_it_is_rendered_once(tmp_path):
    stamps = [take.wet.stat().st_mtime_ns for take in hiss(tmp_path).takes()]
    assert [take.wet.stat().st_mtime_ns for take in hiss(tmp_path).takes()] == stamps
    assert hiss(tmp_path, seed=1).takes()[0].wet != hiss(tmp_path).takes()[0].wet


@pytest.mark.parametrize(("channels", "count"), [("left", 1), ("each", 2)])
def test_the_data_module_takes_it(tmp_path, caplog, channels, count):
    data = PairData(
        hiss(tmp_path), sample_rate_hz=RATE_HZ, channels=channels, segment_samples=4096, cache_dir=str(tmp_path)
    )
    data.check()
    assert not [r for r in caplog.records if r.levelname == "WARNING"] and data.audio_channels == count
    assert next(iter(data.train_dataloader()))["wet"].shape[1:] == (count, 4096)


def recording(*parts, level=1e-3, seed=0):
    """Hiss for so many seconds, with a tone in each second part."""
    x = level * torch.randn(1, int(sum(parts) * RATE_HZ), generator=torch.Generator().manual_seed(seed))
    at = 0
    for i, seconds in enumerate(parts):
        n = int(seconds * RATE_HZ)
        if i % 2:
            x[:, at : at + n] += 0.1 * torch.sin(0.3 * torch.arange(n))
        at += n
    return x


def test_quiet_stretches_lie_between_the_notes():
    found = quiet_stretches(recording(3, 1, 2.5, 2, 1), RATE_HZ, 2.0)
    seconds = [(piece.start / RATE_HZ, piece.stop / RATE_HZ) for piece in found]
    assert seconds == [(0.0, 2.9), (4.1, 6.4)]


def test_digital_silence_and_nothing_are_no_hiss():
    assert quiet_stretches(torch.zeros(1, 3 * RATE_HZ), RATE_HZ, 1.0) == []
    assert quiet_stretches(torch.zeros(1, 10), RATE_HZ, 1.0) == []


def test_stretches_of_recordings_are_shared_out(tmp_path):
    place = tmp_path / "tapes"
    place.mkdir()
    audio.write(place / "a-target.wav", recording(3, 1, 3, 1, 3), RATE_HZ, subtype="FLOAT")
    audio.write(place / "a-input.wav", recording(9), RATE_HZ, subtype="FLOAT")
    takes = Hiss(root=str(place)).takes()
    assert [take.split for take in takes] == ["train", "val", "test"]
    assert {take.wet.name for take in takes} == {"a-target.wav"}
    PairData(Hiss(root=str(place)), sample_rate_hz=RATE_HZ, segment_samples=4096, gap_seconds=0.0).check()


def test_one_long_stretch_is_left_to_be_cut_by_time(tmp_path):
    audio.write(tmp_path / "silence.wav", recording(8), RATE_HZ, subtype="FLOAT")
    takes = Hiss(root=str(tmp_path)).takes()
    assert [(take.split, take.frames) for take in takes] == [(None, 8 * RATE_HZ)]
    data = PairData(Hiss(root=str(tmp_path)), sample_rate_hz=RATE_HZ, segment_samples=4096, cache_dir=str(tmp_path))
    assert data.seconds("test") == pytest.approx(0.75, abs=0.1)


def test_what_holds_no_hiss_is_refused(tmp_path):
    with pytest.raises(UserError, match="no hiss"):
        Hiss(TapeMachine())
    with pytest.raises(UserError, match="no such folder"):
        Hiss(root=str(tmp_path / "nowhere")).takes()
    audio.write(tmp_path / "short.wav", recording(1), RATE_HZ, subtype="FLOAT")
    with pytest.raises(UserError, match="no stretch of hiss"):
        Hiss(root=str(tmp_path)).takes()
