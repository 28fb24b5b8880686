"""How long a picture takes on this machine with this network, measured on the first few.

In:   a target model and some of its pictures.
Out:  seconds per picture, reading it included.
Not here: what follows from them (`planning.py`).
"""

import time

import torch
from accelerate import Accelerator

from relish.core.devices import place
from relish.data.batches import evaluation_batches, training_batches
from relish.data.dataset import Split
from relish.data.transforms import Preprocessing, normalise
from relish.evaluation.features import Backbone
from relish.models.freezing import set_train_mode
from relish.models.precision import computing_in
from relish.training.averaging import state_of
from relish.training.loop import Lesson

SOLVED, STEPS_OF_A_PATH = 1000, 1000
"""Rows to time one step of a solver on; steps that a path of strengths takes in five folds (400 to 1,200 were seen)."""
FORWARD_BATCH, ROUNDS = 32, 2
"""Pictures at a time, and how many times; the fastest counts, since the first one also warms up."""


def forward_seconds(backbone: Backbone, split: Split, how: Preprocessing) -> float:
    """Seconds to read a picture and pass it through the network."""
    some = list(range(min(FORWARD_BATCH, len(split))))
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for batch in evaluation_batches(split, how, [some]):
            backbone(batch.images, how)
        times.append((time.perf_counter() - began) / len(some))
    return min(times)


def solving_seconds(width: int, classes: int) -> float:
    """Seconds for each picture to choose a strength by cross-validation: so many steps over folds and strengths."""
    features, weight = torch.rand(SOLVED, width), torch.rand(width, classes)
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        scores = features @ weight
        _ = scores.softmax(1).T @ features
        times.append((time.perf_counter() - began) / SOLVED)
    return STEPS_OF_A_PATH * min(times)


def step_seconds(lesson: Lesson, accelerator: Accelerator) -> float:
    """Seconds to read a picture and learn from it; the network is left as it was."""
    recipe, how, network = lesson.recipe, lesson.preprocessing, lesson.target.network
    some = list(range(min(recipe.batch_size, len(lesson.learn))))
    before = state_of(network)
    place(network, accelerator.device)
    set_train_mode(network, lesson.target, still_norms=recipe.batch_norm == "still")
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        batches = training_batches(
            lesson.learn, how, [some], seed=0, epoch=0,
            smallest=recipe.smallest_crop, scaled=recipe.decoding == "scaled",
        )  # fmt: skip
        for batch in batches:
            with computing_in(lesson.precision, accelerator.device):
                outputs = network(normalise(batch.images.to(accelerator.device), how))
            torch.nn.functional.cross_entropy(outputs.float(), batch.labels.to(accelerator.device)).backward()  # type: ignore[no-untyped-call]
            network.zero_grad(set_to_none=True)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - began) / len(some))
    network.load_state_dict(before)
    return min(times)
