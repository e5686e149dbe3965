"""The pulse channel: what was put in comes back, through a tape, with pulses missing, and numbered rightly."""

import numpy as np
import pytest
from scipy.signal import butter, sosfilt, sosfiltfilt

from revox_lightning.data.performer import perform
from revox_lightning.dsp.pulses import find_pulses, pulse_train, pulse_trajectory, resolve_period
from revox_lightning.dsp.trajectory import demodulate, modulate
from revox_lightning.errors import UserError

RATE = 44_100


def transport(samples, rate, seed=1, base=7056.0):
    """Delay in samples as real transports have it: swings of 0.05 to 0.3 ms with lines from 0.4 to 30 Hz."""
    rng, t = np.random.default_rng(seed), np.arange(samples) / rate
    lines_ms = ((0.41, 0.06), (0.62, 0.05), (2.5, 0.04), (2.9, 0.05), (6, 0.02), (11, 0.01), (23, 0.004), (30, 0.003))
    delay = np.full(samples, base)
    for hz, ms in lines_ms:
        delay += rate * 1e-3 * ms * np.sin(2 * np.pi * hz * rng.uniform(0.95, 1.05) * t + rng.uniform(0, 6.28))
    return delay


def tape(x, rate, seed=2, hiss_dbfs=-50.0):
    """30 Hz to 18 kHz, a shelf of equalisation error, saturation, hiss."""
    x = sosfilt(butter(2, 30, "highpass", fs=rate, output="sos"), x)
    x = sosfilt(butter(2, min(18_000, 0.42 * rate), fs=rate, output="sos"), x)
    x = np.tanh(1.5 * (0.85 * x + 0.2 * sosfilt(butter(1, 3000, fs=rate, output="sos"), x))) / 1.5
    return x + 10 ** (hiss_dbfs / 20) / np.sqrt(2) * np.random.default_rng(seed).standard_normal(len(x))


def below_40_hz(delay, rate):
    return sosfiltfilt(butter(6, 40, fs=rate, output="sos"), delay)


