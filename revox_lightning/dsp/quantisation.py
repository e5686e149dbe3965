"""From float samples to the integers of an audio file."""

import numpy as np

BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}


def quantised(samples: np.ndarray, bits: int, dither: np.random.Generator | None) -> np.ndarray:
    """Round to `bits` on the scale files are read with, full scale = 2**(bits - 1); clip what lies beyond.

    Returns int32 of the same shape, the code in the upper bits. With `dither`, noise of triangular density two steps
    wide is added first, which makes the error's mean and power independent of the signal (Lipshitz, Wannamaker and
    Vanderkooy, J. Audio Eng. Soc. 40(5), 1992).

    >>> quantised(np.array([0.5, -1.0]), 16, None) >> 16
    array([ 16384, -32768], dtype=int32)
    """
    limit = 2 ** (bits - 1)
    codes = samples.astype(np.float64) * limit
    if dither is not None:
        uniform = dither.random((*codes.shape, 2))
        codes += uniform[..., 0] + uniform[..., 1] - 1.0  # numpy's sum over so short an axis is slow
    return np.clip(np.rint(codes), -limit, limit - 1).astype(np.int32) << (32 - bits)
