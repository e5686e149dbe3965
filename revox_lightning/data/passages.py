"""Which passages stand for hours of audio, where not all of it can be read."""

from __future__ import annotations

import numpy as np

from revox_lightning.data.takes import Take

_PASSAGES = 30  # each makes the equations of a linear filter more expensive


def spread(takes: list[Take], most_samples: float) -> list[tuple[Take, int, int]]:
    """Takes with the first and last sample of what is read of each: all of it, or about ``most_samples`` in passages.

    The passages are equally long. Each lies anywhere in its own part of the whole, the same every time: at regular
    distances they could miss what comes regularly.

    >>> from pathlib import Path
    >>> hour = Take("a", Path("a"), Path("b"), 0, 3_600_000)
    >>> [stop - start for _, start, stop in spread([hour], 1_200_000)] == [40_000] * 30
    True
    """
    total = sum(take.frames for take in takes)
    if total <= most_samples:
        return [(take, take.start, take.stop) for take in takes]
    length = int(most_samples) // _PASSAGES
    ends = np.cumsum([take.frames for take in takes])
    places = (np.arange(_PASSAGES) + np.random.default_rng(0).random(_PASSAGES)) * (total / _PASSAGES)
    found = []
    for index, place in zip(np.searchsorted(ends, places, side="right").tolist(), places.astype(int), strict=True):
        take = takes[index]
        start = take.start + int(place - (ends[index] - take.frames))
        start = max(min(start, take.stop - length), take.start)
        found.append((take, start, min(start + length, take.stop)))
    return found
