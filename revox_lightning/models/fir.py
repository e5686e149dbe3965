"""Linear time-invariant filter: the best that any linear model can do (Wiener, 1949), and a skip path for nets."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from revox_lightning.errors import UserError
from revox_lightning.models.history import prepend

# Up to about this block length the direct sum is faster than the Fourier transform (one thread, 256 to 8,192 taps).
DIRECT_SAMPLES = 64


class FIR(nn.Module):
    """One causal FIR filter per channel: y[n] = sum_k h[k] x[n - k], and with `bias` a constant on top.

    The output at n estimates the wet signal at n - lookahead: the first `lookahead` taps reach into its future.
    Starts as the unit impulse at `lookahead` (the dry signal, in time); `load` sets the taps. `h` (channels, taps)
    is a buffer, or a parameter when `trainable`. The state is the last taps - 1 inputs.
    Raises UserError when `lookahead` does not lie within the taps.

    >>> y, state = FIR(taps=1024, lookahead=64)(torch.zeros(4, 1, 2048))
    >>> y.shape, state.shape
    (torch.Size([4, 1, 2048]), torch.Size([4, 1, 1023]))
    """

    controls = 0
    side_channels = 0
    h: Tensor

    def __init__(
        self, taps: int, lookahead: int = 0, channels: int = 1, trainable: bool = False, bias: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= lookahead < taps:
            raise UserError(
                f"a look-ahead of {lookahead} samples does not fit a filter of {taps} taps: choose 0 to {taps - 1}"
            )
        self.taps, self.lookahead, self.channels = taps, lookahead, channels
        self.receptive_field, self.latency_samples = taps, lookahead
        h = torch.zeros(channels, taps)
        h[:, lookahead] = 1.0
        if trainable:
            self.h = nn.Parameter(h)
        else:
            self.register_buffer("h", h)
        self.bias = nn.Parameter(torch.zeros(channels, 1), requires_grad=trainable) if bias else None

    def load(self, h: Tensor) -> None:
        """Set the taps: (taps,) for all channels or (channels, taps). Raises UserError for another shape or NaN."""
        if h.shape not in ((self.taps,), (self.channels, self.taps)):
            expected = f"{self.channels} channels of {self.taps} taps"
            raise UserError(f"a filter of shape {tuple(h.shape)} was given where {expected} are expected")
        if not torch.isfinite(h).all():
            raise UserError("the filter contains taps that are not finite numbers: check the audio it was fitted on")
        with torch.no_grad():
            self.h.copy_(h)

    def forward(self, x: Tensor, controls: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (batch, channels, time) -> y (batch, channels, time), state (batch, channels, taps - 1)."""
        window, state = prepend(x, self.taps - 1, state)
        filtered = direct_convolution if x.shape[-1] <= DIRECT_SAMPLES else fft_convolution
        # bfloat16 keeps 8 bits, which would bury what the filter is good for.
        with torch.autocast(x.device.type, enabled=False):
            y = filtered(window.to(self.h.dtype), self.h)
            return (y if self.bias is None else y + self.bias), state

    @property
    def multiply_adds_per_sample(self) -> int:
        """Of the direct form."""
        return self.h.numel()


def direct_convolution(window: Tensor, h: Tensor) -> Tensor:
    """Valid part of window * h, sum by sum: (batch, channels, time + taps - 1), (channels, taps) -> (..., time)."""
    frames = window.unfold(-1, h.shape[-1], 1)  # (batch, channels, time, taps)
    return torch.einsum("bctk,ck->bct", frames, h.flip(-1))


def fft_convolution(window: Tensor, h: Tensor) -> Tensor:
    """Valid part of window * h through the Fourier transform; shapes as in `direct_convolution`.

    In overlapping pieces of about four times the taps, which stay in the cache (overlap-save: Oppenheim & Schafer,
    "Discrete-Time Signal Processing", section 8.7.3).
    """
    taps, samples = h.shape[-1], window.shape[-1]
    wanted = samples - taps + 1
    length = min(_power_of_two(samples), max(4 * _power_of_two(taps), 2048))
    hop = length - taps + 1
    pieces = -(-wanted // hop)
    frames = pad(window, (0, (pieces - 1) * hop + length - samples)).unfold(-1, length, hop)
    spectra = torch.fft.rfft(frames) * torch.fft.rfft(h, length)[:, None]  # (batch, channels, pieces, frequencies)
    return torch.fft.irfft(spectra, length)[..., taps - 1 :].flatten(-2)[..., :wanted]


def _power_of_two(samples: int) -> int:
    return 1 << (samples - 1).bit_length()
