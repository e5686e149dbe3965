"""Mikkonen et al., "Neural modeling of magnetic tape recorders", DAFx 2023: the time-varying delay of the transport."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from revox_lightning.errors import UserError
from revox_lightning.models.history import prepend

INTERPOLATIONS = ("linear", "band_limited")
# Of the band-limited kernel: samples to either side, Kaiser's beta, and powers of the fraction. Errors stay below
# -87 dB up to 0.41 of the rate (18 kHz at 44.1); one power less costs 12 dB.
HALF_WIDTH = 16
_KAISER_BETA = 9.0
_POWERS = 5


class DelayLine(nn.Module):
    """y[n] = p(n - d[n]), d in samples: each sample is read at its own delay, between the samples of p.

    "linear" is the published form, y[n] = sum_k relu(1 - |k - d[n]|) p[n - k]: treble is lost halfway between samples
    (3 dB at half of Nyquist). "band_limited" reads by a windowed sinc, flat to 18 kHz at 44.1 kHz, which looks 15
    samples ahead: so much is the least delay (`least_delay_samples`; 0 for linear). Both give p itself at whole
    delays and are differentiable in p and d. Cost and memory grow with the time played, not with the delay.
    Raises UserError for another interpolation or a longest delay below the least one.

    >>> y, state = DelayLine(8192)(torch.zeros(4, 1, 100), torch.full((4, 1, 100), 7056.3))
    >>> y.shape, state.shape
    (torch.Size([4, 1, 100]), torch.Size([4, 1, 8193]))
    """

    powers: Tensor

    def __init__(self, max_delay_samples: int = 8192, interpolation: str = "linear") -> None:
        super().__init__()
        if interpolation not in INTERPOLATIONS:
            raise UserError(f"unknown interpolation {interpolation!r}: choose one of {', '.join(INTERPOLATIONS)}")
        self.max_delay_samples, self.interpolation = max_delay_samples, interpolation
        half_width = HALF_WIDTH if interpolation == "band_limited" else 1
        self.least_delay_samples = half_width - 1
        if max_delay_samples < self.least_delay_samples:
            raise UserError(
                f"max_delay_samples={max_delay_samples} is below the {self.least_delay_samples} samples that "
                f"{interpolation} interpolation needs: give more"
            )
        self.reach_samples = max_delay_samples + half_width - 1  # of the oldest sample that is heard
        self.history_samples = max_delay_samples + half_width
        powers = farrow(HALF_WIDTH, _KAISER_BETA, _POWERS) if interpolation == "band_limited" else torch.empty(0, 2)
        self.register_buffer("powers", powers.float(), persistent=False)

    def forward(self, x: Tensor, delay_samples: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (batch, channels, time), delay_samples (batch, 1, time or 1) -> y like x and the last of x.

        The state is (batch, channels, history_samples), None for silence. Raises UserError for delays outside
        `least_delay_samples` to `max_delay_samples`, for NaN, and for another number of them.
        """
        window, state = prepend(x, self.history_samples, state)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 keeps 8 bits: neither audio nor delay
            d = self._checked(delay_samples, x)
            whole = d.detach().floor()
            n = torch.arange(x.shape[-1], device=x.device)
            places = self.history_samples + n - whole.long()  # (batch, 1, time) in the window
            fraction = (d - whole).to(window.dtype)  # after the difference: a delay in float64 keeps its precision
            return read_between(window, places, fraction, self.powers), state

    def _checked(self, delay_samples: Tensor, x: Tensor) -> Tensor:
        """The delay of every sample (batch, 1, time); UserError where the line cannot play it."""
        batch, _, time = x.shape
        if delay_samples.ndim != 3 or delay_samples.shape[1] != 1 or delay_samples.shape[-1] not in (1, time):
            shape = tuple(delay_samples.shape)
            raise UserError(f"a delay of shape {shape} was given for audio of {(batch, 1, time)}: one a sample, or one")
        if delay_samples.numel() == 0:
            return delay_samples.expand(batch, 1, time)
        least, most = (float(end) for end in torch.aminmax(delay_samples.detach()))
        if math.isnan(least):
            raise UserError("the delay holds values that are not numbers: check its trajectory")
        if least < self.least_delay_samples:
            hint = "add a constant delay (data.trajectory=delay leaves enough)"
            if self.least_delay_samples:
                hint += ", or take linear interpolation"
            raise UserError(
                f"a delay of {least:.3f} samples is shorter than the {self.least_delay_samples} that "
                f"{self.interpolation} interpolation needs: {hint}"
            )
        if most > self.max_delay_samples:
            raise UserError(
                f"a delay of {most:.1f} samples is longer than the delay line: set max_delay_samples to at least "
                f"{math.ceil(most)} (now {self.max_delay_samples}), or take its constant part out"
            )
        return delay_samples.expand(batch, 1, time)

    @property
    def multiply_adds_per_sample(self) -> int:
        """Of one channel."""
        return 2 + self.powers.numel() + 2 * self.powers.shape[0] * (self.interpolation == "band_limited")


