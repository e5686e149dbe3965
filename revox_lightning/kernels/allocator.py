"""Memory that stays in the process: half of torch's time on a recurrent net goes into page faults otherwise."""

from __future__ import annotations

import ctypes
import sys

# mallopt(3): parameter numbers of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_tuned = False


def tune() -> bool:
    """Tells glibc to keep freed memory and to map nothing apart; True where that was done (or had been).

    Big tensors are then cut from memory that the process already has, instead of fresh pages that the system must
    clear. The process keeps its highest memory use to its end. Other C libraries are left alone.
    """
    global _tuned
    if _tuned or not sys.platform.startswith("linux"):
        return _tuned
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl has mallopt, too, but it does nothing
        settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
        _tuned = all(libc.mallopt(name, value) for name, value in settings)
    except (OSError, AttributeError):
        return False
    return _tuned
