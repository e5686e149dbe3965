"""A long signal through a net on several cores: its channels side by side, or stretches of its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.stream import stream

# A guessed state counts as the true one when it lies this near, as a share of its largest value, and has led to the
# true output (full scale 1): both are a few roundings of float32.
_STATE_TOLERANCE, _OUTPUT_TOLERANCE, _OUTPUT_SAMPLES = 2e-6, 3e-7, 1024
_GIVE_UP = 2  # wrong guesses in a row
_WARMUPS = 16  # the longest stretch, in warm-ups: they cost a sixteenth
_PIECE = 16_384  # the shortest stretch: threads meet after each


def play(
    net: Net,
    blocks: Iterable[Tensor],
    controls: Tensor | None = None,
    *,
    threads: int = 1,
    warmup_samples: int = 44_100,
    block_samples: int = 16_384,
    samples: int | None = None,
) -> Iterator[Tensor]:
    """Yields y for the blocks (channels, time) of a signal: of the same length, in time with it, in constant memory.

    The same samples as the net in one call, up to rounding. A mono net plays each channel by itself. Where channels
    are fewer than threads, stretches of time are played at once: each starts early, from silence, by as much as the
    net looks back. A recurrent net starts `warmup_samples` early, and the state it has then is a guess: if it is not
    the one that the stretch before ends in, the stretch is played again. `controls` (1, knobs); `samples` is the
    signal's length where it is known. Raises UserError where the net takes another number of channels.
    """
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return
    look_back = net.receptive_field
    parts = _parts(net, first.shape[0])
    guessing = len(parts) < threads
    # All in whole blocks: a filter in the frequency domain rounds otherwise where it is cut elsewhere, and a net that
    # was trained behind it made 4e-6 of that.
    warmup = _up(warmup_samples if look_back is None else look_back, block_samples)
    frames = _up(_PIECE, block_samples)
    if guessing:
        share = _WARMUPS * warmup if samples is None else _up(-(-samples // threads), block_samples)
        frames = max(frames, min(max(share, 2 * warmup), _WARMUPS * warmup))
    owed = torch.zeros(first.shape[0], net.latency_samples)
    late = net.latency_samples
    with ThreadPoolExecutor(threads) as pool:
        lanes = [_Lane(part, place, controls, pool, warmup, block_samples) for part, place in parts]
        queue = stretches(chain([first], blocks, [owed]), frames)
        for y in _in_order(lanes, queue, guessing, at_once=threads + 1 if guessing else 2):
            yield y[:, late:]
            late = max(late - y.shape[1], 0)


def _in_order(lanes: list[_Lane], queue: Iterator[Tensor], guessing: bool, at_once: int) -> Iterator[Tensor]:
    """Outputs of all lanes together (channels, time); at most `at_once` stretches of each are under way."""
    for x in queue:
        for lane in lanes:
            lane.push(x[lane.place], guessing)
        if lanes[0].waiting == at_once:
            yield torch.cat([lane.pop() for lane in lanes])
    while lanes[0].waiting:
        yield torch.cat([lane.pop() for lane in lanes])


def _parts(net: Net, channels: int) -> list[tuple[Net, slice]]:
    """What can be played side by side: nets, and the channels that each takes."""
    if isinstance(net, EachChannel) and net.channels == channels:
        return [(part, slice(i, i + 1)) for i, part in enumerate(net.nets)]  # type: ignore[misc]
    if net.channels == 1:
        return [(net, slice(i, i + 1)) for i in range(channels)]
    if net.channels == channels:
        return [(net, slice(None))]
    raise UserError(f"the signal has {channels} channels and the net takes {net.channels}: convert one of them.")


def stretches(blocks: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    """The same signal (channels, time) in pieces of `frames` samples, the last one shorter.

    >>> [x.shape[1] for x in stretches([torch.zeros(1, 5), torch.zeros(1, 2)], 3)]
    [3, 3, 1]
    """
    parts, ready = [], 0
    for block in blocks:
        parts.append(block)
        ready += block.shape[1]
        if ready >= frames:
            *whole, rest = torch.cat(parts, dim=1).split(frames, dim=1)
            whole, rest = ([*whole, rest], rest[:, :0]) if rest.shape[1] == frames else (whole, rest)
            yield from whole
            parts, ready = [rest.clone()], rest.shape[1]
    if ready:
        yield torch.cat(parts, dim=1)


@dataclass
class _Played:
    """A stretch: the output and state that its warm-up ended in, its own output (channels, time), its last state."""

    warm: Tensor | None
    start: Any
    y: Tensor
    end: Any


@dataclass
class _Stretch:
    x: Tensor
    before: Tensor | None  # the warm-up, None at the start of the signal
    playing: Future[_Played] | None = None


class _Lane:
    """One net and its channels of the signal: stretches go in at one end and come out, in order, at the other."""

    def __init__(
        self, net: Net, place: slice, controls: Tensor | None, pool: ThreadPoolExecutor, warmup: int, block: int
    ) -> None:
        self.net, self.place = net, place
        self._controls, self._pool, self._warmup, self._block = controls, pool, warmup, block
        self._queue: deque[_Stretch] = deque()
        self._recent: Tensor | None = None
        self._state: Any = None
        self._heard: Tensor | None = None  # the last output, of the samples that the next warm-up ends in
        self._misses = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def push(self, x: Tensor, guess: bool) -> None:
        """Takes the next stretch; with `guess` it is played at once, from a warm-up."""
        stretch = _Stretch(x, self._recent)
        self._recent = x[:, -self._warmup :] if x.shape[1] >= self._warmup else _join(self._recent, x, self._warmup)
        self._queue.append(stretch)
        if len(self._queue) == 1:
            self._go_on()
        elif guess and self._misses < _GIVE_UP:
            stretch.playing = self._pool.submit(self._guess, stretch)

    def pop(self) -> Tensor:
        """The output of the oldest stretch."""
        stretch = self._queue.popleft()
        assert stretch.playing is not None
        played = stretch.playing.result()
        if played.warm is not None and self.net.receptive_field is None and not self._agrees(played):
            self._misses += 1
            played = self._play(stretch.x, self._state)
        elif played.warm is not None:
            self._misses = 0
        self._state, self._heard = played.end, played.y[:, -_OUTPUT_SAMPLES:]
        self._go_on()
        return played.y

    def _go_on(self) -> None:
        """Starts the oldest stretch from the true state, unless it is being played."""
        if self._queue and self._queue[0].playing is None:
            self._queue[0].playing = self._pool.submit(self._play, self._queue[0].x, self._state)

    def _guess(self, stretch: _Stretch) -> _Played:
        assert stretch.before is not None
        before = self._play(stretch.before, None)
        played = self._play(stretch.x, before.end)
        return _Played(before.y[:, -_OUTPUT_SAMPLES:], before.end, played.y, played.end)

    @torch.inference_mode()
    def _play(self, x: Tensor, state: Any) -> _Played:
        y, end = stream(self.net, x[None], self._controls, state, self._block)
        return _Played(None, None, y[0], end)

    def _agrees(self, played: _Played) -> bool:
        assert played.warm is not None and self._heard is not None
        common = min(played.warm.shape[1], self._heard.shape[1])
        error = (played.warm[:, -common:] - self._heard[:, -common:]).abs().max()
        return bool(error <= _OUTPUT_TOLERANCE) and _near(played.start, self._state)


def _up(samples: int, block: int) -> int:
    """The next multiple of a block."""
    return -(-samples // block) * block


def _join(before: Tensor | None, x: Tensor, samples: int) -> Tensor:
    return (x if before is None else torch.cat([before, x], dim=1))[:, -samples:]


def _near(a: Any, b: Any) -> bool:
    """Whether two states agree up to rounding."""
    if isinstance(a, tuple):
        return all(_near(x, y) for x, y in zip(a, b, strict=True))
    if a is None or not a.numel():
        return True
    largest = b.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    return bool(((a - b).abs() <= _STATE_TOLERANCE * largest).all())
