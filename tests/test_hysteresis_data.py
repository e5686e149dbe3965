"""The source of hysteresis: what it writes is what the solver says, each take at knobs of its own."""

import os
from pathlib import Path

import numpy as np
import pytest

from revox_lightning import audio
from revox_lightning.data.hysteresis import Hysteresis
from revox_lightning.data.module import PairData
from revox_lightning.errors import UserError
from revox_lightning.tape.hysteresis import jiles_atherton

RATE = 32_000
SMALL = {"sample_rate_hz": RATE, "takes": {"train": 6, "val": 2}, "take_seconds": 0.3}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Hysteresis(**SMALL, cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_wet_is_the_magnetisation_of_dry(source):
    for take in source.takes():
        drive, saturation, width = take.controls
        field, m = (audio.read(path)[0].double().numpy() for path in (take.dry, take.wet))
        exact = jiles_atherton(field, RATE, drive=drive, saturation=saturation, width=width, solver="nr8")
        np.testing.assert_allclose(m, exact, atol=1e-6)
        assert 10 ** (-24.5 / 20) < np.abs(field).max() <= 1.0 and take.stop == len(field) == round(0.3 * RATE)


def test_splits_hold_what_they_should(source):
    takes = source.takes()
    assert [sum(take.split == name for take in takes) for name in ("train", "val", "test")] == [6, 2, 3]
    assert [take.controls for take in takes if take.split == "test"] == [(d, 0.5, 0.5) for d in (0.25, 0.5, 0.75)]
    knobs = np.array([take.controls for take in takes if take.split == "train"])
    for part in range(6):  # every part of the range of each knob is met once
        inside = (knobs >= part / 6) & (knobs < (part + 1) / 6)
        assert np.all(inside.sum(axis=0)[1:] == 1)
    fields = [audio.read(take.dry)[0] for take in takes]
    assert not any(np.allclose(a, b) for i, a in enumerate(fields) for b in fields[:i])


def test_it_is_rendered_once_and_the_same_again(source, tmp_path):
    before = {take.wet: take.wet.stat().st_mtime_ns for take in source.takes()}
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    again = Hysteresis(**SMALL, cache_dir=str(tmp_path)).takes()
    for path, take in zip(before, again, strict=True):
        assert audio.read(path).equal(audio.read(take.wet)) and path.parent.name == take.wet.parent.name
    other = Hysteresis(**SMALL, seed=1, cache_dir=str(tmp_path)).takes()
    assert other[0].wet.parent != again[0].wet.parent
    assert not audio.read(other[0].dry).equal(audio.read(again[0].dry))


def test_the_data_module_takes_it(source):
    data = PairData(source, sample_rate_hz=RATE, segment_samples=2048, warmup_samples=512, batch_size=4)
    batch = next(iter(data.train_dataloader()))
    assert batch["dry"].shape == batch["wet"].shape == (4, 1, 2560) and batch["controls"].shape == (4, 3)
    data.check()


def test_a_rate_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="times a rate"):
        Hysteresis(sample_rate_hz=44_101, oversampling=2)


@pytest.mark.skipif("REVOX_GOLDEN" not in os.environ, reason="REVOX_GOLDEN does not point to the golden data")
def test_the_solver_gives_the_published_ten_samples():
    with np.load(Path(os.environ["REVOX_GOLDEN"]) / "tape/hysteresis/ja_drive.5_width.5_sat.5.npz") as golden:
        m = jiles_atherton(golden["unit_x"], 48_000, solver="nr4")
        np.testing.assert_allclose(m, golden["unit_y_NR4_48k"], atol=1e-6)
