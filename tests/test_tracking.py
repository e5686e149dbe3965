"""A transport's delay followed through the programme alone, and what a Kalman smoother makes of measurements."""

import numpy as np
import pytest
from scipy.signal import butter, resample_poly, sosfilt

from revox_lightning import audio
from revox_lightning.data.performer import perform
from revox_lightning.dsp.anchors import rough_path
from revox_lightning.dsp.kalman import Offsets, smoothed_delay
from revox_lightning.dsp.tracking import CONFIDENCE_THRESHOLD, track
from revox_lightning.dsp.trajectory import demodulate, modulate
from revox_lightning.errors import UserError

RATE = 44_100


def transport(samples, rate, seed, percent=0.15, base=3000.0):
    """Delay in samples: lines and a band from 0.4 to 33 Hz, peaks of about `percent` in speed, and a slow drift."""
    rng, t = np.random.default_rng(seed), np.arange(samples) / rate
    lines = ((0.41, 0.5), (0.62, 0.4), (2.5, 0.5), (2.9, 0.6), (5, 0.4), (7.2, 0.3), (10, 0.5), (14, 0.2), (33, 0.1))
    speed = sum(w * np.sin(2 * np.pi * hz * rng.uniform(0.95, 1.05) * t + rng.uniform(0, 6.28)) for hz, w in lines)
    band = sosfilt(butter(1, [0.3, 25], "bandpass", fs=rate, output="sos"), rng.standard_normal(samples))
    speed = speed + 0.7 * band / band.std()
    drift = 2e-4 * np.sin(2 * np.pi * 0.03 * t + rng.uniform(0, 6.28))
    return base + np.cumsum(0.005 * percent * speed / speed.std() + drift)


def tape(x, rate, seed, hiss_dbfs=-45.0):
    """30 Hz to 18 kHz, a shelf of equalisation error, saturation, hiss."""
    x = sosfilt(butter(2, 30, "highpass", fs=rate, output="sos"), x)
    x = sosfilt(butter(2, min(18_000, 0.42 * rate), fs=rate, output="sos"), x)
    x = np.tanh(1.5 * (0.85 * x + 0.2 * sosfilt(butter(1, 3000, fs=rate, output="sos"), x))) / 1.5
    return x + 10 ** (hiss_dbfs / 20) / np.sqrt(2) * np.random.default_rng(seed).standard_normal(len(x))


def judged(found, delay):
    """`(rms error about its own mean, that mean, share of time)` where the confidence is above the threshold."""
    sure = found.confidence > CONFIDENCE_THRESHOLD
    error = found.delay_samples - np.interp(found.times_samples, np.arange(len(delay)), delay)
    return error[sure].std(), error[sure].mean(), sure.mean()


@pytest.mark.parametrize(("seed", "percent", "polarity"), [(2, 0.08, 1), (5, 0.2, -1)])
def test_the_performer_is_followed_through_a_tape(seed, percent, polarity):
    x = perform(8, RATE, seed).astype(float)
    delay = transport(len(x), RATE, seed, percent)
    rest, constant, coverage = judged(track(x, polarity * tape(modulate(x, delay), RATE, seed), RATE), delay)
    assert rest < 0.2 and abs(constant) < 0.5 and coverage > 0.7


MATERIAL = [  # name, rms allowed, least coverage of the time
    ("band_backing_feelings", 0.1, 0.9),
    ("mix_rock_chaosland", 0.1, 0.9),
    ("guitar_clean_rendered", 0.1, 0.7),
    ("keys_epiano_rendered", 0.2, 0.7),
    ("bass_finger_rendered", 0.5, 0.6),
    ("speech_librivox_16k", 0.3, 0.7),
]


@pytest.mark.parametrize(("name", "allowed", "coverage"), MATERIAL)
def test_recordings_are_followed_through_a_tape(golden, name, allowed, coverage):
    place = golden / "audio" / f"{name}.flac"
    samples, rate = audio.read(place), audio.info(place).sample_rate_hz
    x = samples[0, : 5 * rate].double().numpy()
    delay = transport(len(x), rate, 7)
    found = track(x, tape(modulate(x, delay), rate, 7), rate)
    rest, constant, share = judged(found, delay)
    assert rest < allowed and abs(constant) < 0.8 and share > coverage


def test_speech_is_followed_at_a_higher_rate(golden):
    samples, rate = audio.read(golden / "audio" / "speech_librivox_16k.flac"), 16_000
    x = resample_poly(samples[0, : 5 * rate].double().numpy(), 3, 1)
    delay = transport(len(x), 48_000, 3)
    rest, _, share = judged(track(x, tape(modulate(x, delay), 48_000, 3), 48_000), delay)
    assert rest < 0.5 and share > 0.7


