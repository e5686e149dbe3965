"""A delay that wanders: taken out, told to the net, or left alone; always the same moment of the tape."""

import dataclasses

import numpy as np
import pytest
import torch

from revox_lightning import audio
from revox_lightning.data import trajectories
from revox_lightning.data.module import PairData
from revox_lightning.data.recordings import Recordings
from revox_lightning.data.takes import Reader, Take
from revox_lightning.data.virtual_revox import VirtualRevox
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.dsp.trajectory import modulate
from revox_lightning.errors import UserError
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.fir import FIR
from revox_lightning.report import references
from revox_lightning.scorer import score
from revox_lightning.tape.machine import TapeMachine
from revox_lightning.tape.transport import Transport

RATE_HZ, SAMPLES = 8000, 24_000
DELAY = 300 + 4 * np.sin(2 * np.pi * 1.5 * np.arange(SAMPLES) / RATE_HZ)


@pytest.fixture
def raw(tmp_path):
    """A pair whose wet file is the dry one through a wandering delay, below half of the band, and its trajectory."""
    noise = np.random.default_rng(0).standard_normal(SAMPLES)
    dry = 0.2 * np.fft.irfft(np.where(np.arange(SAMPLES // 2 + 1) < SAMPLES // 5, np.fft.rfft(noise), 0))
    for name, signal in (("input", dry), ("target", modulate(dry, DELAY))):
        audio.write(tmp_path / f"a-{name}.wav", torch.from_numpy(signal[None]).float(), RATE_HZ, "FLOAT")
    np.savez(tmp_path / "a.npz", delay_samples=DELAY)
    return tmp_path


def data_of(folder, **how) -> PairData:
    how = {"sample_rate_hz": RATE_HZ, "gap_seconds": 0.05, "segment_samples": 1000, "warmup_samples": 400} | how
    return PairData(Recordings(root=str(folder)), fractions=(0.6, 0.2, 0.2), cache_dir=str(folder / "cache"), **how)


def error(y: torch.Tensor, y_hat: torch.Tensor) -> float:
    return float((y - y_hat).square().sum() / y.square().sum())


def test_a_delay_told_to_the_net_is_the_one_that_the_wet_signal_has(raw):
    data = data_of(raw, trajectory="delay")
    batch = next(iter(data.train_dataloader()))
    delay = batch["controls"]
    assert delay.shape == (len(batch["dry"]), 1, 1400)
    assert 32 <= delay.min() < 34 and delay.max() < 42  # what all of it has in common is no affair of the net
    for dry, wet, d in zip(batch["dry"], batch["wet"], delay, strict=True):
        moved = read_at(dry[0].numpy(), np.arange(1400) - d[0].numpy())
        assert error(wet[0, 400:], torch.from_numpy(moved)[400:]) < 1e-6


def test_chunks_tell_the_delay_in_step_with_the_audio(raw):
    data = data_of(raw, trajectory="delay", chunk_samples=777)
    chunks = [chunk for chunk in data.chunks("test")]
    dry, wet = (torch.cat([chunk[name] for chunk in chunks], dim=-1)[0, 0] for name in ("dry", "wet"))
    delay = torch.cat([chunk["controls"] for chunk in chunks], dim=-1)[0, 0]
    moved = read_at(dry.numpy(), np.arange(len(dry)) - delay.numpy())
    assert error(wet[100:-100], torch.from_numpy(moved)[100:-100]) < 1e-6


@pytest.mark.parametrize(("mode", "most"), [("demodulate", 1e-5), ("constant", None), ("delay", None)])
def test_what_references_are_given_is_moved_in_time(raw, mode, most):
    data = data_of(raw, trajectory=mode)
    dry = FIR(1)
    dry.load(torch.ones(1, 1))
    esr = score(dry, data.chunks("test", moved=True), EffectMetrics(RATE_HZ))["esr"]
    assert esr < (most or {"delay": 1e-6, "constant": 10}[mode])
    assert mode != "constant" or esr > 0.1  # a constant delay leaves what wanders
    filters = references.best_filters(references.correlations(data, "train"), references.correlations(data, "val"))
    rows = {row.name: row.metrics["esr"] for row in references.references(data, filters)}
    assert rows["dry"] == pytest.approx(esr)


def test_a_constant_delay_is_the_mean(raw):
    (take, *_) = data_of(raw, trajectory="constant").takes("train")
    assert take.delay == 300 and not take.follows


def test_nothing_is_scored_that_the_tape_has_not_played(raw):
    takes = [take for split in ("train", "val", "test") for take in data_of(raw, trajectory="demodulate").takes(split)]
    assert max(take.stop for take in takes) <= SAMPLES - 304


def test_unpaired_targets_come_from_other_places(raw):
    paired, unpaired = (next(iter(data_of(raw, trajectory="delay", unpaired=u).train_dataloader())) for u in (0, 1))
    assert torch.equal(paired["dry"], unpaired["dry"]) and torch.equal(paired["controls"], unpaired["controls"])
    assert not torch.equal(paired["wet"], unpaired["wet"])
    rows = {tuple(row[0, 400:404].tolist()) for row in paired["wet"]}
    assert rows == {tuple(row[0, 400:404].tolist()) for row in unpaired["wet"]}


def test_validation_by_segments_goes_through_the_split_once(raw):
    data = data_of(raw, batch_size=2)
    data.validate_segments = True
    sizes = [tuple(batch["wet"].shape) for batch in data.val_dataloader()]
    (take,) = data.takes("val")
    assert sum(size[0] for size in sizes) == take.frames // 1000 and {size[1:] for size in sizes} == {(1, 1400)}
    with pytest.raises(UserError, match="no take of a whole segment"):
        data_of(raw, segment_samples=9000).segments("val")


def test_the_built_in_machine_tells_the_truth_about_its_transport(tmp_path):
    machine = TapeMachine(oversampling=1, transport=Transport(head_distance_mm=5.0))
    source = VirtualRevox(machine, seconds=dict.fromkeys(("train", "val", "test"), 1.0), cache_dir=str(tmp_path))
    take = trajectories.apply(source.takes()[0], "delay", str(tmp_path))
    still = VirtualRevox(machine.without("transport"), (), 44100, source._seconds, 0, str(tmp_path)).takes()[0]
    dry, wet = trajectories.pair(Reader(), take, take.start, 20_000)
    told = dataclasses.replace(still, delay=0)
    places = np.arange(20_000) + take.start - trajectories.handed(take, take.start, 20_000)[0].numpy()
    expected = read_at(audio.read(told.wet)[0].numpy(), places)
    assert error(torch.from_numpy(expected)[2000:], wet[0, 2000:].double()) < 1e-3
    assert still.trajectory is None and dry.shape == wet.shape


@pytest.mark.parametrize("mode", ["delay", "constant", "demodulate"])
def test_a_take_without_trajectory_cannot_follow_one(raw, mode):
    (raw / "a.npz").unlink()
    with pytest.raises(UserError, match="has no trajectory"):
        data_of(raw, trajectory=mode)


def test_bad_trajectories_are_refused_in_a_sentence(raw, tmp_path):
    with pytest.raises(UserError, match=r"data\.trajectory=wobble"):
        data_of(raw, trajectory="wobble")
    for name, content in (("gone", None), ("text", b"no"), ("flat", np.zeros((2, 3))), ("nan", np.array([np.nan]))):
        path = tmp_path / f"{name}.npz"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            np.savez(path, delay_samples=content)
        with pytest.raises(UserError, match=name):
            trajectories.load(path)
    with pytest.raises(UserError, match="nothing is left"):
        trajectories._delayed(_take(raw), SAMPLES)


def _take(folder) -> Take:
    return Take("a", folder / "a-input.wav", folder / "a-target.wav", 0, SAMPLES, trajectory=folder / "a.npz")


def test_a_manifest_names_trajectories(raw):
    (raw / "a.npz").rename(raw / "other.npz")
    (raw / "pairs.csv").write_text("dry,wet,trajectory\na-input.wav,a-target.wav,other.npz\n")
    assert Recordings(manifest=str(raw / "pairs.csv")).takes()[0].trajectory == raw / "other.npz"


def test_a_trajectory_holds_for_one_rate(raw):
    with pytest.raises(UserError, match="cannot be brought to another rate"):
        data_of(raw, sample_rate_hz=16_000, resample=True)
