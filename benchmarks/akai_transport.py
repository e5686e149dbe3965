"""How steadily the Akai 4000D of the golden recordings runs: weighted wow and flutter, and its picture.

The pulses beside the programme give the delay between record and playback head while both run, so the figures are
monitor figures: the delay is the integral of the tape speed over the heads' distance, and its variation is combed. They
say less than a second pass would and are not to be compared with one. `REVOX_GOLDEN` names the folder of recordings;
`--picture FILE` draws. The clips last 5 s each, so the figure is pooled over all and its uncertainty is their scatter.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from revox_lightning import audio
from revox_lightning.dsp.pulses import pulse_trajectory, resolve_period
from revox_lightning.dsp.trajectory import Trajectory
from revox_lightning.dsp.weighting import flutter_weighting, weighted

GRID_HZ = 100.0  # of the pulses


def trajectory(folder: Path, clip: int) -> tuple[Trajectory, int]:
    """Delay of one clip at its pulses, the whole periods told by the programme; and the sample rate."""
    paths = [folder / f"tape/real_tape/akai_maxell_7.5ips_{clip}_{side}.flac" for side in ("input", "target")]
    dry, wet = (audio.read(path).double().numpy() for path in paths)
    rate_hz = audio.info(paths[0]).sample_rate_hz
    return resolve_period(pulse_trajectory(dry[1], wet[1], rate_hz), dry[0], wet[0], rate_hz), rate_hz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    place = os.environ.get("REVOX_GOLDEN")
    if not place:
        sys.exit("error: REVOX_GOLDEN does not name the folder of golden recordings.")
    delays_ms, deviations = [], []
    for clip in (1, 2, 3):
        found, rate_hz = trajectory(Path(place), clip)
        times = np.arange(found.times_samples[0], found.times_samples[-1], rate_hz / GRID_HZ)
        delays_ms.append(1e3 / rate_hz * found.at(times))
        deviations.append(-np.gradient(delays_ms[-1] / 1e3, 1 / GRID_HZ))
        print(f"clip {clip}: delay {delays_ms[-1].mean():.3f} ms, standard deviation {delays_ms[-1].std():.3f} ms")
    edge = int(0.25 * GRID_HZ)  # what the weighting does not see whole
    heard = [100 * np.abs(weighted(d - d.mean(), GRID_HZ, flutter_weighting))[edge:-edge] for d in deviations]
    each = np.array([np.quantile(part, 0.95) for part in heard])
    pooled, scatter = np.quantile(np.concatenate(heard), 0.95), each.std(ddof=1) / np.sqrt(len(each))
    print(f"weighted wow and flutter, two sigma, monitor: {pooled:.3f} +- {scatter:.3f} % (clips: {each.round(3)})")
    if given.picture:
        draw(given.picture, delays_ms, deviations, pooled, scatter)


def draw(path: Path, delays_ms: list[np.ndarray], deviations: list[np.ndarray], figure: float, scatter: float) -> None:
    """Delay against time, and the spectrum of the speed's deviation with the nulls of the heads' distance."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    canvas, (above, below) = plt.subplots(2, 1, figsize=(8, 6), layout="constrained")
    for clip, delay in enumerate(delays_ms, 1):
        above.plot(np.arange(delay.size) / GRID_HZ, delay, lw=0.9, label=f"clip {clip}")
    above.set(xlabel="time (s)", ylabel="delay (ms)")
    above.set_title(
        "Akai 4000D, 7.5 ips, replayed while recording: a monitor figure\n"
        f"weighted wow and flutter (two sigma) {figure:.3f} ± {scatter:.3f} %",
        fontsize=10,
    )
    above.legend(fontsize=8)
    size = 1024
    power = np.mean([np.abs(np.fft.rfft((d - d.mean()) * np.hanning(d.size), size)) ** 2 for d in deviations], axis=0)
    hz = np.fft.rfftfreq(size, 1 / GRID_HZ)
    below.plot(hz[1:], 10 * np.log10(power[1:] / power.max()), lw=0.9)
    for null in (1, 2, 3):
        below.axvline(null * 1e3 / np.mean([d.mean() for d in delays_ms]), color="grey", ls=":", lw=0.8)
    below.set(xlabel="frequency (Hz)", ylabel="deviation of speed (dB)", xlim=(0, 30), ylim=(-50, 3))
    below.set_title("dotted: multiples of one over the delay, where replay while recording hears nothing", fontsize=9)
    canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


if __name__ == "__main__":
    main()
