"""Mikkonen et al., "Neural modeling of magnetic tape recorders", DAFx 2023: the whole machine, for rendering."""

import math
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models import random_blocks
from revox_lightning.models.contract import Net
from revox_lightning.models.delay_line import HALF_WIDTH, DelayLine, read_between
from revox_lightning.models.delayed import Delayed
from revox_lightning.models.random_blocks import RandomBlocks

_TRANSPORT, _HISS = 1, 2  # their seeds are to differ


class Transport(RandomBlocks, Protocol):
    """Random trajectories: deviations of the delay from its mean, in seconds at `rate_hz`.

    `excursion_seconds` is the largest deviation, to either side, that is expected of them.
    """

    @property
    def excursion_seconds(self) -> float: ...


class TapeHybrid(nn.Module):
    """A net for what the tape does to the waveform, then a generated transport, then generated noise.

    All channels run by one transport, and each has noise of its own. A net for one channel plays each of `channels`;
    the delay line that it may have been trained with is left out. `wow_flutter` and `hiss` scale what is generated: 1
    is as trained, 0 is none. The delay is the least that leaves room for the transport's excursion, and is counted as
    latency. Seeded by `seed` (or `reseed`): the same seed gives the same samples, in blocks of any size.
    Raises UserError where the parts do not fit each other.

    >>> from revox_lightning.models.gaussian_process import GaussianProcess
    >>> from revox_lightning.models.recurrent import Recurrent
    >>> from revox_lightning.models.shaped_noise import ShapedNoise
    >>> machine = TapeHybrid(Recurrent(), GaussianProcess(64), ShapedNoise(1, 64), sample_rate_hz=44100, channels=2)
    >>> machine(torch.zeros(1, 2, 512))[0].shape
    torch.Size([1, 2, 512])
    """

    side_channels = 0
    receptive_field = None
    generates = ("wow_flutter", "hiss")  # made up from `seed`: attributes that scale each

    def __init__(
        self,
        net: Net,
        transport: Transport,
        noise: RandomBlocks,
        *,
        sample_rate_hz: int,
        channels: int | None = None,
        wow_flutter: float = 1.0,
        hiss: float = 1.0,
        seed: int = 0,
        max_delay_samples: int = 8192,
    ) -> None:
        super().__init__()
        net = cast(Net, net.core) if isinstance(net, Delayed) else net
        self.channels = net.channels if channels is None else channels
        if net.side_channels or net.channels not in (1, self.channels):
            raise UserError(f"a net of {net.channels} channels cannot play {self.channels}: give one for each, or all")
        if noise.rate_hz != sample_rate_hz:
            raise UserError(f"the noise was learned at {noise.rate_hz:g} Hz and is to be heard at {sample_rate_hz} Hz")
        if not (wow_flutter >= 0 and hiss >= 0):
            raise UserError(f"wow_flutter={wow_flutter} and hiss={hiss}: give 0 (none), 1 (as trained), or between")
        self.net, self.transport, self.noise = net, transport, noise
        self.line = DelayLine(max_delay_samples, "band_limited")
        self.controls, self.sample_rate_hz = net.controls, sample_rate_hz
        self.wow_flutter, self.hiss, self.seed = wow_flutter, hiss, seed

    @property
    def any_channels(self) -> bool:
        """Whether `channels` may be set to as many as are to be played."""
        return self.net.channels == 1

    def reseed(self, generator: torch.Generator) -> None:
        """Takes a new seed out of `generator`."""
        self.seed = int(torch.randint(2**62, (), generator=generator))

    def forward(self, x: Tensor, controls: Tensor | None = None, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """x (batch, channels, time) -> y, and the states of net, line, transport and noise; None: of what is off."""
        if x.shape[1] != self.channels:
            raise UserError(f"the model plays {self.channels} channels but the audio has {x.shape[1]}")
        net_state, line_state, moved, hissed = self._settled(x, controls) if state is None else state
        y, net_state = self._play(x, controls, net_state)
        if self.wow_flutter:
            deviation, moved = self._deviation(x.shape[0], x.shape[2], moved)
            y, line_state = self.line(y, self._constant_samples + deviation.to(x.device), line_state)
        if self.hiss:
            rows, seed = x.shape[0] * self.channels, random_blocks.mixed(self.seed, _HISS)
            noise, hissed = random_blocks.take(self.noise, x.shape[-1], seed, rows, hissed)
            y = y + self.hiss * noise.view(y.shape).to(y)
        return y, (net_state, line_state, moved, hissed)

    def _settled(self, x: Tensor, controls: Tensor | None) -> tuple[Any, ...]:
        """The state that the net's published silence before the start leaves, also on the tape."""
        silence = x.new_zeros(*x.shape[:2], getattr(self.net, "preroll_samples", 0))
        if not silence.shape[-1]:
            return None, None, None, None
        first = controls[..., :1] if controls is not None and controls.ndim == 3 else controls
        y, net_state = self._play(silence, first, None)
        return net_state, y[..., -1:].repeat(1, 1, self.line.history_samples), None, None

    def _play(self, x: Tensor, controls: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """The net on x (batch, channels, time); a mono one on each channel."""
        if self.net.channels == self.channels:
            return self.net(x, controls, state)
        each = None if controls is None else controls.repeat_interleave(self.channels, dim=0)
        y, state = self.net(x.flatten(0, 1)[:, None], each, state)  # (batch * channels, 1, time)
        return y.view(x.shape), state

    def _deviation(self, batch: int, time: int, state: tuple | None) -> tuple[Tensor, tuple]:
        """Deviation of the delay in samples (batch, 1, time), float64; the state is the place, points, and their own.

        The points at `rate_hz` are read band-limited at each sample: a delay that jumped, or bent, would be heard.
        """
        start, points, generated = (torch.tensor(0), torch.zeros(batch, 0), None) if state is None else state
        first = int(start)
        n = torch.arange(first, first + time, dtype=torch.float64)
        at = HALF_WIDTH + n * (self.transport.rate_hz / self.sample_rate_hz)
        after = at.floor() + 1  # the points from HALF_WIDTH before it to as many after it count
        taken = 0 if generated is None else int(generated[0])
        wanted = taken if time == 0 else max(int(after[-1]) + HALF_WIDTH, taken)
        seed = random_blocks.mixed(self.seed, _TRANSPORT)
        more, generated = random_blocks.take(self.transport, wanted - taken, seed, batch, generated)
        points = torch.cat([points, more.cpu()], dim=-1)
        offset = wanted - points.shape[-1]  # of the first point in this window
        places = (after.long() - offset).expand(batch, 1, -1)
        seconds = read_between(points[:, None].double(), places, after - at, self.line.powers.double().cpu())
        samples = (self.wow_flutter * self.sample_rate_hz * seconds).clamp(-self._excursion, self._excursion)
        kept = points[:, -2 * HALF_WIDTH - 1 :].clone()
        return samples, (torch.tensor(first + time), kept, generated)

    @property
    def _excursion(self) -> int:
        """Of the transport, in samples to either side."""
        return math.ceil(self.wow_flutter * self.transport.excursion_seconds * self.sample_rate_hz)

    @property
    def _constant_samples(self) -> int:
        """The least delay about which the transport may move."""
        return self.line.least_delay_samples + self._excursion if self.wow_flutter else 0

    @property
    def latency_samples(self) -> int:
        return self.net.latency_samples + self._constant_samples

    @property
    def multiply_adds_per_sample(self) -> int:
        played = self.channels // self.net.channels * self.net.multiply_adds_per_sample
        made = self.channels * (self.line.multiply_adds_per_sample + getattr(self.noise, "multiply_adds_per_sample", 0))
        return played + made
