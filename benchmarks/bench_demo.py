"""From a machine on the bench to a model of it, as a person would go: capture, record, align, train, measure.

The virtual Revox stands in for the machine, and a virtual interface for the converters around it: it turns polarity,
changes the gain, starts three seconds late and runs 37 ppm fast. Ends with the data sheet of model and machine side by
side. `--work FOLDER` keeps everything there (default outputs/bench_demo); `--preset` names another machine.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.signal import butter, sosfilt

from revox_lightning import audio
from revox_lightning.dsp.interpolation import read_at

ZERO_VU_DBFS = -10.0  # a hot line level, which uses the converters' range and the net's
HOT_DB = 6.0  # how much harder than usual the tape is driven, so that there is something to learn
GAIN_DB, DRIFT_PPM, LATE_SECONDS, CONVERTER_DBFS = -3.7, 37.0, 3.0, -100.0


def revox(command: str, *words: str) -> None:
    """Runs one command as a user would type it; stops the demonstration where it fails."""
    print(f"\n$ revox {command} {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", f"revox_lightning.commands.{command}", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def through_the_interface(source: Path, target: Path) -> None:
    """What the converters make of a signal: gain, polarity, clock, a late start, a high-pass, their own noise."""
    x, rate_hz = audio.read(source).numpy(), audio.info(source).sample_rate_hz
    samples = x.shape[1] + round((LATE_SECONDS + 2) * rate_hz)
    heard_at = (np.arange(samples) - LATE_SECONDS * rate_hz) * (1 + DRIFT_PPM * 1e-6)
    coupling = butter(1, 5.0, "highpass", fs=rate_hz, output="sos")
    noise = 10 ** (CONVERTER_DBFS / 20) * np.random.default_rng(0).standard_normal((len(x), samples))
    y = -(10 ** (GAIN_DB / 20)) * np.stack([sosfilt(coupling, read_at(channel, heard_at)) for channel in x]) + noise
    audio.write(target, torch.from_numpy(y).float(), rate_hz, subtype="PCM_24")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("outputs/bench_demo"))
    parser.add_argument("--preset", default="a77_7.5ips")
    parser.add_argument("--epochs", default="12")
    given = parser.parse_args()
    work: Path = given.work
    if (work / "tape.wav").exists():
        shutil.rmtree(work)  # of an earlier demonstration
    work.mkdir(parents=True, exist_ok=True)
    tape, played, recorded = (str(work / f"{name}.wav") for name in ("tape", "played", "recorded"))

    revox("capture", tape, "sample_rate_hz=44100", "speed_seconds=20", f"zero_vu_dbfs={ZERO_VU_DBFS}")
    levels = (f"machine.zero_vu_dbfs={ZERO_VU_DBFS}", f"machine.record_level_db={HOT_DB}")
    revox("machine", tape, played, f"preset={given.preset}", *levels, "seed=1")
    print(f"the interface: {GAIN_DB} dB, polarity turned, {DRIFT_PPM} ppm fast, {LATE_SECONDS} s late", flush=True)
    through_the_interface(Path(played), Path(recorded))
    through_the_interface(work / "tape_loopback.wav", work / "loopback.wav")
    revox("align", tape, recorded, f"loopback={work / 'loopback.wav'}", "mode=second_pass", f"out={work / 'aligned'}")
    revox(
        "train", "data=recordings", f"data.root={work / 'aligned' / 'demodulated'}", "data.channels=left",
        f"trainer.max_epochs={given.epochs}", f"run_dir={work / 'run'}", "logger=csv",
    )  # fmt: skip
    revox("measure", f"run={work / 'run'}", "speed_seconds=20", f"out={work / 'measured'}")


if __name__ == "__main__":
    main()
