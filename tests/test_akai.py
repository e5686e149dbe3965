"""A real recorder: three clips of an Akai 4000D at 7.5 ips (Mikkonen et al., DAFx 2023), programme left, pulses right."""

import numpy as np
import pytest

from revox_lightning import audio
from revox_lightning.dsp.pulses import find_pulses, pulse_trajectory, resolve_period
from revox_lightning.dsp.tracking import CONFIDENCE_THRESHOLD, track

RATE = 44_100


@pytest.fixture(params=[1, 2, 3])
def clip(golden, request):
    """`(dry (2, time), wet (2, time), stored arrays of the clip)`."""
    folder, number = golden / "tape" / "real_tape", request.param
    dry, wet = (
        audio.read(folder / f"akai_maxell_7.5ips_{number}_{side}.flac").double().numpy() for side in ("input", "target")
    )
    stored = np.load(folder / "trajectories.npz")
    keys = ("input_pulses", "output_pulses", "delay_samples_at_pulse_subsample")
    return dry, wet, {key: stored[f"clip{number}_{key}"] for key in keys}


def test_the_pulses_are_where_whole_samples_say(clip):
    dry, wet, stored = clip
    for x, places in ((dry[1], stored["input_pulses"]), (wet[1], stored["output_pulses"])):
        found = find_pulses(x, RATE)
        nearest = places[np.abs(places[:, None] - found).argmin(axis=0)]
        assert len(found) >= len(places) - 1 and np.abs(found - nearest).max() < 1.5


def test_the_stored_trajectory_comes_back_with_its_ten_milliseconds_settled(clip):
    dry, wet, stored = clip
    found = resolve_period(pulse_trajectory(dry[1], wet[1], RATE), dry[0], wet[0], RATE)
    expected = stored["delay_samples_at_pulse_subsample"]
    assert abs(found.mean - expected.mean()) < 0.02e-3 * RATE
    assert abs(found.std - expected.std()) < 0.02e-3 * RATE
    assert 0.160 < found.mean / RATE < 0.1608


def test_the_programme_alone_tells_nearly_the_same(clip):
    """Programme and pulses lie on different tracks, whose azimuths differ and wander; 0.5 sample apart at most."""
    dry, wet, _ = clip
    pulses = resolve_period(pulse_trajectory(dry[1], wet[1], RATE), dry[0], wet[0], RATE)
    found = track(dry[0], wet[0], RATE)
    sure = found.confidence > CONFIDENCE_THRESHOLD
    apart = (found.delay_samples - pulses.at(found.times_samples))[sure]
    assert sure.mean() > 0.5 and apart.std() < 0.5 and abs(apart.mean()) < 5
