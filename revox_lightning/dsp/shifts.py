"""How far a delay is off, read off the waveform: one Gauss-Newton step of the fit of a delayed, filtered programme.

Dry is read at the current delay and given the machine's linear response (least squares). What is left over is split
into bands and made white; in each band and block of some milliseconds its product with the slope of the waveform
tells the shift that the delay still needs, and its power the variance of that. Bands that do not fit yet are mostly
left over, which keeps them out until the lower ones have brought the delay near enough.
"""

from dataclasses import dataclass

import numpy as np
from numpy.fft import irfft, rfft
from scipy.ndimage import uniform_filter1d
from scipy.signal import oaconvolve

from revox_lightning.dsp.alignment import peak_of
from revox_lightning.dsp.anchors import power_spectrum
from revox_lightning.dsp.correlation import excerpt
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.dsp.kalman import Offsets
from revox_lightning.dsp.least_squares import Correlations

_EDGES_HZ = (80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0, 5120.0)  # between the bands
_BLOCK_SECONDS, _NOISE_SECONDS = 0.006, 0.1
_LONGEST_CHUNK, _MARGIN = 2**19, 2**13
_LEAST_COHERENCE = 0.2
_LARGEST = 4.0  # shift that one step may claim
_CLEANEST = 1e-8  # noise beside the loudest block, as powers: what the filters here leave of it in silence
_ROUGHNESS = 0.2  # of a shift: how far the slope of the waveform misleads
_STANDS_OUT = 10.0  # ratio of programme to rest, as powers


@dataclass(frozen=True)
class Shifts:
    """Delays (n,) measured at wet times (n,), both in samples, with their variances (n,), infinite where unknown.

    `offsets` tell the share of each band in them, and what the bands say of each other; `h` (taps,) the machine's
    response, a quarter of which looks ahead, and `clarity` (bins,) the ratio of programme to rest on the grid of an
    FFT of 1,024 samples.
    """

    times: np.ndarray
    delays: np.ndarray
    variances: np.ndarray
    offsets: Offsets
    h: np.ndarray
    clarity: np.ndarray


