"""Short-time spectra of a stream."""

import torch
from torch import Tensor


class Frames:
    """Windowed power spectra, frames centred from the first sample on, silence around the file.

    >>> frames = Frames(512, 128, torch.hann_window(512))
    >>> frames.start_file(rows=1)
    >>> powers = [frames.push(torch.ones(1, 300)), frames.push(torch.ones(1, 700)), frames.flush()]
    >>> [tuple(power.shape) for power in powers]
    [(1, 1, 257), (1, 5, 257), (1, 2, 257)]
    """

    def __init__(self, size: int, hop: int, window: Tensor):
        self.size, self.hop, self.window = size, hop, window

    def start_file(self, rows: int) -> None:
        self.rest = self.window.new_zeros(rows, self.size // 2)

    def push(self, signal: Tensor) -> Tensor | None:
        """Power spectra `(rows, frames, bins)` of the frames that `signal` `(rows, time)` completes."""
        signal = torch.cat((self.rest, signal), dim=1)
        frames = (signal.shape[1] - self.size) // self.hop + 1
        if frames < 1:
            self.rest = signal
            return None
        self.rest = signal[:, frames * self.hop :]
        spectrum = torch.fft.rfft(signal.unfold(1, self.size, self.hop) * self.window)
        return spectrum.conj_physical().mul_(spectrum).real  # four times as fast as its parts squared

    def flush(self) -> Tensor | None:
        return self.push(self.window.new_zeros(len(self.rest), self.size // 2))
