"""How long an image takes on this machine with this network, measured on the first few; reading it included."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from relish.core.context import Context
from relish.core.runtime import to_device
from relish.data.dataset import Split
from relish.data.loader import evaluation_batches, training_batches
from relish.data.split import evenly_spaced
from relish.data.transforms import Preprocessing, book_preprocessing, normalise
from relish.evaluation.features import Backbone
from relish.models.freeze import set_train_mode
from relish.models.precision import computing_in
from relish.training.checkpoint import state_of
from relish.training.train import TrainingSetup

SOLVED, STEPS_OF_A_PATH = 1000, 1000
"""Rows to time one step of a solver on; steps that a path of strengths takes in five folds (400 to 1,200 were seen)."""
FORWARD_BATCH, FEW, ROUNDS, SECONDS = 32, 4, 2, 1.0
"""Images at a time, and to begin with; how many times; how long one of these times may take: a telephone's images take
a tenth of a second each to read, and measuring is part of the budget."""


def forward_seconds(
    backbone: Backbone, split: Split, preprocessing: Preprocessing, sides: Sequence[int]
) -> dict[int, float]:
    """Seconds to read an image and pass it through the network, by the side of the network's square.

    Measured at the first side and at the last; what lies between is a straight line over the square's area, since
    reading an image takes the same time whatever becomes of it.
    """

    def measured(side: int) -> float:
        sized = book_preprocessing(side, preprocessing.mean, preprocessing.std)

        def passed(count: int) -> None:
            for batch in evaluation_batches(split, sized, [evenly_spaced(len(split), count)]):
                backbone(batch.images, sized)

        return _fastest(min(FORWARD_BATCH, len(split)), passed)

    ends = sorted({sides[0], sides[-1]})
    seconds = [measured(side) for side in ends]
    return {side: float(np.interp(side**2, np.square(ends), seconds)) for side in sides}


def solving_seconds(width: int, classes: int) -> float:
    """Seconds for each image to choose a strength by cross-validation: so many steps over folds and strengths."""
    features, weight = torch.rand(SOLVED, width), torch.rand(width, classes)

    def stepped(count: int) -> None:
        some = features[:count]
        _ = (some @ weight).softmax(1).T @ some

    return STEPS_OF_A_PATH * _fastest(SOLVED, stepped)


def step_seconds(context: Context, setup: TrainingSetup) -> float:
    """Seconds to read an image and train on it; the network is left as it was."""
    recipe, network, device = setup.recipe, setup.target.network, context.device
    before = state_of(network)
    to_device(network, device)
    set_train_mode(network, setup.target, still_norms=recipe.batch_norm == "still")

    def stepped(count: int) -> None:
        batches = training_batches(
            setup.train, setup.preprocessing, [evenly_spaced(len(setup.train), count)], seed=0, epoch=0,
            smallest=recipe.smallest_crop, scaled=recipe.decoding == "scaled",
        )  # fmt: skip
        for batch in batches:
            with computing_in(setup.precision, device):
                logits = network(normalise(batch.images.to(device), setup.preprocessing))
            torch.nn.functional.cross_entropy(logits.float(), batch.labels.to(device)).backward()  # type: ignore[no-untyped-call]
            network.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    seconds = _fastest(min(recipe.batch_size, len(setup.train)), stepped)
    network.load_state_dict(before)
    return seconds


def _fastest(most: int, work: Callable[[int], None]) -> float:
    """Seconds per image of work on so many images, or on as many as there is time for; the first time warms up."""

    def timed(count: int) -> float:
        began = time.perf_counter()
        work(count)
        return (time.perf_counter() - began) / count

    few = min(FEW, most)
    work(few)
    count = max(few, min(most, int(SECONDS / timed(few))))
    return min(timed(count) for _ in range(ROUNDS))
