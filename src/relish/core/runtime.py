"""Where the arithmetic runs: Accelerate finds the device and the other processes.

In:   `auto`, `cpu`, `cuda` or `mps`.
Out:  an `Accelerator`; full precision, since a recipe that wants less says so itself.
"""

import platform
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import nn

from relish.core.errors import BadInput

DEVICES = ("auto", "cpu", "cuda", "mps")


def accelerator_for(device: str = "auto") -> Accelerator:
    """An `Accelerator` on this kind of device, alone or as one process of several.

    Raises:
        BadInput: the name is none of `DEVICES`, or this machine has no such device.
    """
    if device not in DEVICES:
        raise BadInput(f'--device: there is no "{device}".', hint=f"One of: {', '.join(DEVICES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda: this machine, or this build of PyTorch, has no CUDA device.", hint="Try: auto.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise BadInput("--device mps: this machine has no Metal device.", hint="Try: auto.")
    on_cpu = device == "cpu"
    # Accelerate keeps one state a process; it is made anew only where another device is asked for than it has.
    if PartialState._shared_state and (PartialState().device.type == "cpu") != on_cpu and _has_accelerator():
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=on_cpu, mixed_precision="no")


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def place(network: nn.Module, device: torch.device | str) -> None:
    """Move a network to a device, its convolutions in the layout they are fastest in; the values stay the same."""
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
