"""Trajectories as data."""

import numpy as np
import pytest
import torch

from revox_lightning import audio
from revox_lightning.data.module import PairData
from revox_lightning.data.transport_curves import TransportCurves, at_rate
from revox_lightning.errors import UserError
from revox_lightning.tape.machine import TapeMachine
from revox_lightning.tape.transport import Transport

MACHINE = TapeMachine(transport=Transport(mode="second_pass", speed_error_percent=0.5))
SECONDS = {"train": 30.0, "val": 8.0, "test": 8.0}


def curves(place, **other):
    return TransportCurves(MACHINE, seconds=SECONDS, cache_dir=str(place), **other)


def test_the_machines_delay_without_its_mean(tmp_path):
    takes = {take.split: take for take in curves(tmp_path).takes()}
    x = audio.read(takes["val"].wet)
    assert takes["val"].dry == takes["val"].wet and x.shape == (1, 800)
    assert audio.info(takes["val"].wet).sample_rate_hz == 100
    steady = Transport(mode="second_pass")
    delay = (np.arange(800) - steady.positions(800, 100, 7.5, [0, 1, 0])) / 100
    np.testing.assert_allclose(x[0], delay - delay.mean(), atol=1e-9)
    assert not torch.equal(x[0], audio.read(takes["train"].wet)[0, :800])


def test_it_is_rendered_once_and_anew_for_another_seed(tmp_path):
    first = curves(tmp_path).takes()
    stamps = [take.wet.stat().st_mtime_ns for take in first]
    assert [take.wet.stat().st_mtime_ns for take in curves(tmp_path).takes()] == stamps
    other = curves(tmp_path, seed=1).takes()
    assert other[0].wet != first[0].wet and not torch.equal(audio.read(other[0].wet), audio.read(first[0].wet))


def test_the_data_module_takes_100_hz(tmp_path, caplog):
    data = PairData(
        curves(tmp_path),
        sample_rate_hz=100,
        channels="left",
        batch_size=2,
        segment_samples=512,
        cache_dir=str(tmp_path),
    )
    data.check()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    batch = next(iter(data.train_dataloader()))
    assert batch["wet"].shape == (2, 1, 512) and torch.equal(batch["wet"], batch["dry"])
    assert len(list(data.segments("val"))) == 1


def npz(place, name, delay, **more):
    place.mkdir(parents=True, exist_ok=True)
    np.savez(place / f"{name}.npz", delay_samples=delay, **more)


def test_what_align_measured_is_read_in_seconds(tmp_path):
    rate_hz = 8000
    t = np.arange(20 * rate_hz) / rate_hz
    delay = 1280 + 8 * np.sin(2 * np.pi * 0.5 * t)
    npz(tmp_path / "raw", "take1", delay, sample_rate_hz=rate_hz)
    take = TransportCurves(root=str(tmp_path / "raw"), cache_dir=str(tmp_path)).takes()[0]
    x = audio.read(take.wet)[0]
    assert take.split is None and x.shape == (2000,)
    np.testing.assert_allclose(x[50:-50], 1e-3 * np.sin(np.pi * np.arange(2000) / 100)[50:-50], atol=2e-5)


def test_folders_name_splits_and_audio_beside_tells_the_rate(tmp_path):
    for split in ("train", "val", "test"):
        npz(tmp_path / "raw" / split, "a", 100 + np.random.default_rng(0).standard_normal(16_000))
        audio.write(tmp_path / "raw" / split / "a-target.wav", torch.zeros(1, 100), 8000)
    takes = TransportCurves(root=str(tmp_path / "raw"), cache_dir=str(tmp_path)).takes()
    assert [take.split for take in takes] == ["test", "train", "val"] and all(take.frames == 200 for take in takes)


def test_a_straight_line_stays_one_at_another_rate():
    line = np.linspace(1.0, 3.0, 4410)
    np.testing.assert_allclose(at_rate(line, 44_100, 100), line[::441], atol=1e-6)


def test_what_holds_no_trajectory_is_refused(tmp_path):
    with pytest.raises(UserError, match="no transport"):
        TransportCurves(TapeMachine())
    with pytest.raises(UserError, match="no such folder"):
        TransportCurves(root=str(tmp_path / "nowhere")).takes()
    with pytest.raises(UserError, match="holds no trajectories"):
        TransportCurves(root=str(tmp_path)).takes()
    npz(tmp_path, "alone", np.ones(100))
    with pytest.raises(UserError, match="does not say its sample_rate_hz"):
        TransportCurves(root=str(tmp_path), cache_dir=str(tmp_path)).takes()
