"""The built-in dry performer: songs made of arithmetic, from a whisper to a full band, the same for the same seed."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.signal import butter, oaconvolve, sosfilt

from revox_lightning.data import instruments
from revox_lightning.errors import UserError

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "dorian": (0, 2, 3, 5, 7, 9, 10)}
PROGRESSIONS = {  # scale degrees, one chord each
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 2, 3, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 2, 6, 3)),
    "dorian": ((0, 3, 0, 3), (0, 6, 3, 0), (0, 2, 3, 6), (0, 1, 2, 3)),
}
KICKS = ((0, 2), (0, 1.5, 2), (0, 0.75, 2.5), (0, 1, 2, 3), (0, 2.5, 2.75))  # beats of a bar
BASSES = ((0, 1.5, 2, 3.5), (0, 0.75, 1.5, 2.5, 3), (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5), (0, 2, 3))
STRUMS = ((0, 1.5, 3), (0, 1, 2, 3), (0.5, 1.5, 2.5, 3.5), (0, 0.75, 1.5, 2.5))


@dataclass
class Song:
    """Key, tempo, patterns and timbres of one song, and the tape it is written on: `mix` (time,) at `rate`."""

    mix: np.ndarray
    rate: int
    rng: np.random.Generator
    start_s: float
    bars: int
    gain_db: float = 0.0
    drums: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = self.rng
        mode = str(rng.choice(list(SCALES)))
        self.scale, self.chords = SCALES[mode], PROGRESSIONS[mode][rng.integers(4)]
        self.root, self.beat_s = int(rng.integers(38, 50)), 60.0 / rng.uniform(96, 138)
        self.swing = float(rng.choice([0.0, 0.0, 0.08, 0.16]))
        self.brightness = float(rng.uniform(0.3, 0.9))
        self.kick, self.bassline = KICKS[rng.integers(len(KICKS))], BASSES[rng.integers(len(BASSES))]
        self.strum, self.plucked_bass = STRUMS[rng.integers(len(STRUMS))], bool(rng.random() < 0.5)
        self.melody = rng.integers(-3, 4, 16)
        self.drums = {
            "kick": [instruments.kick(self.rate, rng.uniform(42, 62), rng.uniform(0.3, 1))],
            "snare": [instruments.snare(self.rate, rng.uniform(160, 230), rng.random(), rng) for _ in range(3)],
            "hat": [instruments.hat(self.rate, rng.uniform(0.015, 0.03), rng) for _ in range(4)],
            "open": [instruments.hat(self.rate, rng.uniform(0.1, 0.2), rng)],
            "tom": [instruments.tom(self.rate, hz) for hz in rng.uniform(0.9, 1.1) * np.array([82, 110, 147])],
        }

    @property
    def beats(self) -> int:
        """Beats of one section."""
        return 4 * self.bars

    def add(self, sound: np.ndarray, beat: float, level_db: float) -> None:
        """Put a sound (time,) on the tape at a beat of the section, a few milliseconds early or late as people play."""
        swung = beat + (self.swing if beat % 1 == 0.5 else 0.0)
        at = round((self.start_s + swung * self.beat_s + self.rng.uniform(0, 0.006)) * self.rate)
        sound = sound[: max(0, self.mix.size - at)]
        self.mix[at : at + sound.size] += 10 ** ((level_db + self.gain_db) / 20) * sound

    def hz(self, degree: int, octave: int = 0) -> float:
        """Frequency of a scale degree; degrees run on into the octaves above and below."""
        lift, step = divmod(degree, 7)
        return 440.0 * 2 ** ((self.root + self.scale[step] + 12 * (lift + octave) - 69) / 12)

    def chord(self, beat: float) -> int:
        """Root degree of the chord that sounds at a beat: the progression fills the section."""
        return self.chords[int(beat * 4 / self.beats) % 4]

    def hit(self, drum: str, beat: float, level_db: float) -> None:
        """One stroke, chosen among the drum's variants."""
        strokes = self.drums[drum]
        self.add(strokes[self.rng.integers(len(strokes))], beat, level_db + self.rng.uniform(-2, 0))


def perform(seconds: float, sample_rate_hz: int, seed: int) -> np.ndarray:
    """Dry performance (time,) float32, peak -1 to -3 dBFS; another seed gives other keys, tempi, patterns and sounds.

    A song goes through eight sections: a quiet opening, verse, chorus, drum solo, voice, a rise of sweeps and noise,
    chorus, and a close that dies away into silence.

    >>> perform(0.5, 8_000, seed=0).shape
    (4000,)
    """
    if not (seconds > 0 and sample_rate_hz >= 8_000):
        raise UserError(f"cannot perform {seconds} s at {sample_rate_hz} Hz: give more than 0 s and at least 8,000 Hz.")
    rng = np.random.default_rng(seed)
    mix = np.zeros(round(seconds * sample_rate_hz))
    start_s, bars = 0.0, 2 if seconds >= 24 else 1  # a short performance has short sections, so that it holds them all
    while start_s < seconds:
        song = Song(mix, sample_rate_hz, rng, start_s, bars, gain_db=float(rng.uniform(-4, 0)))
        for section in SECTIONS:
            if song.start_s < seconds:
                section(song)
            song.start_s += song.beats * song.beat_s
        start_s = song.start_s
    return _finished(mix, sample_rate_hz, rng)


