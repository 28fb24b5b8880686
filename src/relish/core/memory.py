"""Keep freed memory, instead of handing it to the kernel and faulting it in again at every step.

glibc maps each large buffer afresh and unmaps it when freed; a training step frees and takes back hundreds of
megabytes, and every page is zeroed and faulted in again. Holding on to it changes no arithmetic. Only glibc knows
these options; elsewhere nothing happens. (mallopt(3))
"""

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

_CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""What a container may take and has taken, in versions 2 and 1 of Linux's control groups."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; True where it agreed. Call before the first large allocation."""
    libc = _glibc()
    if libc is None:
        return False
    settings = [(_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20)]
    return all(libc.mallopt(option, value) == 1 for option, value in settings)


def give_memory_back() -> None:
    """Return what is free to the kernel, between two phases of a job."""
    gc.collect()
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def free_memory() -> int:
    """Bytes that this process could still take without the machine, or its own container, running out.

    Only Linux is asked; elsewhere there is no saying, and the answer is the largest number.
    """
    free = [sys.maxsize]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    for limit, used in _CONTAINER:
        with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(min(free), 0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None
