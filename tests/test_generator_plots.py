"""Pictures of generators."""

import numpy as np
import pytest

from revox_lightning.report import generator_plots


def signals(samples=1500):
    draw = np.random.default_rng(0).standard_normal
    return {"test split": 1e-4 * draw(samples), "rival": 2e-4 * draw(samples // 2), "net": 1e-2 + np.zeros(samples)}


@pytest.mark.parametrize("task", ["trajectory", "noise"])
def test_three_pictures_of_signals_of_any_length(tmp_path, task):
    drawn = generator_plots.draw(signals(), task, 100.0, tmp_path / "plots")
    assert [path.name for path in drawn] == ["spectra.png", "stretch.png", "increments.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in drawn)


def test_what_is_drawn_follows_the_signals(tmp_path):
    first = generator_plots.draw(signals(), "trajectory", 100.0, tmp_path / "a")
    louder = {name: 2 * x if name == "rival" else x for name, x in signals().items()}
    second = generator_plots.draw(louder, "trajectory", 100.0, tmp_path / "b")
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, second, strict=True))