def errors(found, delay, rate):
    """Constant and rms of the rest, in samples."""
    inside = (np.arange(len(delay)) > found.times_samples[0] + rate / 10) & (
        np.arange(len(delay)) < found.times_samples[-1] - rate / 10
    )
    error = (found.per_sample(len(delay)) - below_40_hz(delay, rate))[inside]
    return error.mean(), error.std()


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 96_000])
def test_a_train_has_its_pulses_where_they_belong_at_its_level(rate):
    train = pulse_train(rate, rate, level=0.4)
    assert np.abs(train).max() == pytest.approx(0.4, rel=1e-3)
    found = find_pulses(train, rate)
    assert np.allclose(found, rate / 100 * np.arange(1, len(found) + 1), atol=0.02) and len(found) >= 97
    power = np.abs(np.fft.rfft(train)) ** 2
    assert power[12_500 * len(train) // rate :].sum() < 1e-4 * power.sum()


def test_pulses_between_the_samples_are_placed():
    train = pulse_train(3 * RATE, RATE, pulses_hz=97.3)
    found = find_pulses(train, RATE, pulses_hz=97.3)
    assert np.allclose(found, RATE / 97.3 * np.arange(1, len(found) + 1), atol=0.01)


@pytest.mark.parametrize(("rate", "hiss"), [(44_100, -50.0), (44_100, -60.0), (48_000, -50.0), (96_000, -50.0)])
def test_the_trajectory_comes_back_through_a_tape(rate, hiss):
    """The wander within 0.05 sample; the constant holds what the filters delay a pulse, which is the same every time."""
    dry = pulse_train(5 * rate, rate)
    delay = transport(len(dry), rate, base=0.16 * rate)
    found = pulse_trajectory(dry, tape(modulate(dry, delay), rate, hiss_dbfs=hiss), rate)
    constant, rest = errors(found, delay, rate)
    still = pulse_trajectory(dry, tape(dry, rate, seed=5, hiss_dbfs=hiss), rate).mean
    assert rest < 0.015 * rate / 44_100
    assert constant == pytest.approx(still, abs=0.01)
    assert found.confidence.min() > 0.95


def test_polarity_does_not_matter():
    dry = pulse_train(3 * RATE, RATE)
    delay = transport(len(dry), RATE)
    wet = tape(modulate(dry, delay), RATE)
    assert np.allclose(pulse_trajectory(dry, -wet, RATE).at(np.arange(RATE, 2 * RATE)),
                       pulse_trajectory(dry, wet, RATE).at(np.arange(RATE, 2 * RATE)), atol=0.01)  # fmt: skip


def test_dropouts_are_bridged_with_less_confidence_and_clicks_ignored():
    dry = pulse_train(6 * RATE, RATE)
    delay = transport(len(dry), RATE, base=500.0)
    wet = tape(modulate(dry, delay), RATE)
    wet[2 * RATE : 2 * RATE + 1500] *= 0.001  # three pulses
    wet[4 * RATE : 4 * RATE + 22_050] *= 0.001  # half a second
    wet[5 * RATE + 150 : 5 * RATE + 165] += 0.5  # a click beside a pulse
    found = pulse_trajectory(dry, wet, RATE)
    error = found.per_sample(len(dry)) - below_40_hz(delay, RATE)
    error -= np.median(error)
    n = np.arange(len(dry))
    sure = (found.confidence_at(n) > 0.5) & (n > RATE // 2) & (n < 5.5 * RATE)
    assert np.sqrt(np.mean(error[sure] ** 2)) < 0.06
    assert found.confidence_at(np.array([4.25 * RATE]))[0] < 0.2 < 0.9 < found.confidence_at(np.array([3.0 * RATE]))[0]
    assert np.abs(error[n > 4.6 * RATE][: RATE // 2]).max() < 0.2  # the numbering is kept
    assert len(find_pulses(wet, RATE)) < 600 - 50


def test_a_hint_numbers_pulses_that_begin_within_the_train():
    dry = pulse_train(4 * RATE, RATE)
    delay = transport(len(dry), RATE, base=1000.0)
    wet = tape(modulate(dry, delay), RATE)
    wet[: RATE // 2] = 0
    late = pulse_trajectory(dry, wet, RATE, delay_hint_samples=1010.0)
    assert errors(late, delay, RATE)[0] == pytest.approx(0.34, abs=0.1)


def test_the_clock_may_drift_by_more_than_a_period():
    dry = pulse_train(12 * RATE, RATE)
    delay = 100 + 0.003 * np.arange(len(dry))
    found = pulse_trajectory(dry, tape(modulate(dry, delay), RATE), RATE)
    assert np.ptp(found.per_sample(len(dry)) - delay) < 0.2 + 0.003 * 2000


def excerpt_of_both(periods, invert=False):
    """Mid-file excerpts of programme and pulses, `periods` pulse periods and 30 samples apart."""
    x = np.stack((perform(8, RATE, 3).astype(float), pulse_train(8 * RATE, RATE)))
    start, delay = 100_000, 441 * periods + transport(8 * RATE, RATE, base=30.0)
    wet = [tape(modulate(part, delay), RATE)[start : start + 4 * RATE] for part in x]
    return x[:, start : start + 4 * RATE], (-1 if invert else 1) * np.array(wet), delay[start : start + 4 * RATE]


@pytest.mark.parametrize(("periods", "invert"), [(16, False), (0, True), (-23, False), (88, True)])
def test_the_programme_settles_which_pulse_is_which(periods, invert):
    dry, wet, delay = excerpt_of_both(periods, invert)
    raw = pulse_trajectory(dry[1], wet[1], RATE)
    settled = resolve_period(raw, dry[0], wet[0], RATE)
    assert settled.mean == pytest.approx(delay.mean(), abs=1)
    assert (settled.mean - raw.mean) / 441 == pytest.approx(round((settled.mean - raw.mean) / 441))


def test_a_programme_that_belongs_to_something_else_settles_nothing():
    dry, wet, _ = excerpt_of_both(16)
    raw = pulse_trajectory(dry[1], wet[1], RATE)
    for other in (np.random.default_rng(0).standard_normal(len(wet[0])), np.zeros(len(wet[0]))):
        with pytest.raises(UserError, match="same take"):
            resolve_period(raw, dry[0], other, RATE)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 3.0])
def test_silence_has_no_pulses(seconds):
    with pytest.raises(UserError, match="pulses a second"):
        find_pulses(np.zeros(int(seconds * RATE)), RATE)


def test_neither_noise_nor_music_nor_other_pulses_pass_for_a_train():
    noise = np.random.default_rng(0).standard_normal(3 * RATE)
    for x in (noise, perform(3, RATE, 0), pulse_train(3 * RATE, RATE, pulses_hz=50.0)):
        with pytest.raises(UserError, match="pulses a second"):
            find_pulses(x, RATE)


def test_malformed_input():
    with pytest.raises(ValueError, match="shape"):
        find_pulses(np.zeros((2, 1000)), RATE)
    with pytest.raises(UserError, match="too many"):
        pulse_train(1000, RATE, pulses_hz=1000.0)


def test_a_pair_with_only_the_transport_is_straightened_by_its_pulses():
    x, train = perform(6, RATE, 2).astype(float), pulse_train(6 * RATE, RATE)
    delay = transport(len(x), RATE, base=200.0)
    found = pulse_trajectory(train, modulate(train, delay), RATE)
    wet = modulate(x, delay)
    middle = slice(RATE // 2, -RATE // 2)

    def esr_db(delays):
        return 10 * np.log10(((demodulate(wet, delays) - x)[middle] ** 2).sum() / (x[middle] ** 2).sum())

    assert esr_db(delay) < -70
    assert esr_db(found.per_sample(len(wet))) < -45
