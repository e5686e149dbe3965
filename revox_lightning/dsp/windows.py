"""Long audio as overlapping windows of one length, and put together again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def windows(samples: int, longest: int, overlap: int, step: int) -> tuple[int, list[int]]:
    """The length of all windows and where each begins: they cover everything and overlap by at least ``overlap``.

    Lengths are multiples of ``step`` by a number without prime factors beyond 5, which transforms quickly; a single
    window may be longer than the audio.

    >>> windows(450_000, 200_000, 20_000, 50)
    (200000, [0, 125000, 250000])
    """
    if samples <= longest:
        return _smooth(samples, step, +1), [0]
    size = _smooth(longest, step, -1)
    count = math.ceil((samples - overlap) / (size - overlap))
    return size, [round(i * (samples - size) / (count - 1)) for i in range(count)]


def _smooth(samples: int, step: int, direction: int) -> int:
    """The next multiple of ``step`` by a smooth number, upwards (+1) or downwards (-1)."""
    count = -(-samples // step) if direction > 0 else samples // step
    while _remainder(count) > 1:
        count += direction
    return count * step


def _remainder(count: int) -> int:
    for factor in (2, 3, 5):
        while count % factor == 0:
            count //= factor
    return count


def extended(x: Tensor, samples: int) -> Tensor:
    """Audio (time,) up to a length, its end played backwards; as it is where it is longer.

    >>> extended(torch.tensor([1.0, 2.0, 3.0]), 5)
    tensor([1., 2., 3., 3., 2.])
    """
    while len(x) < samples:
        x = torch.cat([x, x[len(x) - min(samples - len(x), len(x)) :].flip(0)])
    return x


def joined(pieces: Sequence[Tensor], starts: Sequence[int]) -> Tensor:
    """Windows (time,) at their places, crossfaded by sine squares where they overlap; amplitudes add to one.

    >>> joined([torch.ones(6), torch.ones(6)], [0, 4]).allclose(torch.ones(10))
    True
    """
    whole = pieces[0].new_zeros(starts[-1] + len(pieces[-1]))
    end = 0
    for piece, start in zip(pieces, starts, strict=True):
        shared = max(end - start, 0)
        rise = torch.sin((torch.arange(shared) + 0.5) * (math.pi / 2 / max(shared, 1))).square().to(piece)
        whole[start : start + shared] *= 1 - rise
        whole[start : start + shared] += rise * piece[:shared]
        whole[start + shared : start + len(piece)] = piece[shared:]
        end = start + len(piece)
    return whole
