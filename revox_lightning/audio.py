"""Audio files and sample rates: the only door between the project and the file system's sound.

In memory it is a float32 tensor `(channels, time)`, full scale 1.0; hours of it go block by block in constant memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from revox_lightning import files
from revox_lightning.dsp.quantisation import BITS, quantised
from revox_lightning.dsp.resampling import StreamResampler as StreamResampler
from revox_lightning.dsp.resampling import converted as converted
from revox_lightning.dsp.resampling import resample as resample
from revox_lightning.dsp.true_peak import TruePeak as TruePeak
from revox_lightning.errors import UserError

_FORMATS = {".wav": "WAV", ".wave": "WAV", ".flac": "FLAC", ".aif": "AIFF", ".aiff": "AIFF", ".ogg": "OGG"}
_SLICE_FRAMES = 65_536  # libsndfile's Vorbis encoder overflows its stack on much longer writes
_RATES_HZ = (1, 3_072_000)
_BELIEVED_SAMPLES = 2**22
WAV_LIMIT_BYTES = 2**32 - 2**16  # a WAV header counts bytes in 32 bits; what is left over is room for the header


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: `format` and `subtype` in libsndfile's names ("WAV", "PCM_24")."""

    path: Path
    sample_rate_hz: int
    channels: int
    frames: int
    format: str
    subtype: str


class DamagedAudio(UserError):
    """A file whose header is sound, but not what follows; `path` says which."""

    def __init__(self, path: Path, reason: str):
        super().__init__(reason)
        self.path = path


def info(path: str | Path) -> AudioInfo:
    """Read the header of a WAV, FLAC, AIFF or Ogg file.

    Raises UserError where there is no such file, where it is a folder, empty, not permitted or not audio.
    """
    path = Path(path)
    _check_place(path)
    try:
        header = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{path} cannot be read as audio: expected a WAV, FLAC, AIFF or Ogg file") from error
    if header.frames <= 0:
        raise UserError(f"the audio file {path} is empty (0 samples): record or copy it again")
    if not _RATES_HZ[0] <= header.samplerate <= _RATES_HZ[1]:
        raise UserError(f"{path} says that its sample rate is {header.samplerate} Hz: its header is damaged")
    return AudioInfo(path, header.samplerate, header.channels, header.frames, header.format, header.subtype)


def _check_place(path: Path) -> None:
    """Raises UserError where there is no file with something in it that may be read."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder, not an audio file: name a file in it")
        if not path.exists():
            raise UserError(f"there is no audio file {path}: check the path")
        if not path.is_file():  # a device or a pipe, from which one may wait for ever
            raise UserError(f"{path} is no ordinary file: name an audio file")
        if not os.access(path, os.R_OK):
            raise UserError(f"the audio file {path} may not be read: change its permissions")
        if path.stat().st_size == 0:
            raise UserError(f"the audio file {path} is empty (0 bytes): record or copy it again")
    except OSError as error:
        raise UserError(f"there is no audio file {str(path)[:300]} ({error.strerror}): check the path") from error


def read(path: str | Path | AudioInfo, start: int = 0, frames: int | None = None) -> Tensor:
    """Read samples `start` to `start + frames` (None: to the end; as with a slice, fewer where the file ends).

    A header that is known already is believed. Returns float32 `(channels, time)`. Raises UserError as `info` does,
    DamagedAudio where the file cannot be read that far, and UserError for NaN or infinite samples and where the file's
    disk has gone.
    """
    header = path if isinstance(path, AudioInfo) else info(path)
    stop = header.frames if frames is None else min(start + frames, header.frames)
    with _open(header.path) as file:
        return _read_block(file, header, min(start, header.frames), max(stop - start, 0))


def blocks(path: str | Path, block_frames: int) -> Iterator[Tensor]:
    """Iterate over a file as float32 blocks `(channels, block_frames)`, the last one shorter; raises as `read` does."""
    header = info(path)

    def walk() -> Iterator[Tensor]:
        with _open(header.path) as file:
            for start in range(0, header.frames, block_frames):
                yield _read_block(file, header, start, min(block_frames, header.frames - start))

    return walk()


def _open(path: Path) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        _check_still_there(path)
        raise DamagedAudio(path, f"{path} cannot be read as audio: expected a WAV, FLAC, AIFF or Ogg file") from error


def _check_still_there(path: Path) -> None:
    """Raises UserError where not the file is damaged but its disk or network has gone."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        reason = f"{path} can no longer be read ({error.strerror}): bring its disk or network back, then go on"
        raise UserError(reason) from error


def _read_block(file: soundfile.SoundFile, header: AudioInfo, start: int, frames: int) -> Tensor:
    got = 0
    try:
        if frames * header.channels > _BELIEVED_SAMPLES:  # a header may tell of more than there is room for
            file.seek(start + frames - 1)
            if not len(file.read(1)):
                raise RuntimeError("the file ends before that")
        if file.tell() != start:
            file.seek(start)
        block = file.read(frames, dtype="float32", always_2d=True)
        got = len(block)
        if got < frames:
            raise RuntimeError("the file ends before that")
    except (RuntimeError, MemoryError) as error:
        _check_still_there(header.path)
        after = f"{(start + got) / header.sample_rate_hz:.3f} s"
        reason = f"{header.path} is damaged after {after}: copy or export it again"
        raise DamagedAudio(header.path, reason) from error
    if not np.isfinite(block).all():
        first = start + int(np.argmin(np.isfinite(block).all(axis=1)))
        at_seconds = first / header.sample_rate_hz
        raise UserError(f"{header.path} holds a NaN or infinite sample at {at_seconds:.3f} s: export the file again")
    return torch.from_numpy(np.ascontiguousarray(block.T))


