"""What a person turns on a tape recorder, on the virtual one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from revox_lightning.errors import UserError
from revox_lightning.tape.machine import TapeMachine

# Continuous knobs as low:high, switches as their positions.
KNOBS = {"record_level_db": "-6:12", "over_peak_db": "1:5", "speed_ips": "7.5,15", "playback": "nab,iec"}


def turned(machine: TapeMachine, settings: Mapping[str, float | str]) -> TapeMachine:
    """The machine with its knobs at these places; those that are not named stay where they are.

    ``record_level_db`` and ``over_peak_db`` (the bias; the record equaliser stays as it was set for the machine's own),
    ``speed_ips``, ``playback`` (the playback equalisation). Raises UserError for another name or a value out of reach.

    >>> turned(TapeMachine(), {"speed_ips": "15", "over_peak_db": 4.0}).aligned_over_peak_db
    3.0
    """
    for name, value in settings.items():
        if name not in KNOBS:
            raise UserError(f"the virtual machine has no knob {name!r}: choose among {', '.join(KNOBS)}.")
        if name == "playback":
            if machine.equalisation is None:
                raise UserError("the virtual machine has no equalisation that playback could switch.")
            machine = replace(machine, equalisation=replace(machine.equalisation, playback=str(value)))
            continue
        number = _number(name, value)
        if name == "over_peak_db":
            if machine.bias is None:
                raise UserError("the virtual machine has no bias that over_peak_db could turn.")
            aligned = machine.aligned_over_peak_db
            aligned = machine.bias.over_peak_db if aligned is None else aligned
            machine = replace(machine, bias=replace(machine.bias, over_peak_db=number), aligned_over_peak_db=aligned)
        else:
            machine = replace(machine, **{name: number})
    return machine


def _number(name: str, value: float | str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(f"the virtual machine's knob {name} is turned to {value!r}: give a number.") from None
