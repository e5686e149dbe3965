"""How every command ends: 0 done, 2 the user must change something (one sentence), 1 a defect of ours (traceback)."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from revox_lightning.errors import UserError

log = logging.getLogger("revox_lightning")


class _Handler(logging.StreamHandler):
    """Writes to whatever stderr is now."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up_logging() -> None:
    """Notes of the package go to stderr, warnings marked as such; Lightning's chatter stays out."""
    if not log.handlers:
        handler = _Handler()
        handler.setFormatter(_Format())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return f"warning: {text}" if record.levelno == logging.WARNING else text


_DISK = (
    errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG,
    errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN,
)  # fmt: skip


@contextlib.contextmanager
def disk_faults() -> Iterator[None]:
    """Turns what the disk refuses - full, read-only, over quota, not permitted, gone - into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        place = f" {error.filename}" if error.filename else ""
        help_ = "make room, bring the disk back or choose another place, then go on"
        raise UserError(f"could not write{place}: {error.strerror}; {help_}.") from error


def guarded(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit code; what went wrong stands on stderr."""
    set_up_logging()
    try:
        result = command()
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {UserError(config_sentence(error))}", file=sys.stderr)  # however long the option was
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        traceback.print_exc()
        place = getattr(error, "run_folder", None)
        print(
            "error: this is a defect of revox_lightning" + (f"; the run is in {place}" if place else ""),
            file=sys.stderr,
        )
        return 1


def config_sentence(error: Exception) -> str:
    """One sentence for what Hydra or OmegaConf say in several lines.

    >>> config_sentence(HydraException("Could not find 'model/x'\\nAvailable options in 'model':\\n\\tgru\\n\\tlstm"))
    'there is no model=x: choose one of gru, lstm.'
    """
    text = str(error)
    missing = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if missing:
        listed = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)*)", text)
        known = f": choose one of {', '.join(listed[1].split())}." if listed else "."
        return f"there is no {missing[1]}={missing[2]}{known}"
    # The override as it was typed says more than the last part of the key.
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if unknown:
        return f"there is no option {unknown[1]}: --cfg job prints those there are (+{unknown[1]}=... adds a new one)."
    mandatory = re.search(r"Missing mandatory value: (\S+)", text)
    if mandatory:
        return f"{mandatory[1]} has no value: give {mandatory[1]}=... on the command line."
    first = next((line.strip().rstrip(".") for line in text.splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, OverrideParseException):
        return f"{first}: an option is written name=value; quote values with spaces or commas."
    return f"{first}."