def test_silence_in_the_middle_is_not_trusted():
    x = perform(9, RATE, 4).astype(float)
    x[3 * RATE : 5 * RATE] = 0
    delay = transport(len(x), RATE, 1)
    found = track(x, tape(modulate(x, delay), RATE, 1), RATE)
    inside = (found.times_samples > 3.5 * RATE) & (found.times_samples < 4.6 * RATE)
    assert (found.confidence[inside] < CONFIDENCE_THRESHOLD).all()
    assert judged(found, delay)[0] < 0.3


def test_a_pair_with_only_the_transport_is_straightened():
    x = perform(7, RATE, 6).astype(float)
    delay = transport(len(x), RATE, 6, base=200.0)
    wet = modulate(x, delay)
    found = track(x, wet, RATE)
    back = demodulate(wet, found.per_sample(len(wet)))
    middle = slice(RATE // 2, -RATE // 2)
    assert 10 * np.log10(((back - x)[middle] ** 2).sum() / (x[middle] ** 2).sum()) < -35


def test_identical_signals_have_no_delay():
    x = perform(3, RATE, 1).astype(float)
    found = track(x, x, RATE)
    sure = found.confidence > CONFIDENCE_THRESHOLD
    assert sure.mean() > 0.7 and np.abs(found.delay_samples[sure]).max() < 1e-3


def test_another_recording_is_refused_and_so_are_silence_and_scraps():
    x, other = (perform(6, RATE, seed).astype(float) for seed in (1, 8))
    noise = np.random.default_rng(0).standard_normal(len(x))
    for wet in (other, noise, tape(other, RATE, 0)):
        with pytest.raises(UserError, match="same take"):
            track(x, wet, RATE)
    for dry, wet in ((x, np.zeros(len(x))), (np.zeros(len(x)), x), (x, np.where(x > 0, np.nan, x))):
        with pytest.raises(UserError, match="silent"):
            track(dry, wet, RATE)
    for dry, wet in ((x, x[:1000]), (x[:1000], x), (x, x[:0])):
        with pytest.raises(UserError, match="half a second"):
            track(dry, wet, RATE)
    with pytest.raises(ValueError, match="expected dry and wet"):
        track(x[None], x[None], RATE)


def test_a_delay_beyond_the_limit_is_not_found():
    x = perform(6, RATE, 3).astype(float)
    late = np.concatenate((np.zeros(2 * RATE), x))
    with pytest.raises(UserError, match="allow a longer delay"):
        track(x, late, RATE, max_delay_samples=RATE // 2)


@pytest.mark.parametrize("slope", [0.0, 0.003, -0.005])
def test_a_late_and_fast_or_slow_recording_is_placed_roughly(slope):
    x = perform(12, RATE, 3).astype(float)
    n = np.arange(15 * RATE)
    delay = 120_000 + slope * n + transport(len(n), RATE, 3, base=0.0)
    path = rough_path(x, -tape(modulate(x, delay), RATE, 3), RATE, 4 * RATE)
    played = n - delay
    error = (path.at(n) - delay)[(played > 0) & (played < len(x))]
    assert path.polarity == -1 and np.abs(error).max() < 100


def test_constants_of_instruments_are_told_by_continuity():
    """One instrument measures the first half, 3 samples off the other that measures the second; both meet in the middle."""
    t = np.arange(1000) / 100
    truth = 2 * np.sin(2 * np.pi * 0.7 * t)
    share = np.clip((t - 5) / 0.04, 0, 1)
    shares = np.stack((1 - share, share), axis=1)
    values = truth + 3 * share + 0.01 * np.random.default_rng(0).standard_normal(1000)
    offsets = Offsets(shares, np.zeros((2, 2)), np.zeros(2))
    delay, error, _ = smoothed_delay(t, values, np.full(1000, 1e-4), scale_errors=True, offsets=offsets)
    off = delay - truth
    assert np.ptp(off) < 0.5
    plain, sure, _ = smoothed_delay(t, values, np.full(1000, 1e-4), scale_errors=True)
    assert np.ptp(plain - truth) > 2.5 and error.mean() > sure.mean()


def test_the_smoother_knows_how_wrong_it_is():
    """Errors of the size claimed, where values are missing too."""
    rng, rate = np.random.default_rng(3), 200
    t = np.arange(4000) / rate
    truth = np.cumsum(sosfilt(butter(1, 4, fs=rate, output="sos"), rng.standard_normal(4000))) * 0.5
    variances = np.where(rng.random(4000) < 0.3, np.inf, 0.04)
    variances[1000:1060] = np.inf
    values = np.where(np.isfinite(variances), truth + 0.2 * rng.standard_normal(4000), 99.0)
    delay, error, prior = smoothed_delay(t, values, variances, scale_errors=True)
    assert 0.7 < np.sqrt(np.mean(((delay - truth) / error) ** 2)) < 1.4
    assert error[1030] > 3 * np.median(error) and 0.7 < prior.error_scale < 1.4
