"""How long a picture takes on this machine with this network, measured on the first few.

In:   a target model and some of its pictures, of every class.
Out:  seconds per picture, reading it included.
Not here: what follows from them (`planning.py`).
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator

from relish.core.runtime import to_device
from relish.data.dataset import Split
from relish.data.loader import evaluation_batches, evenly, training_batches
from relish.data.transforms import Preprocessing, book_preprocessing, normalise
from relish.evaluation.features import Backbone
from relish.models.freeze import set_train_mode
from relish.models.precision import computing_in
from relish.training.averaging import state_of
from relish.training.loop import Lesson

SOLVED, STEPS_OF_A_PATH = 1000, 1000
"""Rows to time one step of a solver on; steps that a path of strengths takes in five folds (400 to 1,200 were seen)."""
FORWARD_BATCH, FEW, ROUNDS, SECONDS = 32, 4, 2, 1.0
"""Pictures at a time, and to begin with; how many times; how long one of these times may take: a telephone's pictures
take a tenth of a second each to read, and measuring is part of the budget."""


def forward_seconds(backbone: Backbone, split: Split, how: Preprocessing, sides: Sequence[int]) -> dict[int, float]:
    """Seconds to read a picture and pass it through the network, by the side of the network's square.

    Measured at the first side and at the last; what lies between is a straight line over the square's area, since
    reading a picture takes the same time whatever becomes of it.
    """

    def measured(side: int) -> float:
        sized = book_preprocessing(side, how.mean, how.std)

        def passed(count: int) -> None:
            for batch in evaluation_batches(split, sized, [evenly(len(split), count)]):
                backbone(batch.images, sized)

        return _fastest(min(FORWARD_BATCH, len(split)), passed)

    ends = sorted({sides[0], sides[-1]})
    seconds = [measured(side) for side in ends]
    return {side: float(np.interp(side**2, np.square(ends), seconds)) for side in sides}


def solving_seconds(width: int, classes: int) -> float:
    """Seconds for each picture to choose a strength by cross-validation: so many steps over folds and strengths."""
    features, weight = torch.rand(SOLVED, width), torch.rand(width, classes)

    def stepped(count: int) -> None:
        some = features[:count]
        _ = (some @ weight).softmax(1).T @ some

    return STEPS_OF_A_PATH * _fastest(SOLVED, stepped)


def step_seconds(lesson: Lesson, accelerator: Accelerator) -> float:
    """Seconds to read a picture and learn from it; the network is left as it was."""
    recipe, how, network = lesson.recipe, lesson.preprocessing, lesson.target.network
    before = state_of(network)
    to_device(network, accelerator.device)
    set_train_mode(network, lesson.target, still_norms=recipe.batch_norm == "still")

    def learned(count: int) -> None:
        batches = training_batches(
            lesson.learn, how, [evenly(len(lesson.learn), count)], seed=0, epoch=0,
            smallest=recipe.smallest_crop, scaled=recipe.decoding == "scaled",
        )  # fmt: skip
        for batch in batches:
            with computing_in(lesson.precision, accelerator.device):
                outputs = network(normalise(batch.images.to(accelerator.device), how))
            torch.nn.functional.cross_entropy(outputs.float(), batch.labels.to(accelerator.device)).backward()  # type: ignore[no-untyped-call]
            network.zero_grad(set_to_none=True)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    seconds = _fastest(min(recipe.batch_size, len(lesson.learn)), learned)
    network.load_state_dict(before)
    return seconds


def _fastest(most: int, work: Callable[[int], None]) -> float:
    """Seconds per picture of work on so many pictures, or on as many as there is time for; the first time warms up."""

    def timed(count: int) -> float:
        began = time.perf_counter()
        work(count)
        return (time.perf_counter() - began) / count

    few = min(FEW, most)
    work(few)
    count = max(few, min(most, int(SECONDS / timed(few))))
    return min(timed(count) for _ in range(ROUNDS))
