"""Scores of an estimate against its target, over whole files and in constant memory."""

import math

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric

from revox_lightning.dsp.alignment import DelaySearch
from revox_lightning.dsp.frames import Frames
from revox_lightning.dsp.loudness import Loudness
from revox_lightning.losses import FFT_SIZES, preemphasis

BAND_CENTRES_HZ = {f"{hz}hz": hz for hz in (63, 125, 250, 500)} | {f"{khz}khz": 1000 * khz for khz in (1, 2, 4, 8, 16)}
PREEMPHASIS_COEFFICIENT = 0.85
# everything is computed on this grid, so the chunks of the caller do not matter; its spectra stay in the cache
_BLOCK_FRAMES = 2**16
_BAND_FFT = 8192


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; nan where it is undefined."""
    return numerator / denominator if denominator > 0 else math.nan


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.dot(x.double().flatten(), y.double().flatten())


class ErrorToSignalRatio(Metric):
    """Sum of squared errors over the target's energy, both over everything seen, in float64."""

    full_state_update = False
    error: Tensor
    target: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)  # one process scores
        self.add_state("error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("target", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, y_hat: Tensor, y: Tensor) -> None:
        error = y - y_hat
        self.error += _dot(error, error)
        self.target += _dot(y, y)

    def compute(self) -> Tensor:
        return torch.where(self.target > 0, self.error / self.target, math.nan)


class GainAlignedErrorToSignalRatio(Metric):
    """`ErrorToSignalRatio` after the one gain on the estimate that is best over everything seen."""

    full_state_update = False
    products: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("products", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, y_hat: Tensor, y: Tensor) -> None:
        self.products += torch.stack([_dot(y_hat, y_hat), _dot(y_hat, y), _dot(y, y)])

    def compute(self) -> Tensor:
        xx, xy, yy = self.products
        return torch.where(xx == 0, yy / yy, 1 - xy**2 / (xx * yy)).clamp(min=0.0)  # silence: 1, or 0 / 0 = nan


def _total(part: Tensor) -> Tensor:
    return part.sum(dim=-1).sum(dtype=torch.float64)  # of a frame in float32, which loses nothing, of many in float64


class _Spectral:
    """Octave bands, multi-resolution STFT distance and spectral centroid."""

    def __init__(self, sample_rate_hz: int):
        self.sample_rate_hz = sample_rate_hz
        self.bands = Frames(_BAND_FFT, _BAND_FFT // 2, torch.hann_window(_BAND_FFT).sqrt())  # keeps the energy
        self.resolutions = {size: Frames(size, size // 4, torch.hann_window(size)) for size in FFT_SIZES}
        self.band_power = torch.zeros(2, _BAND_FFT // 2 + 1, dtype=torch.float64)  # of the error, of the target
        self.distances = {size: torch.zeros(4, dtype=torch.float64) for size in FFT_SIZES}
        self.frequencies_hz = torch.fft.rfftfreq(FFT_SIZES[0], 1 / sample_rate_hz)
        self.centroid_errors_hz: list[float] = []

    def start_file(self, channels: int) -> None:
        for frames in (self.bands, *self.resolutions.values()):
            frames.start_file(2 * channels)
        self.centroids = torch.zeros(3, dtype=torch.float64)

    def update(self, both: Tensor) -> None:
        """Take the next block of estimate and target, `(2, channels, time)`."""
        y_hat, y = both
        self._add_bands(self.bands.push(torch.cat((y - y_hat, y))))
        for size, frames in self.resolutions.items():
            self._add_distance(size, frames.push(both.flatten(0, 1)))

    def end_file(self) -> None:
        self._add_bands(self.bands.flush())
        for size, frames in self.resolutions.items():
            self._add_distance(size, frames.flush())
        estimate, target, count = self.centroids.tolist()
        self.centroid_errors_hz.append(abs(ratio(estimate, count) - ratio(target, count)))

    def _add_bands(self, power: Tensor | None) -> None:
        if power is not None:
            self.band_power += power.unflatten(0, (2, -1)).sum(dim=(1, 2))

    def _add_distance(self, size: int, power: Tensor | None) -> None:
        if power is None:
            return
        powers = power.clamp(min=1e-8).unflatten(0, (2, -1))  # the clamp of auraloss
        magnitude_hat, magnitude = powers.sqrt()
        log_distance = (magnitude_hat / magnitude).log_().abs_()
        difference = (magnitude - magnitude_hat).square_()
        sums = [_total(part) for part in (difference, powers[1], log_distance)]
        self.distances[size] += torch.stack([*sums, torch.tensor(difference.numel(), dtype=torch.float64)])
        if size == FFT_SIZES[0]:
            self._add_centroids(magnitude_hat, magnitude)

    def _add_centroids(self, *magnitudes: Tensor) -> None:
        sums = [magnitude.sum(dim=2) for magnitude in magnitudes]
        silence = 10 * 1e-4 * magnitudes[0].shape[2]
        heard = (sums[0] > silence) & (sums[1] > silence)  # a silent frame has no centroid
        for row, (magnitude, total) in enumerate(zip(magnitudes, sums, strict=True)):
            centroid_hz = (magnitude * self.frequencies_hz).sum(dim=2) / total
            self.centroids[row] += centroid_hz[heard].sum(dtype=torch.float64)
        self.centroids[2] += heard.sum()

    def compute(self) -> dict[str, float]:
        scores = {}
        bins_hz = torch.fft.rfftfreq(_BAND_FFT, 1 / self.sample_rate_hz)
        for name, centre_hz in BAND_CENTRES_HZ.items():
            if centre_hz < self.sample_rate_hz / 2:
                inside = (bins_hz >= centre_hz / math.sqrt(2)) & (bins_hz < centre_hz * math.sqrt(2))
                scores[f"esr_band_{name}"] = ratio(*self.band_power[:, inside].sum(dim=1).tolist())
        distances = [(math.sqrt(ratio(*d[:2])) + ratio(*d[2:])) for d in map(Tensor.tolist, self.distances.values())]
        return scores | {
            "mrstft": sum(distances) / len(distances),
            "spectral_centroid_error_hz": _mean(self.centroid_errors_hz),
        }


def _mean(values: list[float]) -> float:
    """Mean over the files for which the value is defined."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


class EffectMetrics:
    """All scores of an estimate against its target, over any number of files of any length.

    Sums run over all files (a silent passage then weighs nothing); loudness and centroid are means over files. What
    silence leaves undefined is nan. The chunks in which the audio arrives do not matter. `stretches` are the squared
    errors and the energy, one after another, of every 1.5 s (at 44.1 kHz) of each file, `(file, error, energy)`.

    >>> metrics = EffectMetrics(44_100)
    >>> metrics.start_file()
    >>> metrics.update(0.9 * torch.ones(1, 1000), torch.ones(1, 1000))
    >>> metrics.end_file()
    >>> round(metrics.compute()["esr"], 4)
    0.01
    """

    def __init__(self, sample_rate_hz: int):
        self.sample_rate_hz = sample_rate_hz
        self.files = self._samples = 0
        self._open = False
        self._esr, self._esr_preemphasis = ErrorToSignalRatio(), ErrorToSignalRatio()
        self._gain_aligned = GainAlignedErrorToSignalRatio()
        self._mae = MeanAbsoluteError(sync_on_compute=False).set_dtype(torch.float64)
        self._delays = DelaySearch()
        self._spectral = _Spectral(sample_rate_hz)
        self._lufs_errors_db: list[float] = []
        self.stretches: list[tuple[int, float, float]] = []

    def start_file(self) -> None:
        """Begin a file. Raises ValueError where the last one has not ended."""
        if self._open:
            raise ValueError("end_file() has to come before the next start_file()")
        self._open, self._channels, self._file = True, 0, self.files
        self._waiting: list[Tensor] = []
        self._waiting_frames = 0

    def update(self, y_hat: Tensor, y: Tensor) -> None:
        """Take the next chunk of the file, `(channels, time)` each.

        Raises ValueError outside a file and where shapes differ, from each other or from the chunk before.
        """
        if not self._open:
            raise ValueError("start_file() has to come before update()")
        if y_hat.shape != y.shape or y.ndim != 2 or self._channels not in (0, len(y)) or len(y) == 0:
            raise ValueError(
                f"expected estimate and target of one shape (channels, time), the same channels throughout a file, "
                f"got {tuple(y_hat.shape)} and {tuple(y.shape)}"
            )
        if self._channels == 0:
            self._begin(len(y))
        self._waiting.append(torch.stack((y_hat, y)).detach().cpu().float())
        self._waiting_frames += y.shape[1]
        if self._waiting_frames >= _BLOCK_FRAMES:
            waiting = torch.cat(self._waiting, dim=2)
            whole = self._waiting_frames // _BLOCK_FRAMES * _BLOCK_FRAMES
            for block in waiting[..., :whole].split(_BLOCK_FRAMES, dim=2):
                self._add(block)
            self._waiting, self._waiting_frames = [waiting[..., whole:]], self._waiting_frames - whole

    def end_file(self) -> None:
        """Finish the file. Raises ValueError where none was started."""
        if not self._open:
            raise ValueError("start_file() has to come before end_file()")
        self._open = False
        self.files += 1
        if self._waiting_frames:
            self._add(torch.cat(self._waiting, dim=2))
        if self._channels:
            self._delays.end_file()
            self._spectral.end_file()
            self._lufs_errors_db.append(self._loudness[0].lufs - self._loudness[1].lufs)

    def _begin(self, channels: int) -> None:
        self._channels = channels
        self._delays.start_file(channels)
        self._spectral.start_file(channels)
        self._loudness = [Loudness(self.sample_rate_hz, channels) for _ in range(2)]
        self._last = torch.zeros(2, channels, 1, dtype=torch.float64)

    def _add(self, both: Tensor) -> None:
        """Everything about the next block of estimate and target, `(2, channels, time)` in float32."""
        exact = both.double()
        y_hat, y = exact
        self._samples += y.numel()
        before = self._esr.error.item(), self._esr.target.item()
        self._esr.update(y_hat, y)
        error, energy = self._esr.error.item() - before[0], self._esr.target.item() - before[1]
        self.stretches.append((self._file, error, energy))
        self._gain_aligned.update(y_hat, y)
        self._mae.update(y_hat, y)
        joined = torch.cat((self._last, exact), dim=2)
        self._esr_preemphasis.update(*preemphasis(joined, PREEMPHASIS_COEFFICIENT)[..., 1:])
        self._last = exact[..., -1:]
        self._delays.update(y_hat, y)
        self._spectral.update(both)
        for meter, signal in zip(self._loudness, exact, strict=True):
            meter.update(signal.numpy())

    def compute(self) -> dict[str, float]:
        """Scores of all files that have ended. Raises ValueError where none has."""
        if self.files == 0:
            raise ValueError("no file has been measured: start_file(), update() and end_file() come first")
        scores = self._spectral.compute() | {"lufs_error_db": _mean(self._lufs_errors_db)}
        if self._samples == 0:
            names = ("esr", "esr_gain_aligned", "esr_delay_aligned", "esr_preemphasis", "mae", "rms_error_db")
            return dict.fromkeys((*scores, *names), math.nan)
        xx, _, yy = self._gain_aligned.products.tolist()
        explained = ratio(self._delays.best()[1] ** 2 / xx, yy) if xx else 0.0 * ratio(yy, yy)
        level = ratio(xx, yy)
        return scores | {
            "esr": float(self._esr.compute()),
            "esr_gain_aligned": float(self._gain_aligned.compute()),
            "esr_delay_aligned": 1 - explained if not explained > 1 else 0.0,
            "esr_preemphasis": float(self._esr_preemphasis.compute()),
            "mae": float(self._mae.compute()),
            "rms_error_db": 10 * math.log10(level) if level > 0 else math.nan,
        }
