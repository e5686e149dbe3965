"""Each preset, measured by the instruments, gives back what was asked of it."""

import numpy as np
import pytest

from revox_lightning.commands import assemble
from revox_lightning.measure.distortion import harmonics, maximum_output_level
from revox_lightning.measure.noise import noise_level_dbfs
from revox_lightning.measure.response import level_at_db, smoothed, sweep_responses
from revox_lightning.measure.signals import Sweep, tone
from revox_lightning.measure.speed import demodulate, speed_error_percent, wow_and_flutter

RATE = 44_100
PRESETS = [
    "a77_7.5ips",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("a77_15ips", "a77_3.75ips", "worn", "overbiased")),
]


def played(machine, x, seed):
    return machine.play(x[None], RATE, seed).wet[0].astype(np.float64)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_back_its_wow_and_flutter_noise_response_and_output(preset):
    machine = assemble.build_machine(preset, [])
    assert machine.transport.mode == "second_pass"
    speed = demodulate(played(machine, tone(3150, 60, RATE, machine.zero_vu_dbfs), 1), RATE)
    assert wow_and_flutter(speed) == pytest.approx(machine.transport.wow_flutter_percent, rel=0.05)
    assert speed_error_percent(speed) == pytest.approx(machine.transport.speed_error_percent, abs=0.02)

    noise_dbfs = noise_level_dbfs(played(machine, np.zeros(6 * RATE), 2), RATE, machine.hiss.weighting)
    loudest_dbfs = machine.zero_vu_dbfs + machine.hiss.reference_db
    assert loudest_dbfs - noise_dbfs == pytest.approx(machine.hiss.signal_to_noise_db, abs=0.3)

    sweep = Sweep(20, 20_000, 6, RATE, machine.zero_vu_dbfs - 20)
    responses = sweep_responses(played(machine, sweep.signal(), 3), sweep)
    hz = np.array([31.5, 40, 63, 125, 500, 2000, 5000, 8000, 10_000, 12_500])
    gain = smoothed(responses.frequency_hz, responses.gain[0], 1 / 6)
    measured_db = level_at_db(responses.frequency_hz, gain, hz, 1000.0)
    np.testing.assert_allclose(measured_db, machine.response_db(hz, RATE), atol=0.3)

    steps = np.arange(2.0, 15.0)
    tones = [np.pad(tone(1000, 0.5, RATE, machine.zero_vu_dbfs + step), (0, RATE // 4)) for step in steps]
    parts = played(machine, np.concatenate(tones), 4).reshape(len(steps), -1)[:, RATE // 10 : RATE * 9 // 20]
    found = [harmonics(part, 1000.0, RATE) for part in parts]
    output_db = np.array([part.level_dbfs for part in found]) - machine.zero_vu_dbfs
    mol_db = maximum_output_level(output_db, np.array([part.third_percent for part in found]))
    assert mol_db == pytest.approx(machine.mol_db, abs=0.3)
