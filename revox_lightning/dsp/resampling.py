"""Band-limited conversion of sample rates, whole or in blocks of any size."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError

# Kaiser-windowed sinc, 64 zero crossings: flat to 0.94 of the Nyquist frequency, images below -100 dB.
_FILTER = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}
_FRAME_SAMPLES = 32  # a matrix product of about this many input samples a row is fastest


def resample(audio: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Band-limited resampling of `audio` float32 `(channels, time)` to `ceil(time * to_hz / from_hz)` samples.

    Raises UserError where torchaudio cannot be loaded.
    """
    if from_hz == to_hz:
        return audio
    stream = StreamResampler(from_hz, to_hz, len(audio))
    return torch.cat([stream.push(audio), stream.flush()], dim=1)


def _kernel(from_hz: int, to_hz: int) -> Tensor:
    """Taps (phases of the output, taps) in float64."""
    try:
        from torchaudio.transforms import Resample
    except (ImportError, OSError) as error:
        rates = f"from {from_hz} Hz to {to_hz} Hz"
        raise UserError(
            f"resampling {rates} needs torchaudio, which fails to load: run `revox doctor --fix`"
        ) from error
    kernel: Any = Resample(from_hz, to_hz, **_FILTER, dtype=torch.float64).kernel
    return kernel[:, 0]


class StreamResampler:
    """`resample` in blocks of any size and constant memory: the pushed parts and the flush join to the same samples.

    >>> stream = StreamResampler(44_100, 48_000, channels=1)
    >>> parts = [stream.push(torch.ones(1, 1000)), stream.push(torch.ones(1, 470)), stream.flush()]
    >>> torch.cat(parts, dim=1).shape
    torch.Size([1, 1600])
    """

    def __init__(self, from_hz: int, to_hz: int, channels: int):
        self.passes = from_hz == to_hz
        divisor = math.gcd(from_hz, to_hz)
        self.step_in, self.step_out = from_hz // divisor, to_hz // divisor
        self.buffer = torch.zeros(channels, 0)
        self.samples_in = self.samples_out = 0
        if self.passes:
            return
        kernel = _kernel(from_hz, to_hz)
        phases, taps = kernel.shape
        steps = math.ceil(_FRAME_SAMPLES / self.step_in)
        self.hop = steps * self.step_in
        # One product with this matrix gives `steps` times the phases: each step's taps lie `step_in` further.
        self.matrix = kernel.new_zeros(steps, phases, taps + self.hop - self.step_in)
        for i in range(steps):
            self.matrix[i, :, i * self.step_in : i * self.step_in + taps] = kernel
        self.matrix = self.matrix.flatten(0, 1).T.contiguous()  # (window, output); in float64, float32 leaves -132 dB
        self.buffer = torch.zeros(channels, (taps - self.step_in) // 2)  # silence, where the filter reaches before 0

    def push(self, block: Tensor) -> Tensor:
        """Take `block` `(channels, time)` and return what can be computed by now, `(channels, time >= 0)`."""
        self.samples_in += block.shape[1]
        return block if self.passes else self._advance(block)

    def flush(self) -> Tensor:
        """Return the last samples `(channels, time)`; the stream then ends."""
        wanted = math.ceil(self.samples_in * self.step_out / self.step_in) - self.samples_out
        if self.passes:
            return self.buffer
        return self._advance(self.buffer.new_zeros(len(self.buffer), sum(self.matrix.shape)))[:, :wanted]

    def _advance(self, block: Tensor) -> Tensor:
        self.buffer = torch.cat((self.buffer, block), dim=1)
        window = len(self.matrix)
        if self.buffer.shape[1] < window:
            return self.buffer[:, :0]
        windows = self.buffer.double().unfold(1, window, self.hop)  # (channels, frames, window)
        y = (windows @ self.matrix).flatten(1).float()
        self.samples_out += y.shape[1]
        self.buffer = self.buffer[:, windows.shape[1] * self.hop :].clone()
        return y


def converted(blocks: Iterable[Tensor], from_hz: int, to_hz: int, channels: int) -> Iterator[Tensor]:
    """Blocks `(channels, time)` of one signal at another rate, in constant memory."""
    stream = StreamResampler(from_hz, to_hz, channels)
    for block in blocks:
        yield stream.push(block)
    yield stream.flush()
