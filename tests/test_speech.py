"""The synthetic voice: pauses, pitch, formants and hiss of speech, from its seed alone."""

import numpy as np
import pytest
from scipy.signal import welch

from revox_lightning.data.speech import speak
from revox_lightning.errors import UserError

RATE = 16_000


@pytest.fixture(scope="module")
def spoken():
    return speak(6.0, RATE, seed=0)


def test_the_seed_alone_decides(spoken):
    assert np.array_equal(speak(6.0, RATE, seed=0), spoken)
    assert not np.array_equal(speak(6.0, RATE, seed=1), spoken)
    assert spoken.shape == (6 * RATE,) and spoken.dtype == np.float32 and np.abs(spoken).max() == 0.5


def test_it_pauses_and_goes_up_and_down_as_speech_does(spoken):
    frames = 20 * np.log10(spoken.reshape(-1, RATE // 50).std(axis=1) + 1e-9)
    assert 0.1 < np.mean(frames < -80) < 0.5  # dead silence between phrases
    heard = frames[frames > -60]
    assert np.quantile(heard, 0.95) - np.quantile(heard, 0.05) > 12


def test_it_is_voiced_with_formants_and_hisses(spoken):
    hz, power = welch(spoken, RATE, nperseg=4096)
    level = lambda low, high: 10 * np.log10(power[(hz >= low) & (hz < high)].mean())  # noqa: E731
    assert level(300, 800) > level(4000, 7000) + 15  # most lies in the first formant
    assert level(4000, 7000) > level(300, 800) - 45  # fricatives
    loudest = int(np.argmax(spoken.reshape(-1, RATE // 10).std(axis=1)))
    piece = spoken[loudest * RATE // 10 :][: RATE // 10].astype(float)
    correlation = np.correlate(piece, piece, "full")[piece.size - 1 :]
    pitch_hz = RATE / (RATE // 170 + int(np.argmax(correlation[RATE // 170 : RATE // 70])))
    assert 75 < pitch_hz < 165


@pytest.mark.parametrize("seconds,rate_hz", [(0, RATE), (float("nan"), RATE), (1, 4000)])
def test_what_cannot_be_spoken_is_refused(seconds, rate_hz):
    with pytest.raises(UserError, match="cannot speak"):
        speak(seconds, rate_hz, 0)
