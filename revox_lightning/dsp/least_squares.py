"""The best linear filter between two recordings: the rival that every model has to beat.

Least squares over exactly the samples that count ("covariance method": Makhoul, Proc. IEEE 63(4), 1975, II-C). Its
normal matrix is Toeplitz but for the edges of each take, so it is never built: it is applied by FFT, and the
equations are solved by conjugate gradients with the plain Toeplitz matrix as preconditioner.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.fft import irfft, rfft
from numpy.typing import ArrayLike
from scipy.linalg import solve_toeplitz
from torch import Tensor

from revox_lightning.dsp.correlation import excerpt, lagged_products
from revox_lightning.errors import UserError

_MOST_ITERATIONS = 60


@dataclass(frozen=True)
class LinearFilter:
    """`wet[n - lookahead]` is about `sum_k h[k] dry[n - k]`; `h` `(taps,)` float64, `val_esr` on validation."""

    h: Tensor
    taps: int
    lookahead: int
    val_esr: float


class Correlations:
    """What least squares needs to know of any amount of audio, for filters up to `max_taps` and `max_lookahead`.

    Holds `max_taps + max_lookahead` numbers, and twice as many per separate take for its edges.

    >>> take = Correlations(max_taps=8, max_lookahead=0)
    >>> dry = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    >>> take.update(dry, 0.5 * dry)
    >>> torch.allclose(take.solve(taps=2, lookahead=0), torch.tensor([0.5, 0.0], dtype=torch.float64))
    True
    """

    def __init__(self, max_taps: int = 8192, max_lookahead: int = 512):
        self.max_taps, self.max_lookahead = max_taps, max_lookahead
        lags = max_taps + max_lookahead
        self.samples = 0
        self.wet_energy = 0.0
        self._first_column = np.zeros(lags)  # sum over scored n of dry[n + L] dry[n + L - i]
        self._windowed = np.zeros(lags)  # autocorrelation of the takes with silence around them: positive definite
        self._cross = np.zeros(lags)  # sum over scored n of wet[n] dry[n + L - i]
        self._edges: list[tuple[float, np.ndarray]] = []  # (sign, dry backwards from the edge)
        self._solutions: dict[tuple[int, int, float], np.ndarray] = {}
        self._inverses: dict[tuple[int, float], _TriangularProducts] = {}  # which every look-ahead starts from

    def update(self, dry: Tensor | ArrayLike, wet: Tensor | ArrayLike, lead: int = 0, tail: int = 0) -> None:
        """Count one take, or the next part of one: `dry`, `wet` `(time,)`.

        The first `lead` and last `tail` samples are context for the filter and are not scored; beyond the arrays,
        dry is taken as silent. Parts of one take overlap by `lead >= max_taps` and `tail >= max_lookahead` so that
        no sample lacks its context; their common edges then cancel and cost no memory.
        """
        x, y = np.asarray(dry), np.asarray(wet)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"expected dry and wet of one shape (time,), got {x.shape} and {y.shape}")
        start, stop = lead, len(x) - tail
        if stop <= start:
            return
        longest, ahead = self.max_taps, self.max_lookahead
        scored = y[start:stop].astype(np.float64)
        self.samples += len(scored)
        self.wet_energy += float(scored @ scored)
        self._cross += lagged_products(x, scored, start, -ahead, longest - 1)
        shifted = excerpt(x, start + ahead, stop - start)
        self._first_column += lagged_products(x, shifted, start + ahead, 0, longest + ahead - 1)
        self._windowed += lagged_products(x, x, 0, 0, longest + ahead - 1)
        self._add_edge(1.0, excerpt(x, start - longest, longest + ahead)[::-1])
        self._add_edge(-1.0, excerpt(x, stop - longest, longest + ahead)[::-1])
        self._solutions.clear()
        self._inverses.clear()

    def _add_edge(self, sign: float, backwards: np.ndarray) -> None:
        if self._edges and self._edges[-1][0] == -sign and np.array_equal(self._edges[-1][1], backwards):
            self._edges.pop()
        elif backwards.any():
            self._edges.append((sign, backwards.copy()))

    def solve(self, taps: int, lookahead: int, ridge: float = 1e-8) -> Tensor:
        """Least-squares `h` `(taps,)` float64 for `wet[n - lookahead] = sum_k h[k] dry[n - k]`.

        `ridge` is the power of white noise, relative to dry's, that is added to the dry side; it keeps bands without
        programme quiet. Raises UserError where the dry side is silent.
        """
        self._check(taps, lookahead)
        if (taps, lookahead, ridge) not in self._solutions:
            if not self._windowed[0] > 0:
                raise UserError(
                    "the dry recording is silent, so no linear filter can be fitted: check its file and channel"
                )
            if (taps, ridge) not in self._inverses:
                column = self._windowed[:taps].copy()
                column[0] *= 1 + max(ridge, 1e-12)
                self._inverses[taps, ridge] = _toeplitz_inverse(column)
            matrix, wanted = _NormalMatrix(self, taps, lookahead, ridge), self._cross_part(taps, lookahead)
            self._solutions[taps, lookahead, ridge] = matrix.solve(wanted, self._inverses[taps, ridge])
        return torch.from_numpy(self._solutions[taps, lookahead, ridge].copy())

    def esr(self, h: Tensor | ArrayLike, lookahead: int) -> float:
        """Error-to-signal ratio that filter `h` `(taps,)` gets on the data counted so far; nan for silent wet."""
        filter_ = np.asarray(h, dtype=np.float64)
        self._check(len(filter_), lookahead)
        matrix = _NormalMatrix(self, len(filter_), lookahead, ridge=0.0)
        error = self.wet_energy + filter_ @ (matrix.times(filter_) - 2 * self._cross_part(len(filter_), lookahead))
        return max(float(error), 0.0) / self.wet_energy if self.wet_energy > 0 else float("nan")

    def _check(self, taps: int, lookahead: int) -> None:
        if not (0 < taps <= self.max_taps and 0 <= lookahead <= self.max_lookahead):
            raise ValueError(
                f"taps={taps}, lookahead={lookahead} lie outside max_taps={self.max_taps}, "
                f"max_lookahead={self.max_lookahead}"
            )

    def _cross_part(self, taps: int, lookahead: int) -> np.ndarray:
        skipped = self.max_lookahead - lookahead
        return self._cross[skipped : skipped + taps]


class _TriangularProducts:
    """The matrix sum over columns c of weight * U_c U_c', U_c lower triangular Toeplitz with first column c."""

    def __init__(self, columns: list[np.ndarray], weights: list[float], taps: int):
        self.taps, self.size = taps, 1 << (2 * taps - 1).bit_length()
        self.columns = rfft(np.array(columns).reshape(len(columns), taps), self.size)
        self.weights = np.array(weights)

    def times(self, v: np.ndarray) -> np.ndarray:
        if not len(self.weights):
            return np.zeros(self.taps)
        correlated = irfft(self.columns.conj() * rfft(v, self.size), self.size)[:, : self.taps]
        return irfft(self.weights @ (self.columns * rfft(correlated, self.size)), self.size)[: self.taps]