def measured_shifts(
    x: np.ndarray, y: np.ndarray, sample_rate_hz: float, times: np.ndarray, delays: np.ndarray, taps: int
) -> Shifts:
    """The delay of wet `y` after dry `x`, both (time,), in each block, measured from `delays` (n,) at `times` (n,).

    The machine's response is given `taps`, a quarter of them ahead. A short one cannot take a shift of single notes
    for its own; a long one knows the bass.
    """
    n = np.arange(len(y))
    current = np.interp(n, times, delays)
    played = read_at(x, n - current)
    ahead = taps // 4
    fit = Correlations(taps, ahead)
    fit.update(played, y)
    h = fit.solve(taps, ahead).numpy()
    p = oaconvolve(played, h)[ahead : ahead + len(y)]
    rest, kept = power_spectrum(y - p, 1024), power_spectrum(p, 1024)
    rest += 1e-5 * rest.max() + 1e-30
    block = 64 * max(1, round(_BLOCK_SECONDS * sample_rate_hz / 64))
    chunk = min(_LONGEST_CHUNK, 1 << (len(y) + 2 * _MARGIN).bit_length())
    bins_hz = np.fft.rfftfreq(chunk, 1 / sample_rate_hz)
    bands = _bands(bins_hz, block)
    kernel = irfft(1 / np.sqrt(rest)) * np.roll(np.hanning(1024), 512)  # short: what is loud stays out of silences
    white = rfft(np.concatenate((kernel[:512], np.zeros(chunk - 1024), kernel[512:]))).real
    tiles = _tiles(p, y, white, bands, block)
    widths = np.array([(weights**2).sum() / (chunk // 2) for weights, _ in bands])
    shift, precision = _from_tiles(tiles, max(1, round(_NOISE_SECONDS * sample_rate_hz / block)), block * widths)
    total = precision.sum(axis=1)
    safe = np.maximum(total, 1e-9)
    at = (np.arange(len(total)) + 0.5) * block - 0.5
    step = (precision * shift).sum(axis=1) / safe
    heard = (y[: len(total) * block].reshape(-1, block) ** 2).mean(axis=1)
    known = (total > 1e-4) & (heard > _CLEANEST * heard.max())
    variances = np.where(known, 1 / safe + (_ROUGHNESS * step) ** 2, np.inf)
    return Shifts(at, np.interp(at, n, current) + step, variances, _offsets(shift, precision), h, kept / rest)


def _offsets(shift: np.ndarray, precision: np.ndarray) -> Offsets:
    """Shares of the bands in shifts (blocks, bands), and least squares for one constant each, whatever the delay."""
    total = np.maximum(precision.sum(axis=1, keepdims=True), 1e-9)
    mean = (precision * shift).sum(axis=1, keepdims=True) / total
    normal = np.diag(precision.sum(axis=0)) - precision.T @ (precision / total)
    return Offsets(precision / total, normal, (precision * (shift - mean)).sum(axis=0))


def _tiles(
    p: np.ndarray, y: np.ndarray, white: np.ndarray, bands: list[tuple[np.ndarray, int]], block: int
) -> np.ndarray:
    """Sums over each block and band, `(6, blocks, bands)`: s s, s y, s p, p p, p y, y y, where s is the slope of p.

    All three pass the whitening filter `white` (bins,); a low band is read off at a lower rate.
    """
    blocks = len(y) // block
    chunk = 2 * (len(white) - 1)
    inner = (chunk - 2 * _MARGIN) // block * block
    slope = 2j * np.pi * np.fft.rfftfreq(chunk)
    chunks = []
    for start in range(0, blocks * block, inner):
        spectra = [white * rfft(excerpt(part, start - _MARGIN, chunk)) for part in (p, y)]
        spectra.append(slope * spectra[0])
        stop = min(inner, blocks * block - start)
        chunks.append(np.stack([_band_sums(spectra, band, block, stop) for band in bands], axis=-1))
    return np.concatenate(chunks, axis=1)


def _bands(bins_hz: np.ndarray, block: int) -> list[tuple[np.ndarray, int]]:
    """`(weights of the lowest bins, by how much the rate is lowered)` of each band; the squares of all add up to 1."""
    rises = [np.ones(len(bins_hz))]
    for edge in _EDGES_HZ:
        rises.append(np.sin(0.5 * np.pi * np.clip((np.log2(bins_hz / edge + 1e-9) + 0.3) / 0.6, 0, 1)))
    out = []
    for k, rise in enumerate(rises):
        weights, lowered = rise, 1
        if k < len(_EDGES_HZ):
            weights = rise * np.sqrt(1 - rises[k + 1] ** 2)
            top = _EDGES_HZ[k] * 2**0.3
            while 2 * lowered * 1.05 * top < bins_hz[-1] and 2 * lowered <= min(block // 8, 64):
                lowered *= 2
        out.append((weights[: (len(bins_hz) - 1) // lowered + 1], lowered))
    return out


def _band_sums(spectra: list[np.ndarray], band: tuple[np.ndarray, int], block: int, stop: int) -> np.ndarray:
    """`(6, blocks)` of one chunk and band."""
    weights, lowered = band
    first = _MARGIN // lowered
    p, y, s = (irfft(weights * part[: len(weights)])[first : first + stop // lowered] for part in spectra)
    products = (s * s, s * y, s * p, p * p, p * y, y * y)
    return np.stack([part.reshape(-1, block // lowered).sum(axis=1) for part in products]) / lowered


def _from_tiles(tiles: np.ndarray, span: int, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts and their precisions, both `(blocks, bands)`.

    The gain of each band over about `span` blocks is taken out, as tape gains wander. `widths` (bands,) is what a
    block holds of each band, in samples: what is left over in a band is its density times that.
    """
    ss, sy, sp, pp, py, yy = tiles
    around_py, around_pp, around_yy = (uniform_filter1d(part, span, axis=0) for part in (py, pp, yy))
    gain = np.clip(around_py / (around_pp + 1e-30), 0.05, 4)
    coherence = np.clip(around_py, 0, None) ** 2 / (around_pp * around_yy + 1e-30)
    left = yy - 2 * gain * py + gain**2 * pp
    noise = np.maximum(uniform_filter1d(left, span, axis=0), 0.3 * left)
    noise = np.maximum(noise, 0.25 * np.median(noise, axis=0))
    noise = np.maximum(noise, _CLEANEST * yy.max(axis=0)) + 1e-30
    steep = gain**2 * ss
    shift = -(gain * (sy - gain * sp)) / (steep + 1e-30)
    precision = np.where(coherence > _LEAST_COHERENCE, steep * widths / noise, 0.0)
    return np.clip(shift, -_LARGEST, _LARGEST), precision


def filter_delay(shifts: Shifts) -> float:
    """Delay in samples that the machine's response `h` holds, to be added to the transport's.

    The largest peak of the response with all bands in which the programme stands out made equally strong: the lag at
    which a pulse of these bands would correlate best.
    """
    taps = len(shifts.h)
    h = np.zeros(4 * taps)
    h[:taps] = shifts.h
    response = np.fft.rfft(np.roll(h, 2 * taps - taps // 4))
    share = np.interp(np.fft.rfftfreq(len(h)), np.fft.rfftfreq(1024), shifts.clarity / (shifts.clarity + _STANDS_OUT))
    return peak_of(irfft(response / (np.abs(response) + 1e-9) * share**2)) - 2 * taps