def piece(seconds: float, sample_rate_hz: int, seed: int) -> np.ndarray:
    """Dry performance (time,) float32, peak -1 to -3 dBFS, that stays what it is: one section of a song, over and over.

    Its halves are the same instruments at the same level, as those of a minute of most records are.

    >>> piece(0.5, 8_000, seed=0).shape
    (4000,)
    """
    rng = np.random.default_rng((seed, 1))
    mix = np.zeros(round(seconds * sample_rate_hz))
    song = Song(mix, sample_rate_hz, rng, 0.0, 2)
    section = _LASTING[rng.integers(len(_LASTING))]
    while song.start_s < seconds:
        section(song)
        song.start_s += song.beats * song.beat_s
    return _finished(mix, sample_rate_hz, rng)


def _finished(mix: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """The tape (time,) in a room, from the desk, at its level."""
    mix += 0.12 * oaconvolve(mix, instruments.room(rate, rng))[: mix.size]
    mix = _master(mix, rate)
    peak = max(float(np.abs(mix).max(initial=0.0)), 1e-9)
    return (10 ** (rng.uniform(-3, -1) / 20) / peak * mix).astype(np.float32)


def _master(mix: np.ndarray, rate: int) -> np.ndarray:
    """The desk: its soft limit tames single strokes, and little is left above 17 kHz, as on most records."""
    loud = max(float(np.quantile(np.abs(mix), 0.999)), 1e-9)
    sos = butter(6, min(17_000.0, 0.46 * rate), fs=rate, output="sos")
    mix = np.asarray(sosfilt(sos, np.tanh(1.3 * mix / loud)))
    fade = min(round(0.02 * rate), mix.size)
    mix[mix.size - fade :] *= np.linspace(1, 0, fade)
    return mix


def opening(song: Song) -> None:
    """A broken chord on one string instrument, soft, swelling and sinking."""
    pattern = song.rng.permutation([0, 2, 4, 7, 9, 7, 4, 2])
    for n in range(2 * song.beats):
        beat, degree = n / 2, song.chord(n / 2) + int(pattern[n % 8])
        level = -27 + 9 * np.sin(np.pi * n / (2 * song.beats)) + song.rng.uniform(-3, 0)
        song.add(instruments.pluck(song.rate, song.hz(degree, 1), 1.6, 0.6 * song.brightness, song.rng), beat, level)
        if n % 8 == 0:
            song.add(instruments.pluck(song.rate, song.hz(song.chord(beat)), 2.5, 0.4, song.rng), beat, level + 2)


def verse(song: Song) -> None:
    """Drums held back, bass, strummed strings."""
    _groove(song, -9)
    _bass(song, -10)
    _strum(song, -17)


def chorus(song: Song) -> None:
    """The whole band, loud, with a melody."""
    _groove(song, 0)
    _bass(song, -3)
    _strum(song, -9)
    _chords(song, instruments.pad, -14)
    _lead(song, -8)
    song.hit("open", 0, -6)


def drum_solo(song: Song) -> None:
    """Strokes from ghost notes to full level, rests between, a fill to end."""
    for n in range(4 * song.beats - 8):
        beat, drum = n / 4, ("kick", "snare", "tom", "hat", "open")[song.rng.choice(5, p=[0.25, 0.2, 0.2, 0.3, 0.05])]
        if song.rng.random() < 0.6:
            song.hit(drum, beat, float(song.rng.choice([-2, -9, -18, -28])) - (8 if drum in ("hat", "open") else 0))
    for n in range(8):
        song.hit("snare" if n % 3 else "tom", song.beats - 2 + n / 4, -14 + 1.8 * n)


def singing(song: Song) -> None:
    """A voice, over an electric piano that leaves it room."""
    _chords(song, instruments.electric_piano, -21)
    vowels, beat, last = list(instruments.VOWELS_HZ), 0.0, song.hz(4, 1)
    while beat < song.beats - 0.5:
        length = float(song.rng.choice([0.5, 1.0, 1.0, 2.0]))
        if song.rng.random() < 0.85:
            degree = song.chord(beat) + int(song.rng.choice([0, 2, 4, 1, 7]))
            pair = (str(song.rng.choice(vowels)), str(song.rng.choice(vowels)))
            f0 = song.hz(degree, 1 if degree < 5 else 0)
            sound = instruments.voice(song.rate, f0, last, 0.95 * length * song.beat_s, pair, song.rng)
            song.add(sound, beat, song.rng.uniform(-16, -5))
            last = f0
        beat += length


def rise(song: Song) -> None:
    """Sweep up over quickening noise, then one beat of silence."""
    beats = song.beats - 1
    upwards = song.rng.random() < 0.75
    ends = (float(song.rng.uniform(35, 90)), float(song.rng.uniform(8_000, 15_000)))
    from_hz, to_hz = ends if upwards else ends[::-1]
    to_hz, from_hz = min(to_hz, 0.45 * song.rate), min(from_hz, 0.45 * song.rate)
    tone = instruments.sweep(song.rate, from_hz, to_hz, beats * song.beat_s)
    song.add(tone * np.linspace(0.2, 1, tone.size), 0, song.rng.uniform(-14, -8))
    for n in range(2 * beats):
        low = float(song.rng.choice([100, 400, 1600, 5000]))
        burst = instruments.noise_burst(song.rate, low, 3 * low, 0.4 * song.beat_s, song.rng)
        song.add(burst, n / 2, -34 + 24 * n / (2 * beats))
    _bass(song, -12, until=beats)


def close(song: Song) -> None:
    """Electric piano and a last string, very soft, then silence for the last third."""
    for n, degree in enumerate((0, 2, 4, 6)):
        f0 = song.hz(song.chords[0] + degree, 1)
        song.add(instruments.electric_piano(song.rate, f0, 2 * song.beat_s, 0.2), n / 4, -32 - n)
    for n in range(song.beats // 2):
        f0 = song.hz(int(song.rng.choice([0, 2, 4, 7])), 1)
        song.add(instruments.pluck(song.rate, f0, song.beat_s, 0.3, song.rng), n, -34 - 3 * n)


SECTIONS: tuple[Callable[[Song], None], ...] = (opening, verse, chorus, drum_solo, singing, rise, chorus, close)
_LASTING = (opening, verse, verse, chorus, chorus, drum_solo, singing)


def _groove(song: Song, level_db: float) -> None:
    for bar in range(song.bars):
        first = 4 * bar
        for beat in song.kick:
            song.hit("kick", first + beat, level_db)
        for beat in (1, 3):
            song.hit("snare", first + beat, level_db - 2)
        for n in range(8):
            song.hit("hat", first + n / 2, level_db - (14 if n % 2 else 10))
        if song.rng.random() < 0.4:
            song.hit("open", first + 3.5, level_db - 12)
        if song.rng.random() < 0.5:
            song.hit("snare", first + 2.75, level_db - 18)


def _bass(song: Song, level_db: float, until: float = np.inf) -> None:
    for bar in range(song.bars):
        for n, beat in enumerate(song.bassline):
            if 4 * bar + beat >= until:
                continue
            degree = song.chord(4 * bar + beat) + (4 if n == len(song.bassline) - 1 else 0)
            f0, seconds = song.hz(degree, -1 if degree < 5 else -2), 0.9 * song.beat_s
            if song.plucked_bass:
                note = instruments.pluck(song.rate, f0, seconds, 0.7 * song.brightness, song.rng)
            else:
                note = instruments.bass(song.rate, f0, seconds, song.brightness)
            song.add(note, 4 * bar + beat, level_db + song.rng.uniform(-3, 0))


def _strum(song: Song, level_db: float) -> None:
    for bar in range(song.bars):
        for beat in song.strum:
            root = song.chord(4 * bar + beat)
            for string, degree in enumerate((0, 4, 7, 9)):
                note = instruments.pluck(song.rate, song.hz(root + degree), 0.8, song.brightness, song.rng)
                song.add(note, 4 * bar + beat + 0.02 * string, level_db + song.rng.uniform(-3, 0))


def _chords(song: Song, instrument: Callable[[int, float, float, float], np.ndarray], level_db: float) -> None:
    length = song.beats / 4
    for n in range(4):
        for degree in (0, 2, 4, 6):
            f0 = song.hz(song.chords[n] + degree, 1 if song.chords[n] < 4 else 0)
            note = instrument(song.rate, f0, length * song.beat_s, 0.7 * song.brightness)
            song.add(note, n * length, level_db + song.rng.uniform(-2, 0))


def _lead(song: Song, level_db: float) -> None:
    degree = 7
    for n in range(2 * song.beats):
        degree = int(np.clip(degree + song.melody[n % 16], 4, 13))
        if song.melody[(n + 5) % 16] > -2:
            note = instruments.pluck(song.rate, song.hz(degree, 1), 0.9 * song.beat_s, song.brightness, song.rng)
            song.add(note, n / 2, level_db + song.rng.uniform(-4, 0))
