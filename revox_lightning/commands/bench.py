"""``revox bench FOLDER``: the recordings that any program may learn from, and the excerpts it is scored by."""

from __future__ import annotations

import sys
from pathlib import Path

from revox_lightning.commands import assemble, settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import BENCH as USAGE
from revox_lightning.data import bench
from revox_lightning.errors import UserError


def write(argv: list[str]) -> None:
    """Writes the bench into a new folder, or confirms the one that is there."""
    _, others, words = settings.arguments(argv, set())
    if others or len(words) != 1:
        raise UserError(f"bench needs one folder: {USAGE}.")
    folder = Path(words[0]).expanduser()
    if (folder / "bench.json").is_file():
        hashes = bench.read(folder)["files"]
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something else: choose a new folder.")
    else:
        machines = {name: assemble.build_machine(preset, []) for name, preset in bench.MACHINES.items()}
        hashes = bench.write(machines, folder)
    if hashes != bench.frozen():
        log.warning("this is not bench %s: the program or the processor renders its machines otherwise", bench.VERSION)
    else:
        print(f"{folder} is bench {bench.VERSION}, file by file.")
    first = next(iter(bench.MACHINES))
    print(f"learn from {folder}/MACHINE/train and val: python train.py data=recordings data.root={folder / first}")
    print(f"play {folder}/MACHINE/test/NAME-input.wav into FOLDER/MACHINE/NAME.wav")
    print(f"then: revox score FOLDER bench={folder}")


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(write)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:])))


if __name__ == "__main__":
    main()
