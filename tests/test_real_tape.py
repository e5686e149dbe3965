"""The preparation of the real tape recordings, judged by the linear filters it allows."""

import numpy as np
import pytest
import real_tape
import torch

from revox_lightning import audio
from revox_lightning.data.module import PairData
from revox_lightning.data.recordings import Recordings
from revox_lightning.dsp.least_squares import Correlations
from revox_lightning.metrics import EffectMetrics

SKIPPED = 8192


@pytest.fixture
def prepared(golden, tmp_path):
    return real_tape.prepare(golden, tmp_path)[0]


def pair(folder, clip):
    return [audio.read(folder / f"akai_{clip}-{side}.wav")[0] for side in ("moved", "target")]


def score(dry, wet, h, lookahead):
    y_hat = torch.from_numpy(np.convolve(dry.double(), h))[lookahead : lookahead + len(wet)].float()
    metrics = EffectMetrics(44_100)
    metrics.start_file()
    metrics.update(y_hat[None, SKIPPED:], wet[None, SKIPPED:])
    metrics.end_file()
    return metrics.compute()


def test_linear_filters_reach_on_the_third_clip_what_they_are_known_to(prepared):
    train = Correlations(max_taps=4096)
    for clip in (1, 2):
        train.update(*pair(prepared.parent, clip), lead=SKIPPED)
    short = score(*pair(prepared.parent, 3), train.solve(1024, 64), 64)
    assert short["esr"] == pytest.approx(0.0129, rel=0.05)
    assert short["esr_gain_aligned"] == pytest.approx(0.0059, rel=0.06)
    long = score(*pair(prepared.parent, 3), train.solve(4096, 512), 512)
    assert long["esr"] == pytest.approx(0.0097, rel=0.05)
    assert long["esr_gain_aligned"] == pytest.approx(0.0069, rel=0.05)


def test_a_constant_delay_is_not_enough(prepared, golden):
    measured = np.load(golden / "tape" / "real_tape" / "trajectories.npz")
    pairs = {}
    for clip in (1, 2, 3):
        dry = audio.read(golden / "tape" / "real_tape" / f"akai_maxell_7.5ips_{clip}_input.flac")[0]
        delay = round(float(measured[f"clip{clip}_delay_samples_at_pulse_subsample"].mean()))
        pairs[clip] = torch.nn.functional.pad(dry, (delay, 0))[: len(dry)], pair(prepared.parent, clip)[1]
    train = Correlations(max_taps=1024)
    for clip in (1, 2):
        train.update(*pairs[clip], lead=SKIPPED)
    assert score(*pairs[3], train.solve(1024, 64), 64)["esr"] > 0.05


def test_splits_keep_their_distance_and_skip_the_beginning(prepared):
    data = PairData(Recordings(manifest=str(prepared)), history_samples=SKIPPED)
    spans = {
        split: [(take.start, take.stop, take.lead) for take in data.takes(split)] for split in ("train", "val", "test")
    }
    last = 220_500 - 44_100
    assert spans["train"] == [(SKIPPED, last - SKIPPED, SKIPPED)] * 2
    assert spans["val"] == [(last, 220_500, SKIPPED)] * 2
    assert spans["test"] == [(SKIPPED, 220_500, SKIPPED)]


def test_both_manifests_score_the_same_samples(golden, tmp_path):
    moved, raw = real_tape.prepare(golden, tmp_path)
    datas = (
        PairData(Recordings(manifest=str(moved)), history_samples=SKIPPED),
        PairData(Recordings(manifest=str(raw)), history_samples=SKIPPED, trajectory="delay"),
    )
    for split in ("train", "val", "test"):
        spans = [[(take.start + take.delay, take.stop + take.delay) for take in data.takes(split)] for data in datas]
        assert spans[0] == spans[1]
    for one, other in zip(*(data.stretches("test", 0, 0) for data in datas), strict=True):
        assert torch.equal(one[1], other[1])
        assert float((one[0] - other[0]).square().sum() / one[0].square().sum()) < 1e-3
