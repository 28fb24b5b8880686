"""What a network says of every picture of a split.

In:   a network, a split, the preprocessing, and the processes that share the work.
Out:  (N, K) float32 logits or probabilities in the order of the split, the same in every process.
Not here: the temperature that a saved model may have (`decision.py`).

The batches are cut before they are dealt out, so that a picture meets the same neighbours however many processes
there are, and results are put in place by position: what pads one process's share can never be counted.
"""

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from relish.core.progress import Progress
from relish.core.runtime import to_device
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
