"""Random signals that can be cut anywhere: made in blocks of a fixed length, each from a seed of its own."""

import hashlib
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

# How far a signal has come in samples, its present block (rows, block_samples), and what its next one must know.
State = tuple[Tensor, Tensor, Tensor]


class RandomBlocks(Protocol):
    """A random signal, block after block. `rate_hz` is the rate of its samples."""

    @property
    def block_samples(self) -> int: ...
    @property
    def rate_hz(self) -> float: ...

    def block(self, number: int, seed: int, rows: int, carry: Tensor | None) -> tuple[Tensor, Tensor]:
        """Block `number` of `rows` signals, (rows, block_samples), and what block `number` + 1 must know of it.

        The same arguments give the same samples; rows differ. `carry` is what block `number` - 1 handed on (a
        tensor of one fixed shape), None for block 0. Of a source of c channels row r is channel r % c.
        """
        ...


def mixed(*parts: int) -> int:
    """A seed from several numbers (a seed, the number of a block, ...), far from that of their neighbours.

    >>> mixed(0, 1) == mixed(0, 1), mixed(0, 1) == mixed(1, 0)
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def seeded(*parts: int) -> torch.Generator:
    """A generator of its own for these numbers, as `seeded(seed, number)` for a block."""
    return torch.Generator().manual_seed(mixed(*parts))


def take(
    source: RandomBlocks, samples: int, seed: int, rows: int = 1, state: State | None = None
) -> tuple[Tensor, State | None]:
    """The next `samples` of `rows` signals, (rows, samples), and how far they have come; None: the start.

    Any way of cutting gives the same samples.
    """
    position, present, carry = (0, None, None) if state is None else (int(state[0]), *state[1:])
    pieces, end = [torch.empty(rows, 0)], position + samples
    while position < end:
        number, offset = divmod(position, source.block_samples)
        if offset == 0:
            present, carry = source.block(number, seed, rows, carry if number else None)
        assert present is not None
        piece = present[:, offset : offset + end - position]
        pieces.append(piece)
        position += piece.shape[-1]
    if present is None or carry is None:
        return pieces[0], None
    return torch.cat(pieces, dim=-1), (torch.tensor(position), present, carry)


def stream(source: RandomBlocks, generator: torch.Generator, rows: int | None = None) -> Callable[[int], Tensor]:
    """A function that hands out the next n samples, (rows, n), each time it is called with n; any cuts give the same.

    Of independent signals; None: one row for each of the source's `channels`, or one.
    """
    seed, state = int(torch.randint(2**62, (), generator=generator)), None
    count = rows or getattr(source, "channels", 1)

    def following(samples: int) -> Tensor:
        nonlocal state
        piece, state = take(source, samples, seed, count, state)
        return piece

    return following


def sample(source: RandomBlocks, samples: int, generator: torch.Generator, rows: int | None = None) -> Tensor:
    """The first `samples` of such a stream, (rows, samples)."""
    return stream(source, generator, rows)(samples)
