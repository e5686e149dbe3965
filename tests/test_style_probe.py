"""The benchmark of style features: what its styles do to a sound, and that a probe tells them apart."""

import json
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError
from revox_lightning.models.style_transfer import Automatic, style_transfer

probe = pytest.importorskip("style_probe", reason="the folder benchmarks is not at hand")
torch.set_num_threads(1)


def band_db(x, low_hz, high_hz):
    power = np.abs(np.fft.rfft(x)) ** 2
    hz = np.fft.rfftfreq(len(x), 1 / probe.RATE_HZ)
    return 10 * np.log10(power[(hz >= low_hz) & (hz < high_hz)].sum() / power.sum())


def test_a_style_moves_the_bands_that_it_names():
    x, random = 0.1 * np.random.default_rng(0).standard_normal(48_000), np.random.default_rng(1)
    made = {name: probe.styled(x, name, random) for name in probe.STYLES}
    assert all(np.abs(y).max() == pytest.approx(10 ** (-12 / 20)) for y in made.values())
    lows, highs = ({name: band_db(y, *band) for name, y in made.items()} for band in ((20, 150), (10_000, 12_000)))
    assert max(lows, key=lows.__getitem__) == "warm" and max(highs, key=highs.__getitem__) == "bright"
    assert lows["telephone"] < lows["neutral"] - 10 and highs["telephone"] < highs["neutral"] - 10
    assert band_db(made["telephone"], 800, 2_500) > band_db(made["neutral"], 800, 2_500) + 5


def test_styles_are_told_apart_and_nothing_else_is(monkeypatch):
    monkeypatch.delenv("REVOX_GOLDEN", raising=False)
    x, labels = probe.examples("speech", 50, 16_384, seed=0)
    assert x.shape == (50, 16_384) and labels.bincount().tolist() == [10] * 5
    features = probe.log_mel_statistics(x)
    assert features.shape == (50, 128) and probe.through_random_matrix(x).shape == (50, 64)
    assert probe.accuracy(features, labels) > 0.45  # by chance 0.2
    shuffled = labels[torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    assert probe.accuracy(features, shuffled) < 0.35
    encoder = probe.SmallEncoder()
    assert probe.encoded(encoder)(x).shape == (50, encoder.embedding)


@pytest.mark.slow
def test_the_script_tells_accuracies_and_distances(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("REVOX_GOLDEN", raising=False)
    words = ["--kind", "music", "--examples", "50", "--samples", "65536", "--json", str(tmp_path / "a.json")]
    monkeypatch.setattr(sys, "argv", ["style_probe.py", *words])
    probe.main()
    (found,) = json.loads((tmp_path / "a.json").read_text())
    assert len(found["fd_logmel"]) == 10 and all(value > 0 for value in found["fd_logmel"].values())
    assert set(found["accuracy_percent"]) == {
        "small encoder, untrained",
        "log-mel statistics",
        "log-mel, random matrix",
    }
    said = capsys.readouterr().out
    assert "| log-mel, random matrix |" in said and "| 62 |" in said and "| neutral |" in said


@pytest.mark.parametrize("words,says", [(["--examples", "51"], "multiple of 5"), (["--run", "/nowhere"], "run=")])
def test_bad_words_get_one_sentence(monkeypatch, capsys, words, says):
    monkeypatch.delenv("REVOX_GOLDEN", raising=False)
    monkeypatch.setattr(sys, "argv", ["style_probe.py", "--samples", "8192", "--kind", "speech", *words])
    assert guarded(probe.main) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("error:") == 1


def test_a_runs_encoder_is_the_nets_own(monkeypatch):
    net = style_transfer("small", Automatic())
    cfg = OmegaConf.create({"task": "style", "data": {"sample_rate_hz": 24_000}})
    monkeypatch.setattr(probe.assemble, "load_run", lambda run, playing: (net, cfg, None))
    x = torch.randn(9, 16_384, generator=torch.Generator().manual_seed(0))
    found = probe.encoded(probe.encoder_of("a"))(x)
    assert found.shape == (9, net.encoder.embedding) and torch.allclose(found, net.eval().encoder(x), atol=1e-5)
    for changed, says in (({"task": "effect"}, "task effect"), ({"data": {"sample_rate_hz": 44_100}}, "44100 Hz")):
        cfg.merge_with(changed)
        with pytest.raises(UserError, match=says):
            probe.encoder_of("a")
        cfg.task = "style"


def test_recordings_do_not_tell_the_style(monkeypatch):
    monkeypatch.setattr(probe, "perform", lambda seconds, rate, seed: np.full(int(seconds * rate), 1.0 + seed))
    monkeypatch.delenv("REVOX_GOLDEN", raising=False)
    levels = np.array([part[0] for part in probe.material("music", 100, 1000, seed=0)]).reshape(20, 5)
    assert len(np.unique(levels)) > 5
    assert min(len(np.unique(column)) for column in levels.T) > 3, "every style has most of the recordings"
