"""How many pictures a network is asked about at once: as many as memory has room for.

In:   a network and one batch as it will see it.
Out:  a number from 1 to the usual batch; answers in parts of it, smaller ones where the device runs out after all.

What one picture takes is measured by asking about one, never guessed from a network's name.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relish.core.errors import Failed
from relish.core.runtime import free_memory
from relish.evaluation.predictions import BATCH_SIZE

SHARE = 0.5
"""Of the free memory, at most so much goes to a batch: others want some, and a measurement is no promise."""
SCRATCH = 3.0
"""On a processor, a pass takes at most so many times the largest module's input and output together.
Measured by `benchmarks/predict_scale.py --batch`."""

Ask = Callable[[Tensor], npt.NDArray[np.float32]]


def batch_that_fits(network: nn.Module, images: Tensor, ask: Ask) -> int:
    """The largest batch, up to `BATCH_SIZE`, that a network's answers have room for.

    Args:
        network: on the device of `images`.
        images: (B, 3, S, S), one or more of what it will be asked about.
        ask: one pass through it.
    """
    if images.device.type == "cuda":
        needed, free = _taken_on_cuda(images, ask), torch.cuda.mem_get_info(images.device)[0]
    else:
        needed, free = round(SCRATCH * largest_step(network, images[:1], ask)), free_memory()
    return max(1, min(BATCH_SIZE, int(SHARE * free) // max(needed, 1)))


def in_parts(images: Tensor, ask: Ask, size: int) -> tuple[npt.NDArray[np.float32], int]:
    """The answers for (B, 3, S, S) pictures, at most `size` at once, and the size that the device had room for.

    Raises:
        Failed: there is no room for one picture.
    """
    rows: list[npt.NDArray[np.float32]] = []
    done = 0
    while done < len(images):
        try:
            rows.append(ask(images[done : done + size]))
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise Failed(
                    f"{images.device}: too little memory for one picture.", hint="Try --device cpu."
                ) from error
            size //= 2
        else:
            done += size
    return np.concatenate(rows), size


def largest_step(network: nn.Module, image: Tensor, ask: Ask) -> int:
    """Bytes that go into and come out of the module that handles most, in one pass over (1, 3, S, S)."""
    largest = 0

    def look(_: nn.Module, given: Any, made: Any) -> None:
        nonlocal largest
        largest = max(largest, _bytes(given) + _bytes(made))

    handles = [module.register_forward_hook(look) for module in network.modules()]
    try:
        ask(image)
    finally:
        for handle in handles:
            handle.remove()
    return largest


def _taken_on_cuda(images: Tensor, ask: Ask) -> int:
    ask(images[:1])  # once before, for what is only loaded once
    before = torch.cuda.memory_allocated(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    ask(images[:1])
    return int(torch.cuda.max_memory_allocated(images.device)) - before


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.element_size() * value.numel()
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0
