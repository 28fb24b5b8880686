"""What a process runs with: device, memory, processor cores, random numbers, elapsed time.

Every random number of a run is a function of (seed, purpose, numbers such as epoch and index), never of earlier draws,
so a resumed run draws the same ones and worker processes share no stream. The generator is Philox, counter-based: one
key, one stream (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

import ctypes
import gc
import hashlib
import json
import os
import platform
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from relish.core.errors import BadInput, WriteFailed
from relish.core.io import write_json

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn

DEVICES = ("auto", "cpu", "cuda", "mps")


def accelerator_for(device: str = "auto") -> "Accelerator":
    """An `Accelerator` on this kind of device, alone or as one process of several.

    Raises:
        BadInput: the name is none of `DEVICES`, or this machine has no such device.
    """
    # Late: an exported model is read where there is no torch, and its seeds and cores are this module's too.
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    if device not in DEVICES:
        raise BadInput(f'--device: there is no "{device}".', hint=f"One of: {', '.join(DEVICES)}.")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        what = "machine, or this build of PyTorch, has no CUDA" if device == "cuda" else "machine has no Metal"
        raise BadInput(f"--device {device}: this {what} device.", hint="Try: auto.")
    on_cpu = device == "cpu"
    # Accelerate has one state per process; it is made anew only where another device is asked for.
    if PartialState._shared_state and (PartialState().device.type == "cpu") != on_cpu and any(available.values()):
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=on_cpu, mixed_precision="no")


def to_device(network: "nn.Module", device: "torch.device | str") -> None:
    """Move a network to a device, in the memory layout in which convolutions are fastest; no value changes."""
    import torch

    network.to(device)
    network.to(memory_format=torch.channels_last)


def processor_name() -> str:
    """The processor as its maker calls it, for figures that mean nothing without it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---- memory ---------------------------------------------------------------------------------------------------------


_CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Limit and use of a container's memory, in versions 2 and 1 of Linux's control groups."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory; True where it does. Call before the first large allocation.

    glibc maps each large buffer afresh and unmaps it when it is freed. A training step frees and takes back hundreds of
    megabytes, whose pages are then zeroed and faulted in again at every step. Keeping them changes no arithmetic. Only
    glibc has these options (mallopt(3)); elsewhere nothing happens.
    """
    libc = _glibc()
    if libc is None:
        return False
    settings = [(_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20)]
    return all(libc.mallopt(option, value) == 1 for option, value in settings)


def give_memory_back() -> None:
    """Return freed memory to the kernel, between two phases of a job."""
    gc.collect()
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def free_memory() -> int:
    """Bytes that this process can still allocate before the machine, or its container, runs out.

    Known on Linux only; elsewhere the answer is `sys.maxsize`.
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


# ---- processor cores ------------------------------------------------------------------------------------------------


def usable_cores() -> int:
    """Processor cores this process may use, 1 or more: its affinity where the system has one, else the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- random numbers -------------------------------------------------------------------------------------------------


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose, such as `derive_seed(0, "head")` or `derive_seed(0, "order", epoch)`."""
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng_for(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A NumPy generator for one purpose; the same arguments give the same draws on every computer."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, purpose, *numbers)))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within `with`, the global generators of Python, NumPy and torch start from a seed; then their state is restored.

    Only for users' code: relish draws from generators of its own.
    """
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


# ---- elapsed time ---------------------------------------------------------------------------------------------------


_SECONDS_BETWEEN_WRITES = 5.0
"""A kill loses at most this much of the count, in seconds."""


def elapsed_before(file: Path) -> float:
    """Seconds that earlier processes of a job took together; 0 where its file is missing or damaged."""
    try:
        return max(0.0, float(json.loads(file.read_bytes())["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


@contextmanager
def keep_elapsed(file: Path, began: float) -> Iterator[None]:
    """Within `with`, write the seconds since `began` (time.monotonic) to the file, every few seconds and at the end."""
    end = threading.Event()

    def write() -> None:
        ended = False
        while not ended:
            ended = end.wait(_SECONDS_BETWEEN_WRITES)
            try:
                write_json(file, {"seconds": time.monotonic() - began})
            except WriteFailed:
                return  # the job itself reports a disk that it cannot write to

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        end.set()
        writer.join()
