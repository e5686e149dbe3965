"""Comparing generators: distances, figures, costs."""

import math

import numpy as np
import pytest
import torch

from revox_lightning import audio
from revox_lightning.data.hiss import Hiss
from revox_lightning.data.module import PairData
from revox_lightning.errors import UserError
from revox_lightning.models.shaped_noise import ShapedNoise
from revox_lightning.report import generators
from revox_lightning.tape import noise
from revox_lightning.tape.machine import TapeMachine


def white(samples=30_000, channels=1, seed=0, scale=1e-3):
    return scale * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("task", "rate_hz"), [("trajectory", 100.0), ("noise", 8000.0)])
def test_the_real_thing_scores_perfectly(task, rate_hz):
    x = [white()]
    row = generators.row("itself", task, x, x, rate_hz)
    for name in ("std_db", "values", "increments", "spectrum_db"):
        assert row[name] == pytest.approx(0.0, abs=1e-9)


def test_each_distance_sees_what_it_is_for():
    real = [white()]
    louder = generators.row("twice as loud", "noise", real, [2 * real[0]], 8000.0)
    assert louder["std_db"] == pytest.approx(6.02, abs=0.01) and louder["spectrum_db"] == pytest.approx(6.02, abs=0.01)
    assert louder["values"] == pytest.approx(math.sqrt(2 / math.pi), rel=0.02)  # E|x| of a Gaussian
    shuffled = real[0][:, real[0][0].argsort()]
    ordered = generators.row("in order", "noise", real, [shuffled], 8000.0)
    assert ordered["values"] < 1e-9 < 0.5 < ordered["increments"] and ordered["spectrum_db"] > 10
    square = generators.row("two-valued", "noise", real, [real[0].sign() * real[0].std()], 8000.0)
    assert square["values"] > 0.2 and abs(square["std_db"]) < 0.01
    offset = generators.row("elsewhere", "noise", real, [real[0] + 1], 8000.0)
    assert offset["values"] < 1e-3


def test_the_stored_signals_give_the_stored_row():
    t = np.arange(2000) / 100
    real = [torch.from_numpy(1e-3 * np.sin(2 * np.pi * 4 * t))[None]]
    made = [torch.from_numpy(2e-3 * np.sin(2 * np.pi * 4 * t + 1))[None]]
    row = generators.row("sine", "trajectory", real, made, 100.0)
    # Speed of a delay of 2 ms at 4 Hz: 2 pi 4 0.002 = 5 %, seen through differences of 10 ms; 2 sigma of a sine: sin 85.5 deg
    expected = 100 * 2e-3 * 2 * 100 * math.sin(math.pi * 4 / 100) * math.sin(math.radians(85.5))
    assert row["wow_flutter_percent"] == pytest.approx(expected, rel=0.01)
    assert row["values"] == pytest.approx(2 * math.sqrt(2) / math.pi, rel=0.01)
    assert row["std"] == pytest.approx(2e-3 / math.sqrt(2), rel=1e-3)


def test_the_figures_of_noise_are_those_of_the_instruments():
    from revox_lightning.measure.noise import noise_level_dbfs

    x = white(100_000)
    row = generators.row("noise", "noise", [x], [x], 44_100.0)
    assert row["a_dbfs"] == pytest.approx(noise_level_dbfs(x[0].double().numpy(), 44_100.0, "a"), abs=0.01)
    assert row["itu_r_468_dbfs"] == pytest.approx(
        noise_level_dbfs(x[0].double().numpy(), 44_100.0, "itu_r_468", "quasi_peak"), abs=0.05
    )


def test_what_is_too_short_has_no_figure():
    x = [white(400)]
    assert generators.row("4 s", "trajectory", x, x, 100.0)["wow_flutter_percent"] is None
    assert generators.row("50 ms", "noise", x, x, 8000.0)["a_dbfs"] is None


@pytest.mark.parametrize("real", [[], [torch.zeros(1, 1)]])
def test_nothing_cannot_be_compared(real):
    with pytest.raises(UserError, match="nothing to compare"):
        generators.row("nothing", "noise", real, [white()], 8000.0)


def test_silence_and_other_tasks_are_refused():
    with pytest.raises(UserError, match="is silent"):
        generators.row("silence", "noise", [torch.zeros(1, 100)], [white()], 8000.0)
    with pytest.raises(UserError, match="choose one of trajectory, noise"):
        generators.row("effect", "effect", [white()], [white()], 8000.0)


class Counted:
    """Says how it is asked."""

    def __init__(self):
        self.asked = []

    def sample(self, samples, generator, rows=1):
        self.asked.append((samples, rows))
        return torch.randn(rows, samples, generator=generator)


def test_takes_of_one_length_are_drawn_at_once():
    source, real = Counted(), [white(500, 2), white(300), white(500, 2)]
    rows = generators.compare("noise", real, {"counted": source}, 8000.0)
    assert source.asked == [(500, 4), (300, 1)]
    assert rows[0]["row"] == "counted" and rows[0]["cpu_seconds_per_second"] >= 0
    assert rows[0]["std_db"] == pytest.approx(60.0, abs=1.0)


@pytest.mark.parametrize("channels", ["left", "right", "mix", "each"])
def test_material_is_the_channel_that_is_learned(tmp_path, channels):
    seconds = {"train": 1.0, "val": 0.5, "test": 0.5}
    source = Hiss(TapeMachine(hiss=noise.Hiss()), sample_rate_hz=16_000, seconds=seconds, cache_dir=str(tmp_path))
    data = PairData(
        source, sample_rate_hz=16_000, channels=channels, segment_samples=4096, batch_size=1, cache_dir=str(tmp_path)
    )
    whole = audio.read(data.takes("test")[0].wet)
    expected = {"left": whole[:1], "right": whole[1:], "mix": whole.mean(0, keepdim=True), "each": whole}[channels]
    assert torch.equal(generators.material(data, "test", 0.25)[0], expected[:, :4000])


def test_a_table_of_the_machines_hiss(tmp_path, capsys):
    seconds = {"train": 8.0, "val": 2.0, "test": 4.0}
    source = Hiss(TapeMachine(hiss=noise.Hiss()), sample_rate_hz=16_000, seconds=seconds, cache_dir=str(tmp_path))
    data = PairData(source, sample_rate_hz=16_000, segment_samples=4096, cache_dir=str(tmp_path))
    wrong = ShapedNoise(2, 64).fit([white(5000, 2)])
    rows = {row["row"]: row for row in generators.against(data, "noise", {"white": wrong}, 3.0)}
    assert list(rows) == ["test split", "training split", "shaped noise", "white"]
    # What the machine does is Gaussian: the shaped noise is as near as the machine is to itself.
    nearest = rows["training split"]["spectrum_db"]
    assert rows["shaped noise"]["spectrum_db"] < 1.5 * nearest < 3.0 < rows["white"]["spectrum_db"]
    assert abs(rows["shaped noise"]["a_dbfs"] - rows["test split"]["a_dbfs"]) < 0.3
    assert sum(x.shape[-1] for x in generators.material(data, "test", 3.0)) == 48_000
    generators.show("hiss", list(rows.values()))
    assert "shaped noise" in capsys.readouterr().out
