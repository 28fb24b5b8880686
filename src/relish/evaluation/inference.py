"""Logits and probabilities of a network for every image of a split, in batches that fit in memory.

The batches are cut before they are dealt out, so that an image is computed beside the same others however many
processes there are, and results are put in place by position: padding of one process's part is never counted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from relish.core.errors import Failed
from relish.core.progress import Progress
from relish.core.runtime import free_memory, to_device
from relish.data.dataset import Split
from relish.data.loader import evaluation_batches
from relish.data.transforms import Preprocessing, normalise
from relish.models.precision import Precision, computing_in

BATCH_SIZE = 64
"""Pictures in a batch of evaluation and prediction."""


def split_logits(
    network: nn.Module,
    split: Split,
    how: Preprocessing,
    accelerator: Accelerator,
    *,
    workers: int = 0,
    progress: Progress | None = None,
    title: str = "evaluating",
) -> npt.NDArray[np.float32]:
    """Logits for every picture of a split.

    Args:
        network: takes (B, 3, S, S) float32, gives (B, K) logits; left in eval mode, on the accelerator's device.

    Returns:
        (N, K) float32, in the order of the split.

    Raises:
        ImageError: a picture cannot be opened any more.
    """
    network.eval()
    to_device(network, accelerator.device)
    batches = [list(range(i, min(i + BATCH_SIZE, len(split)))) for i in range(0, len(split), BATCH_SIZE)]
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    with torch.inference_mode(), (progress or Progress()).bar(title, len(split)) as bar:
        for batch in evaluation_batches(split, how, mine, workers=workers):
            found.append((batch.positions.numpy(), batch_logits(network, batch.images.to(accelerator.device), how)))
            bar.advance(len(batch.labels) * accelerator.num_processes)
    if accelerator.num_processes > 1:
        found = gather_object(found)
    if not found:
        return np.zeros((0, 0), dtype=np.float32)
    result = np.full((len(split), found[0][1].shape[1]), np.nan, dtype=np.float32)
    for positions, rows in found:
        result[positions] = rows
    return result


def predict_split(
    network: nn.Module,
    split: Split,
    how: Preprocessing,
    accelerator: Accelerator,
    *,
    workers: int = 0,
    progress: Progress | None = None,
    title: str = "evaluating",
) -> npt.NDArray[np.float32]:
    """As `split_logits`, but the network's own probabilities, at temperature 1: rows sum to 1."""
    return softmax(split_logits(network, split, how, accelerator, workers=workers, progress=progress, title=title))


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, K) logits to float32 probabilities, at temperature 1."""
    return torch.from_numpy(logits).softmax(1).numpy()


def batch_logits(
    network: nn.Module, images: torch.Tensor, how: Preprocessing, precision: Precision = "f32"
) -> npt.NDArray[np.float32]:
    """(B, 3, S, S) uint8 pictures to (B, K) float32 logits, by one pass through the network."""
    with torch.inference_mode(), computing_in(precision, images.device):
        logits: torch.Tensor = network(normalise(images, how))
        return logits.float().cpu().numpy()


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
