"""State Transition Network (Parker et al., DAFx 2019) for Jiles-Atherton hysteresis (Chowdhury, AnalogTapeModel)."""

import ctypes
import functools
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.kernels import stn as fused
from revox_lightning.models.fir import direct_convolution
from revox_lightning.models.history import prepend
from revox_lightning.models.knobs import knob_signals
from revox_lightning.tape.hysteresis import COERCIVITY

MACHINE_KNOBS = 3  # drive, saturation, width
_MIDDLE = (0.5, 0.5, 0.5)  # of these, for a net without them
_POLE = -0.75  # of the derivative
_DERIVATIVE_TAPS = 64  # 0.75^64 is below what single precision resolves
_STEP_SCALE = 2.0
_LEAST_REVERSIBLE = 0.05  # so that the net is heard where nothing is


class STN(nn.Module):
    """Magnetisation by a small tanh net: M[n] = M[n-1] + p (D[n] z[n] + D[n-1] z[n-1]).

    z[n] = net(H[n], D[n], H[n-1], D[n-1], M[n-1]) + `drag` max(gap, 0); x is the field H (in audio's full scale), y the
    magnetisation M, D the derivative of H times the sample period, 1.75 (H[n] - H[n-1]) - 0.75 D[n-1], as in the
    solvers it replaces. What is known of the equation is built in: M moves only with the field (the net gives a slope,
    not a step); the loop is odd, so all inputs are turned over where D is negative; H is seen as the anhysteretic
    magnetisation it aims at, and as long as M has a gap to go there, domain walls give way (the corner of the equation,
    which no small smooth net has; `drag` 0 leaves it out); |M| stays within the saturation. The net learns the rest.
    5-4-4-1 has the 49 parameters of the published nets.

    With three controls, drive, saturation and width (0 to 1), one net serves all settings: they scale field and
    magnetisation as in the equation (HysteresisProcessing of AnalogTapeModel), and the two numbers on which the
    scaled equation still depends are inputs. Any other number of controls enters as it is.
    M fades over `memory_samples`: under an AC bias tape does not remember for ever, and an error cannot add up.
    The state is (batch, channels, 4): M, H, D and z. Raises UserError for a net without a hidden layer.

    >>> y, state = STN()(torch.zeros(4, 1, 100))
    >>> y.shape, state.shape, sum(p.numel() for p in STN().parameters())
    (torch.Size([4, 1, 100]), torch.Size([4, 1, 4]), 49)
    """

    kernel = "stn"
    side_channels = 0
    receptive_field = None
    latency_samples = 0

    def __init__(
        self,
        hidden: Sequence[int] = (4, 4),
        channels: int = 1,
        controls: int = 0,
        memory_samples: float = math.inf,
        drag: float = 1.0,
    ) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise UserError(f"model.hidden={list(hidden)}: give at least one hidden layer of at least one unit.")
        self.channels, self.controls = channels, controls
        self._keep, self._drag = math.exp(-1 / memory_samples), drag
        conditions = 2 if controls == MACHINE_KNOBS else controls
        sizes = [5 + conditions, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.output_layer = nn.Linear(hidden[-1], 1)

    def forward(self, x: Tensor, controls: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (batch, channels, time) -> y (batch, channels, time), state (batch, channels, 4)."""
        knobs = knob_signals(controls, self.controls, x.shape[-1])
        if state is None:
            state = x.new_zeros(*x.shape[:2], 4)
        with torch.autocast(x.device.type, enabled=False):
            x, state = x.to(self.output_layer.weight.dtype), state.to(self.output_layer.weight.dtype)
            library = backend.fused("stn", x, self.output_layer.weight, state)
            still = knobs is None or knobs.shape[-1] == 1
            if library is not None and still and x.numel() and not torch.is_grad_enabled():
                return self._rendered(library, x, knobs, state)
            return self._played(library, x, knobs, state)

    def _played(
        self, library: ctypes.CDLL | None, x: Tensor, knobs: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """With a graph, and with knobs that move: all but the recursion itself by torch."""
        m0, h0, d0, z0 = state.unbind(-1)  # (batch, channels)
        window = torch.cat([h0[..., None], x], dim=-1)
        d = torch.cat([d0[..., None], _derivative(window, d0)], dim=-1)
        unit, (of_m, per_step, limit, slope, height, *_, gain), conditions = self._conditions(
            knobs, x
        )  # (batch, 1, 1 or time)
        turned = torch.where(d[..., 1:] >= 0, 1.0, -1.0)  # (batch, channels, time)
        parts = [height * langevin(slope * window[..., 1:]), d[..., 1:] * (_STEP_SCALE / unit)]
        parts += [height * langevin(slope * window[..., :-1]), d[..., :-1] * (_STEP_SCALE / unit)]
        inputs = [turned * part for part in parts]
        inputs += [condition.expand_as(x) for condition in conditions]
        first, *_ = self._hidden
        weight = torch.cat([first.weight[:, :4], first.weight[:, 5:]], dim=1)
        a = nn.functional.linear(torch.stack(inputs, dim=-1), weight, first.bias)  # (batch, channels, time, hidden)
        now, before = d[..., 1:] * per_step, d[..., :-1] * per_step
        pull = self._drag / (1 + d[..., 1:].abs() / (1.9 * COERCIVITY))
        q = turned * of_m
        signals = (q, now, before, gain.expand_as(x), pull * inputs[0], pull * q, self._drag - pull, limit.expand_as(x))
        given = fused.Signals(*(s.flatten(0, 1) for s in (a, *signals, m0, z0)))
        play = fused.reference if library is None else functools.partial(fused.play, library)
        m, z = play(given, self._weights(), keep=self._keep)
        m = m.view_as(x)
        return m, torch.stack([m[..., -1], x[..., -1], d[..., -1], z.view_as(m0)], dim=-1)

    def _rendered(self, library: ctypes.CDLL, x: Tensor, knobs: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Without a graph, knobs standing still: all in one loop."""
        x = x.contiguous()
        stream = self._stream(library, x[..., :1], knobs, state)
        y = torch.empty_like(x)
        stream.play(x.data_ptr(), y.data_ptr(), x.shape[-1])
        return y, stream.state.view_as(state)

    def _stream(self, library: ctypes.CDLL, x: Tensor, knobs: Tensor | None, state: Tensor) -> fused.Stream:
        unit, all_scales, conditions = self._conditions(knobs, x)
        first, *_ = self._hidden
        scales = torch.cat([scale.expand_as(x) for scale in all_scales], dim=-1)  # (batch, channels, 8)
        bias = first.bias.expand(*x.shape[:2], -1)
        if conditions:
            given = torch.cat([c.expand_as(x) for c in conditions], dim=-1)  # (batch, channels, conditions)
            bias = bias + given @ first.weight[:, 5:].T
        units = torch.cat([torch.ones_like(unit), _STEP_SCALE / unit], dim=-1).repeat(1, 1, 2)
        of_inputs = (units[..., None] * first.weight[:, :4].T).expand(*x.shape[:2], 4, -1)
        inputs = torch.cat([of_inputs, bias[..., None, :]], dim=-2).flatten(0, 1)
        return fused.Stream(library, inputs, scales.flatten(0, 1), state.flatten(0, 1), self._weights(), self._keep)

    def fused_stream(self, controls: Tensor | None = None) -> fused.Stream | None:
        """The compiled loop for one signal with the present weights; None where there is none."""
        weight = self.output_layer.weight.detach()
        library = backend.fused("stn", weight)
        if library is None:
            return None
        with torch.no_grad():
            x = weight.new_zeros(1, self.channels, 1)
            return self._stream(library, x, knob_signals(controls, self.controls, 1), x.expand(-1, -1, 4))

    @property
    def _hidden(self) -> list[nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]

    def _weights(self) -> list[Tensor]:
        first, *further = self._hidden
        both = [part for layer in further for part in (layer.weight, layer.bias)]
        return [first.weight[:, 4], *both, self.output_layer.weight[0], self.output_layer.bias[0]]

    def _conditions(self, knobs: Tensor | None, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...], list[Tensor]]:
        """Unit of the field; the kernel's scales (factors of M and of the step, saturation, ...); further inputs.

        Each (batch or 1, 1, 1 or time).
        """
        if self.controls == MACHINE_KNOBS and knobs is not None:
            drive, saturation, width = knobs.to(x.dtype).clamp(0, 1)[:, :, None].unbind(1)  # (batch, 1, 1 or time)
        else:
            drive, saturation, width = (x.new_full((1, 1, 1), middle) for middle in _MIDDLE)
        limit = 0.5 + 1.5 * (1 - saturation)
        a = limit / (0.01 + 6 * drive)  # the field at which the anhysteretic curve bends
        largest = limit / (1 + 3 * a)  # about the magnetisation of a field of 1
        reversible = torch.sqrt(1 - width) - 0.01
        conditions = []
        if self.controls == MACHINE_KNOBS:
            conditions = [a / (a + COERCIVITY), reversible]
        elif knobs is not None:
            conditions = list(knobs.to(x.dtype)[:, :, None].unbind(1))
        drag, soft = (torch.full_like(a, value) for value in (self._drag, 1 / (1.9 * COERCIVITY)))
        gain = (_LEAST_REVERSIBLE + reversible) * COERCIVITY * limit / (3 * a * largest)  # slope of small signals
        scales = 1 / largest, largest * soft, limit, 1 / a, limit / largest, drag, soft, gain
        return a + COERCIVITY, scales, conditions

    @property
    def multiply_adds_per_sample(self) -> int:
        return sum(weight.numel() for weight in self.parameters() if weight.ndim == 2)


def langevin(q: Tensor) -> Tensor:
    """coth q - 1/q, the anhysteretic curve; a series near zero, where the closed form cancels."""
    s = q * q
    series = q * (1 / 3 + s * (-1 / 45 + s * (2 / 945 + s * (-1 / 4725 + s * (2 / 93555 - s * 2.1644e-6)))))
    near = s < 0.36
    away = torch.where(near, 1.0, q)  # no 0 / 0, whose gradient would reach all
    return torch.where(near, series, 1 / torch.tanh(away) - 1 / away)


def _derivative(window: Tensor, before: Tensor) -> Tensor:
    """Period times derivative: window (batch, channels, time + 1), the value before it (batch, channels) -> time."""
    steps = 1.75 * window.diff(dim=-1)
    taps = _POLE ** torch.arange(_DERIVATIVE_TAPS + 1, dtype=torch.float64)
    history, _ = prepend(steps, _DERIVATIVE_TAPS - 1)
    recent = direct_convolution(history, taps[:-1].to(steps).expand(steps.shape[1], -1))
    fading = torch.zeros_like(steps)
    known = min(_DERIVATIVE_TAPS, steps.shape[-1])
    fading[..., :known] = before[..., None] * taps[1 : known + 1].to(steps)
    return recent + fading


def stn(size: int = 4, channels: int = 1, controls: int = 0) -> STN:
    """Two hidden layers of `size` units; 4 is the published size."""
    return STN((size, size), channels, controls)
