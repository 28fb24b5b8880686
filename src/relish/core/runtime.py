"""What a process runs with: device, memory, processor cores, random numbers, signals, elapsed time.

Every random number of a run is a function of (seed, purpose, numbers such as epoch and index), never of earlier draws,
so a resumed run draws the same ones and worker processes share no stream. The generator is Philox, counter-based: one
key, one stream (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

import ctypes
import errno
import gc
import hashlib
import json
import os
import platform
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from relish.core.errors import BadInput, Interruption, RecipeError, RelishError, TooLittleMemory, WriteFailed
from relish.core.io import write_json

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import Accelerator
    from torch import nn

DEVICES = ("auto", "cpu", "cuda", "mps")
T = TypeVar("T")


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
    # Accelerate has one state per process, in two parts; it is made anew only where another device is asked for.
    parts = (PartialState._shared_state, AcceleratorState._shared_state)
    known = [part["device"] for part in parts if "device" in part]
    if any((one.type == "cpu") != on_cpu for one in known) and any(available.values()):
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=on_cpu, mixed_precision="no")


def to_device(network: "nn.Module", device: "torch.device | str") -> None:
    """Move a network to a device, in the memory layout in which it is fastest; no value changes.

    That is channels last, but for depthwise convolutions on a GPU: cuDNN compiles their kernels anew for each shape of
    a batch, 2 to 17 s for EfficientNet-Lite0 on an H200. Channels first they need nothing compiled, and a long training
    takes up to twice as long: see `models.precision.trial`, which changes the layout. So a network that is on a GPU
    already stays as it is.
    """
    import torch

    there, kinds = torch.device(device), {one.device.type for one in network.parameters()}
    if there.type == "cuda" and kinds == {"cuda"}:
        return
    network.to(there)
    if there.type != "cuda" or not has_depthwise(network):
        network.to(memory_format=torch.channels_last)
        return
    for tensor in network.parameters():
        # Anew: a depthwise weight that was channels last counts as contiguous, and is taken for channels last still.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def has_depthwise(network: "nn.Module") -> bool:
    """Whether it has convolutions that take each channel by itself."""
    import torch

    convolutions = (one for one in network.modules() if isinstance(one, torch.nn.Conv2d))
    return any(one.groups == one.in_channels > 1 for one in convolutions)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within it, where wanted, a GPU computes the same bits each time; call it before anything is computed there.

    Source: PyTorch's notes on reproducibility. cuBLAS needs a workspace of a fixed size for that, which it reads once.

    Raises:
        RecipeError: PyTorch has only a faster way for something.
    """
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        what, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise RecipeError(f"{what} cannot be computed alike each time.", hint="Omit --deterministic.") from error
    finally:
        torch.use_deterministic_algorithms(before)


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
    glibc has these options (mallopt(3)); elsewhere nothing happens, nor below a limit of `ulimit -v`: what is kept
    counts there, in pieces too small to be used.
    """
    libc = _glibc()
    if libc is None or _address_space_left() < sys.maxsize:
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
    """Bytes that this process can still allocate before the machine, its container, or its own limit runs out.

    Known on Linux only; elsewhere the answer is `sys.maxsize`.
    """
    free = [_address_space_left()]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    for limit, used in _CONTAINER:
        with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(min(free), 0)


def _address_space_left() -> int:
    """Bytes below the limit of `ulimit -v`, where there is one."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # late: Windows has none

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return limit - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    return sys.maxsize


_NO_MEMORY = (
    "out of memory", "not enough memory", "allocate memory", "failed to allocate", "alloc_failed", "bad_alloc",
    "bad allocation", "could not create a memory object", "can't start new thread", "failed to map segment",
)  # fmt: skip
"""In the errors of torch, its libraries, ONNX Runtime and the system's loader of libraries, where they lack memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory lacked, on a device or on the processor; each library says so in its own way."""
    if isinstance(error, MemoryError | TooLittleMemory):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RelishError) or not isinstance(error, Exception):
        return False
    words = str(error).lower()
    return any(one in words for one in _NO_MEMORY)


def raise_if_no_memory(error: BaseException, purpose: str, hint: str = "Free some memory, then again.") -> None:
    """Nothing, where the error is another one.

    Raises:
        TooLittleMemory: memory lacked for the purpose, such as "to load model.safetensors".
    """
    if is_out_of_memory(error):
        raise TooLittleMemory(f"too little memory {purpose}.", hint=hint) from None


def in_smaller_parts(work: Callable[[int], T], size: int, smallest: int = 1) -> tuple[T, int]:
    """What `work(size)` returns, and the size: halved each time that memory lacks, down to the smallest."""
    while True:
        try:
            return work(size), size
        except Exception as error:
            if size <= smallest or not is_out_of_memory(error):
                raise
        size = max(smallest, size // 2)  # out of the block, whose error keeps what was allocated
        give_memory_back()


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None


# ---- processor cores ------------------------------------------------------------------------------------------------


def usable_cores() -> int:
    """Processor cores this process may use, 1 or more: its affinity where the system has one, else the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Within `with`, torch computes in one thread. Entered once for many steps: each change makes threads anew.

    One at a time: of two at once, the second would put back the one thread that it found.
    """
    import torch

    with _ONE_THREAD:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


_ONE_THREAD = threading.RLock()


# ---- random numbers -------------------------------------------------------------------------------------------------


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose, such as `derive_seed(0, "head")` or `derive_seed(0, "order", epoch)`."""
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng_for(seed: int, purpose: str, *numbers: int) -> "np.random.Generator":
    """A NumPy generator for one purpose; the same arguments give the same draws on every computer."""
    import numpy as np  # late: the command line takes signals from this module, and answers --help at once

    return np.random.Generator(np.random.Philox(key=derive_seed(seed, purpose, *numbers)))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within `with`, the global generators of Python, NumPy and torch start from a seed; then their state is restored.

    Only for users' code: relish draws from generators of its own.
    """
    import numpy as np
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


# ---- signals --------------------------------------------------------------------------------------------------------


STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the system's or a scheduler's wish, a terminal that was closed."""
AGAIN_SECONDS = 1.0
"""Ctrl-C again after so long ends at once; before, it is the same wish: `make` and others pass theirs on."""


class StopFlag:
    """Within `with`, true once a stop was asked for; each signal that asks for it comes to this object alone."""

    def __init__(self) -> None:
        self.number = 0
        """Of the signal; 0 as long as none came."""
        self._raises = False
        self._since = 0.0
        self._former: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.number != 0

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            # nohup has a closed terminal ignored.
            wanted = [n for n in STOPPING if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
            self._former = {number: signal.signal(number, self._ask) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
            outer = getattr(former, "__self__", None)
            if self and isinstance(outer, StopFlag):  # which may hear the same wish once more
                outer.number, outer._since = self.number, self._since

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within `with`, a signal raises `Interruption`, since nothing has to be finished first."""
        self._raises = True
        try:
            if self:
                raise Interruption(self.number)
            yield
        finally:
            self._raises = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        first, now = not self, time.monotonic()
        if first:
            self.number, self._since = number, now
        if (first and self._raises) or (number == signal.SIGINT and now - self._since > AGAIN_SECONDS):
            raise Interruption(number)


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
        writer.join(_SECONDS_BETWEEN_WRITES)  # a disk may hang
