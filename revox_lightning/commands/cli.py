"""``revox COMMAND ...``: the same as ``python -m revox_lightning.commands.COMMAND ...``."""

from __future__ import annotations

import importlib
import sys

from revox_lightning.commands import usage

COMMANDS = {
    "train": "train a model (the same as train.py): revox train model=tcn",
    "evaluate": "score a run, on its own test split or on other recordings",
    "render": "play a file or a folder through a trained model",
    "transfer": "give a recording the production style of another",
    "texture": "give a recording the sound texture of another",
    "export": "a trained model for players: .nam, RTNeural, AIDA-X, Proteus, ONNX, TorchScript",
    "paper": "a published table of models, or one of our own, trained and written",
    "report": "runs compared on one page: table, curves, and every version to hear",
    "listen": "a blind listening test of runs as one page, and the summary of its results",
    "sweep": "a W&B sweep file without a server, resumable",
    "status": "how the runs of a folder stand: running, finished, failed and why, interrupted",
    "sync": "upload offline runs to W&B, wherever they were moved, artifacts included",
    "bench": "write the recordings and excerpts by which any program can be scored",
    "score": "score audio that any program made of the bench's excerpts",
    "machine": "play a file through the virtual tape recorder",
    "measure": "the data sheet of a machine, a recording or a run",
    "capture": "write the test tape for a machine of your own",
    "align": "make training pairs of what came back from the machine",
    "active": "which settings of a machine's knobs to record next, round by round",
    "doctor": "check the installation; --fix mends torchaudio",
}


def main() -> None:
    """Runs the command named first."""
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        sys.argv = [f"revox {words[0]}", *words[1:]]
        how = getattr(usage, words[0].upper(), None)  # train has a help of its own
        if how and {"-h", "--help"} & set(words[1:]):
            print(f"usage: {how}")
            return
        importlib.import_module(f"revox_lightning.commands.{words[0]}").main()
        return
    listed = "usage: revox COMMAND ...\n" + "".join(f"  {name:10s}{text}\n" for name, text in COMMANDS.items())
    if not words or words[0] in ("-h", "--help", "help"):
        print(listed, end="")
        sys.exit(0 if words else 2)
    print(f"error: there is no command {words[0]!r}: choose one of {', '.join(COMMANDS)}.", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