def read_between(p: Tensor, places: Tensor, fraction: Tensor, powers: Tensor) -> Tensor:
    """p (batch, channels, samples) read at `places` - `fraction`: (batch, channels, time), differentiable in both.

    places (batch, 1, time) whole, fraction (batch, 1, time) from 0 to 1; all samples that are needed must be there.
    With f the fraction: linear interpolation between the two neighbours, and beside it, where `powers` (powers,
    2 half_width) of `farrow` has rows, f (1 - f) times a polynomial in f - 1/2 whose coefficients are filters of p.
    """
    if places.numel() == 0:
        return p.new_zeros(*p.shape[:2], places.shape[-1])
    half_width = powers.shape[1] // 2
    # What is filtered follows the delay's range within this call, not the length of the line.
    first = int(places.min()) - half_width
    near = p[..., first : int(places.max()) + half_width]
    places = (places - first).expand(-1, p.shape[1], -1)
    now = near.gather(-1, places)
    y = now + fraction * (near.gather(-1, places - 1) - now)
    if not powers.shape[0]:
        return y
    batch, channels, _ = near.shape
    filtered = conv1d(near.flatten(0, 1)[:, None], powers[:, None]).unflatten(0, (batch, channels))
    at = (places - half_width)[:, :, None].expand(-1, -1, len(powers), -1)
    terms = filtered.gather(-1, at)  # (batch, channels, powers, time)
    total = terms[:, :, -1]
    for power in range(len(powers) - 2, -1, -1):
        total = total * (fraction - 0.5) + terms[:, :, power]
    return y + fraction * (1 - fraction) * total


def farrow(half_width: int, beta: float, powers: int) -> Tensor:
    """A sinc under a Kaiser window, less the linear interpolation, as a polynomial of the fraction: float64.

    Farrow, "A continuously variable digital delay element", ISCAS 1988. The weight of sample m - f around m is
    linear(f) + f (1 - f) sum_j (f - 1/2)^j out[j]; out (powers, 2 half_width), oldest sample first.

    >>> farrow(16, 9.0, 5).shape
    torch.Size([5, 32])
    """
    k = torch.arange(half_width, -half_width, -1, dtype=torch.float64)  # how much older than m, oldest first
    f = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(256, dtype=torch.float64) + 0.5) / 256)[:, None]
    inside = (1 - ((k - f) / half_width) ** 2).clamp(min=0).sqrt()
    weights = torch.sinc(k - f) * torch.i0(beta * inside)
    weights = weights / weights.sum(dim=1, keepdim=True)
    linear = (1 - (k - f).abs()).clamp(min=0)
    basis = f * (1 - f) * (f - 0.5) ** torch.arange(powers)
    return torch.linalg.lstsq(basis, weights - linear).solution
