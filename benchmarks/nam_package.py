"""Our .nam files in Neural Amp Modeler's own package: python benchmarks/nam_package.py [--install] [--venv FOLDER].

The package pins an older Lightning, so it lives in a virtual environment of its own, the one of peers.py. Every net is
written by this program, read there, and played; largest difference of the outputs. It reads no ConvNets. It has a
Linear's kernel oldest sample first and players newest first: that one is compared after reversing it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

LARGEST = 1e-5
SECONDS, RATE_HZ = 1.0, 48_000


def children(folder: Path) -> None:
    """In the package's environment: plays x.npy through every .nam file and leaves NAME.npy beside it."""
    import torch
    from nam.models._from_nam import init_from_nam

    x = torch.from_numpy(np.load(folder / "x.npy"))
    for path in sorted(folder.glob("*.nam")):
        net = init_from_nam(json.loads(path.read_text()))
        with torch.no_grad():
            np.save(path.with_suffix(".npy"), net.eval()(x, pad_start=True).numpy())


def nets() -> dict[str, object]:
    """What is compared: every architecture, gated and deep ones, a snapshot of a parametric net, a trained one."""
    import torch

    from revox_lightning.export.snapshot import snapshot
    from revox_lightning.models.fir import FIR
    from revox_lightning.models.nam_wavenet import NAMWaveNet, nam_wavenet
    from revox_lightning.models.recurrent import Recurrent, nam_lstm

    torch.manual_seed(0)
    found = {
        "standard": nam_wavenet("standard"),
        "nano": nam_wavenet("nano"),
        "a2_lite": nam_wavenet("a2_lite"),
        "gated": NAMWaveNet((6, 4), ([1, 2, 4], [8, 16]), gated=True),
        "relu": NAMWaveNet((6, 4), ([1, 2, 4], [8, 16]), activation="ReLU"),
        "snapshot": snapshot(nam_wavenet("feather", controls=3, conditioning="bias"), [0.2, 0.5, 0.9]),
        "lstm": nam_lstm("standard"),
        "lstm_three_layers": Recurrent(hidden=10, layers=3, skip=False),
        "linear": FIR(64, bias=True, trainable=True),
    }
    found["linear"].load(0.2 * torch.randn(64))
    tuned = nam_wavenet("nano")
    optimizer, x = torch.optim.Adam(tuned.parameters(), lr=1e-3), 0.3 * torch.randn(2, 1, 9000)
    for _ in range(20):
        optimizer.zero_grad()
        (tuned(x)[0] - torch.tanh(2 * x)).square().mean().backward()
        optimizer.step()
    return {name: net.eval() for name, net in (found | {"fine_tuned": tuned}).items()}


def differences(folder: Path, python: Path) -> dict[str, float]:
    """Largest difference of each net's output from the package's, after both have settled."""
    import torch

    from revox_lightning.export import nam

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    x = 0.3 * torch.randn(round(SECONDS * RATE_HZ), generator=torch.Generator().manual_seed(0))
    np.save(folder / "x.npy", x.numpy())
    ours = {}
    for name, net in nets().items():
        nam.write(net, folder / f"{name}.nam", RATE_HZ, {"name": name})
        settled = nam.read(folder / f"{name}.nam").net
        with torch.no_grad():
            _, state = settled(torch.zeros(1, 1, max(getattr(settled, "preroll_samples", 0), 1)))
            ours[name] = settled(x[None, None], None, state)[0][0, 0].numpy()
        if name == "linear":
            content = json.loads((folder / "linear.nam").read_text())
            content["weights"] = content["weights"][63::-1] + content["weights"][64:]
            (folder / "linear.nam").write_text(json.dumps(content))
    subprocess.run([str(python), str(Path(__file__).resolve()), "--child", str(folder)], check=True)
    return {name: float(np.abs(y - np.load(folder / f"{name}.npy")).max()) for name, y in ours.items()}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--venv", type=Path, default=Path(__file__).parents[1] / "outputs" / "peers" / "venv")
    words.add_argument("--install", action="store_true", help="make the environment first")
    words.add_argument("--out", type=Path, default=Path("outputs/nam_package"))
    given = words.parse_args()
    if given.child:
        children(given.child)
        return 0
    if given.install:
        import peers

        if failed := peers.install(given.venv):
            print(failed, file=sys.stderr)
            return 2
    found = differences(given.out, given.venv / "bin" / "python")
    for name, difference in found.items():
        print(f"{name:20s}{difference:.1e}{'' if difference <= LARGEST else '  MORE THAN ' + str(LARGEST)}")
    return int(max(found.values()) > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
