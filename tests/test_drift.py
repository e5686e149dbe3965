"""What a recording's programme alone says of the speed that it was played at."""

import numpy as np
import pytest
import tape_recovery
import torch

from revox_lightning.data.performer import piece
from revox_lightning.dsp.drift import drift
from revox_lightning.dsp.tape_effect import wavering
from revox_lightning.models.style_transfer import Automatic, style_transfer

RATE_HZ = 24_000


def chord(seconds=4.0):
    t = torch.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return sum(torch.sin(2 * torch.pi * hz * t) for hz in (220.0, 277.2, 329.6, 554.4))[None]


def test_steady_partials_do_not_drift_and_wavering_ones_do():
    x = chord()
    assert drift(x, RATE_HZ).max() < 0.005
    found = [drift(wavering(x[:, None], RATE_HZ, torch.tensor([w]), 1)[:, 0], RATE_HZ)[0, 1] for w in (0.2, 0.4, 0.8)]
    assert found[1] / found[0] == pytest.approx(2, rel=0.25) and found[2] / found[1] == pytest.approx(2, rel=0.25)


def test_level_does_not_matter_and_silence_is_steady():
    x = chord()
    assert torch.allclose(drift(1e-3 * x, RATE_HZ), drift(x, RATE_HZ), atol=1e-4)
    assert drift(torch.zeros(2, 20_000), RATE_HZ).isfinite().all()


def test_music_drifts_more_the_more_it_wavers():
    x = torch.from_numpy(piece(6.0, RATE_HZ, 3))[None, None]
    found = [drift(wavering(x, RATE_HZ, torch.tensor([w]), 1)[:, 0], RATE_HZ)[0, 1].item() for w in (0, 0.3, 0.6, 1.0)]
    assert np.all(np.diff(found) > 0)


def test_recovery_is_told_for_every_knob(monkeypatch):
    monkeypatch.setattr(tape_recovery, "SECONDS", 2.0)
    monkeypatch.delenv("REVOX_GOLDEN", raising=False)
    torch.manual_seed(0)
    net = style_transfer("small", Automatic(), RATE_HZ, "tape").eval()
    rows, count = tape_recovery.recover(net, "music", RATE_HZ, 6)
    assert count == 6 and [row["knob"].split("_")[0] for row in rows] == ["drive", "spacing", "wow", "hiss"]
    assert all(0 < row["of the middle"] < 60 and -1 <= row["rank correlation"] <= 1 for row in rows)