class _NormalMatrix:
    """R[i, k] = sum over scored n of dry[n + l - i] dry[n + l - k], plus the ridge, for one length and look-ahead l.

    Down each diagonal R changes only by the samples that enter and leave at the edges, so that
    R = T + sum over edges of (+-) U U', T the symmetric Toeplitz matrix of R's first column and U the lower triangular
    Toeplitz matrix whose first column is zero followed by dry backwards from the edge.
    """

    def __init__(self, data: Correlations, taps: int, lookahead: int, ridge: float):
        skipped = data.max_lookahead - lookahead
        column = data._first_column[:taps].copy()
        for sign, edge in data._edges:  # from the largest look-ahead to this one, along the diagonals
            column += sign * lagged_products(edge, edge[:skipped], 0, 1 - taps, 0)[::-1]
        column[0] *= 1 + ridge
        self.size = 1 << (2 * taps - 1).bit_length()
        gap = np.zeros(self.size - 2 * taps + 1)
        self.toeplitz = rfft(np.concatenate((column, gap, column[:0:-1])))
        edges = [np.concatenate(([0.0], edge[skipped : skipped + taps - 1])) for _, edge in data._edges]
        self.edges = _TriangularProducts(edges, [sign for sign, _ in data._edges], taps)

    def times(self, v: np.ndarray) -> np.ndarray:
        """R v for `v` `(taps,)`."""
        return irfft(self.toeplitz * rfft(v, self.size), self.size)[: len(v)] + self.edges.times(v)

    def solve(self, wanted: np.ndarray, inverse: _TriangularProducts) -> np.ndarray:
        """R^-1 `wanted` by preconditioned conjugate gradients (Golub and Van Loan, algorithm 11.5.1).

        `inverse` is of the Toeplitz matrix of the takes with silence around them, which is positive definite.
        `power` approaches the squared error still to be won, so the loop ends when that is 1e-13 of the whole.
        """
        h, residual = np.zeros_like(wanted), wanted.copy()
        direction = z = inverse.times(residual)
        power = whole = residual @ z
        for _ in range(_MOST_ITERATIONS):
            if power <= 1e-13 * whole:
                break
            image = self.times(direction)
            step = power / (direction @ image)
            h += step * direction
            residual -= step * image
            z = inverse.times(residual)
            power, before = residual @ z, power
            direction = z + power / before * direction
        return h


def _toeplitz_inverse(column: np.ndarray) -> _TriangularProducts:
    """Inverse of a symmetric positive definite Toeplitz matrix (Gohberg and Semencul, Mat. Issled. 7(2), 1972)."""
    first = solve_toeplitz(column, np.eye(1, len(column))[0])
    return _TriangularProducts([first, np.append(0.0, first[:0:-1])], [1 / first[0], -1 / first[0]], len(column))


def best_filter(
    train: Correlations,
    val: Correlations,
    taps: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192),
    lookaheads: tuple[int, ...] = (0, 64, 512),
) -> LinearFilter:
    """The filter fitted on `train` whose length and look-ahead do best on `val`.

    Lengths that do not exceed the look-ahead, or have fewer than two training samples per tap, are left out.
    `lookaheads=(0,)` gives the best causal filter. Raises UserError for silent or too short recordings.
    """
    best = None
    for lookahead in lookaheads:
        for length in taps:
            if length <= lookahead or train.samples < 2 * length:
                continue
            h = train.solve(length, lookahead)
            esr = val.esr(h, lookahead)
            if best is None or esr < best.val_esr:
                best = LinearFilter(h, length, lookahead, esr)
    if best is None:
        raise UserError(
            f"{train.samples} training samples are too few to fit a linear filter of {min(taps)} taps: record more"
        )
    return best