class AudioWriter:
    """Writes blocks to a temporary file; `writer` opens it and puts the finished file in its place.

    `peak` is the largest absolute sample seen; `clipped_samples` counts those beyond full scale that an integer
    format could not hold. The caller reports both.
    """

    def __init__(self, path: Path, sample_rate_hz: int, channels: int, subtype: str, format: str):
        self.path, self.sample_rate_hz, self.channels, self.subtype = path, sample_rate_hz, channels, subtype
        self.clipped_samples, self.peak, self._frames = 0, 0.0, 0
        self._bits = BITS.get(subtype)
        self._dither = np.random.default_rng(0) if self._bits is not None and self._bits <= 16 else None
        self._handle, self._temporary = -1, path
        self._file = self._create(format)

    def _create(self, format: str) -> soundfile.SoundFile:
        try:  # libsndfile only says "System error": let the system say what it is
            self._handle, self._temporary = files.begin(self.path)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        try:
            name = str(self._temporary)
            return soundfile.SoundFile(name, "w", self.sample_rate_hz, self.channels, self.subtype, format=format)
        except (OSError, soundfile.LibsndfileError) as error:
            self.discard()
            raise _cannot_write(self.path, error) from error

    def write(self, audio: Tensor) -> None:
        """Append `audio` `(channels, time)`. Raises UserError for NaN samples and where the disk refuses."""
        if audio.ndim != 2 or audio.shape[0] != self.channels:
            raise ValueError(f"expected audio (channels={self.channels}, time), got {tuple(audio.shape)}")
        samples = audio.detach().cpu().numpy().T
        for start in range(0, len(samples), _SLICE_FRAMES):
            self._write_slice(samples[start : start + _SLICE_FRAMES])

    def _write_slice(self, samples: np.ndarray) -> None:
        if not np.isfinite(samples).all():
            raise UserError(f"the audio meant for {self.path} holds NaN or infinite samples: nothing was written")
        magnitude = np.abs(samples)
        self.peak = max(self.peak, float(magnitude.max()))
        if self._bits is not None:
            self.clipped_samples += int((magnitude > 1.0).sum())
        try:
            if self._file.format == "WAV" and self._frames >= self._wav_limit_frames():
                self._continue_as_rf64()
            codes = samples if self._bits is None else quantised(samples, self._bits, self._dither)
            self._file.write(np.ascontiguousarray(codes))
            self._frames += len(samples)
        except (OSError, RuntimeError, AssertionError) as error:  # python-soundfile asserts that all was written
            raise _cannot_write(self.path, error) from error

    def _wav_limit_frames(self) -> int:
        bytes_per_frame = self.channels * {"FLOAT": 4, "DOUBLE": 8}.get(self.subtype, (self._bits or 32) // 8)
        return WAV_LIMIT_BYTES // bytes_per_frame - _SLICE_FRAMES

    def _continue_as_rf64(self) -> None:
        """Move what is written into an RF64 file (EBU Tech 3306), which counts bytes in 64 bits."""
        self._file.close()
        (handle, wav), self._handle = (self._handle, self._temporary), -1
        try:
            self._file = self._create("RF64")
            with soundfile.SoundFile(str(wav)) as written:
                for block in written.blocks(_SLICE_FRAMES, dtype="int32" if self._bits else "float64", always_2d=True):
                    self._file.write(block)
        finally:
            os.close(handle)
            wav.unlink()

    def commit(self) -> None:
        """Close, check and flush the temporary file and give it its name."""
        try:
            self._file.close()
            if self._frames and soundfile.info(str(self._temporary)).frames < self._frames:
                raise OSError("the file came out shorter than what was written")
            files.publish(self._handle, self._temporary, self.path)
            self._release()
        except (OSError, RuntimeError) as error:
            raise _cannot_write(self.path, error) from error

    def discard(self) -> None:
        """Close and remove the temporary file."""
        if self._handle < 0:
            return
        with suppress(OSError, RuntimeError, AttributeError):  # of a file that could not even be opened
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink()
        self._release()

    def _release(self) -> None:
        os.close(self._handle)
        self._handle = -1


def _cannot_write(path: Path, error: Exception) -> UserError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    if not reason or "System error" in reason:  # all that libsndfile says
        reason = "the disk may be full"
    return UserError(f"cannot write {path}: {reason.rstrip('.')}")


@contextmanager
def writer(
    path: str | Path, sample_rate_hz: int, channels: int, subtype: str = "PCM_24", format: str | None = None
) -> Iterator[AudioWriter]:
    """Open an audio file for writing in blocks; the file appears under its name only when the block ends well.

    `format` follows from the name where it is not given. 16-bit audio gets seeded TPDF dither; a WAV beyond 4 GB
    becomes RF64. Raises UserError where the folder or the disk does not take it; nothing half-written stays behind.
    """
    path = Path(path)
    format = format or _FORMATS.get(path.suffix.lower())
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    if format is None:
        raise UserError(f"cannot tell the format of {path} from its name: end it in .wav, .flac, .aiff or .ogg")
    if not soundfile.check_format(format, subtype):
        known = ", ".join(soundfile.available_subtypes(format))
        raise UserError(f"cannot write {path}: {format} files hold no {subtype}, only {known}")
    file = AudioWriter(path, sample_rate_hz, channels, subtype, format)
    try:
        yield file
        file.commit()
    except BaseException:
        file.discard()
        raise


def write(path: str | Path, audio: Tensor, sample_rate_hz: int, subtype: str = "PCM_24") -> None:
    """Write `audio` `(channels, time)` as one file: see `writer`."""
    with writer(path, sample_rate_hz, audio.shape[0], subtype) as file:
        file.write(audio)
