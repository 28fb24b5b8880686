"""How long things take: an image with this network on this machine, and the time that a climb of the ladder has left.

Before training, the precision and the image size are tried too. The precision that a trial finds is written into the
run folder before the first step: a run that is resumed, on another machine too, computes in the precision that it began
in. Times are wall-clock, reading included: whatever else the machine does counts. A pass is compared with others of its
kind alone, because reading and batches differ from kind to kind.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch

from relish.core.context import Context, RunContext
from relish.core.errors import RecipeError, RunError
from relish.core.io import write_json
from relish.core.runtime import has_depthwise, in_smaller_parts, one_thread, raise_if_no_memory, to_device
from relish.core.workers import CHUNK, Workers
from relish.data.dataset import Split
from relish.data.loader import CPU, evaluation_batches, training_batches
from relish.data.split import evenly_spaced
from relish.data.transforms import Preprocessing, book_preprocessing, normalise
from relish.evaluation.features import Backbone
from relish.models.freeze import set_train_mode, smallest_batch
from relish.models.precision import BOTH, IMAGES, MEASURED_ON, PLAINLY, Computing, computing_in, trial
from relish.models.target import TargetModel
from relish.training.checkpoint import state_of
from relish.training.recipe import Recipe
from relish.training.train import TrainingSetup

SOLVED = 1000
"""Rows that one step of the probe's solver is timed on."""
STEPS_OF_A_PATH = 1000
"""Steps that a path of strengths takes in five folds; 400 to 1,200 were seen."""
FORWARD_BATCH, FEW = 32, 4
"""Images of a timed pass, and of a first one that shows whether so many are affordable."""
ROUNDS, SECONDS = 2, 1.0
"""Passes that are timed, and seconds that one may take: measuring is part of the budget, and reading an image of a
phone takes a tenth of a second."""
MOST_ROUNDS = 100
"""Passes at most, where they are so short that more are timed: of two of a millisecond each, one that another process
interrupts would count for a hundred."""
AGAIN = 1.0
"""Seconds that passes take where something is measured again, in the midst of a climb."""
ROUGHLY = 0.1
"""Seconds that short passes are repeated for where no budget hangs on it, and the plan is only told."""


def forward_seconds(
    backbone: Backbone,
    split: Split,
    preprocessing: Preprocessing,
    sides: Sequence[int],
    workers: Workers,
    *,
    most: float = SECONDS,
    lasting: float = SECONDS,
) -> dict[int, float]:
    """Seconds to read an image and pass it through the network, by the side of the network's square.

    Measured at the first side and at the last; what lies between is a straight line over the square's area, since
    reading an image takes the same time whatever becomes of it.

    Args:
        most: seconds that one pass may take.
        lasting: seconds that short passes are repeated for, here and below.
    """

    def measured(side: int) -> float:
        sized = book_preprocessing(side, preprocessing.mean, preprocessing.std, preprocessing.value_range)

        def passed(count: int) -> None:
            for batch in evaluation_batches(split, sized, _batches_of(split, count, FORWARD_BATCH), workers=workers):
                backbone(batch.images, sized)

        return _mean_seconds(_enough(split, FORWARD_BATCH, workers), passed, most, lasting, backbone.device)

    ends = sorted({sides[0], sides[-1]})
    seconds = [measured(side) for side in ends]
    return {side: float(np.interp(side**2, np.square(ends), seconds)) for side in sides}


def solving_seconds(width: int, classes: int, lasting: float = SECONDS) -> float:
    """Seconds for each image to choose a strength by cross-validation: so many steps over folds and strengths."""
    features, weight = torch.rand(SOLVED, width), torch.rand(width, classes)

    def stepped(count: int) -> None:
        some = features[:count]
        _ = (some @ weight).softmax(1).T @ some

    with one_thread():
        return STEPS_OF_A_PATH * _mean_seconds(SOLVED, stepped, lasting=lasting)


def step_seconds(context: Context, setup: TrainingSetup, lasting: float = SECONDS) -> float:
    """Seconds to read an image and train on it; the network is left as it was."""
    recipe, network, device = setup.recipe, setup.target.network, context.device
    before = state_of(network)
    to_device(network, device)
    set_train_mode(network, setup.target, still_norms=recipe.batch_norm == "still")

    def stepped(count: int) -> None:
        batches = training_batches(
            setup.train, setup.preprocessing, _batches_of(setup.train, count, recipe.batch_size), seed=0, epoch=0,
            smallest=recipe.smallest_crop, scaled=recipe.decoding == "scaled", workers=context.workers,
        )  # fmt: skip
        for batch in batches:
            with computing_in(setup.computing.precision, device):
                logits = network(normalise(batch.images.to(device), setup.preprocessing))
            torch.nn.functional.cross_entropy(logits.float(), batch.labels.to(device)).backward()  # type: ignore[no-untyped-call]
            network.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    most = _enough(setup.train, recipe.batch_size, context.workers)
    seconds = _mean_seconds(most, stepped, lasting=lasting, device=device)
    network.load_state_dict(before)
    return seconds


def _enough(split: Split, batch: int, workers: Workers) -> int:
    """Images of a timed pass: a batch, or so many batches that each worker has something to read."""
    return min(len(split), batch * max(1, CHUNK * workers.count // batch))


def _batches_of(split: Split, count: int, size: int) -> list[list[int]]:
    """So many images, spread over the split, in batches of about one size: some norms need two images and more."""
    return [part.tolist() for part in np.array_split(evenly_spaced(len(split), count), math.ceil(count / size))]


def _mean_seconds(
    most: int,
    work: Callable[[int], None],
    limit: float = SECONDS,
    lasting: float = SECONDS,
    device: torch.device = CPU,
) -> float:
    """Seconds per image of work on so many images, or on as many as there is time for; the first time warms up.

    The mean, not the least: beside other work the least is a moment's luck. On a GPU the first pass of each shape
    chooses kernels, and does not count.
    """

    def timed(count: int) -> float:
        began = time.perf_counter()
        work(count)
        return (time.perf_counter() - began) / count

    _, few = in_smaller_parts(work, min(FEW, most))
    first, count = in_smaller_parts(timed, max(few, min(most, int(limit / timed(few)))))
    seconds = [first] if device.type == "cpu" else [timed(count)]
    while len(seconds) < ROUNDS or (count * sum(seconds) < lasting and len(seconds) < MOST_ROUNDS):
        seconds.append(timed(count))
    return float(np.mean(seconds))


# ---- how a run computes ---------------------------------------------------------------------------------------------


def run_computing(run: RunContext, setup: TrainingSetup, images: int) -> Computing:
    """The outcome of a trial, one for all processes and for all of the run; without one, f32.

    One is made where the recipe leaves the precision open, and on a GPU where there are depthwise convolutions.

    Args:
        images: that will be trained on, each as often as it is.

    Raises:
        RunError: the run was begun, and how cannot be read any more.
        ImageError: an image cannot be opened any more.
    """
    to_device(setup.target.network, run.device)
    layouts = run.device.type == "cuda" and has_depthwise(setup.target.network)
    if run.device.type not in MEASURED_ON or not (setup.recipe.precision == "auto" or layouts):
        return PLAINLY
    return run.from_main(lambda: _kept(run) if run.folder.precision.is_file() else _tried(run, setup, images, layouts))


def _kept(run: RunContext) -> Computing:
    file = run.folder.precision
    try:
        found = json.loads(file.read_bytes())
        precision = {"f32": "f32", "bf16": "bf16"}[found["precision"]]
        return Computing(precision, found.get("compiled") is True)  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{file} does not say in which precision the run began.",
            hint='Write {"precision": "f32"} or {"precision": "bf16"} into it.',
        ) from error


def _tried(run: RunContext, setup: TrainingSetup, trained: int, layouts: bool) -> Computing:
    network, precisions = setup.target.network, BOTH if setup.recipe.precision == "auto" else BOTH[:1]
    set_train_mode(network, setup.target, still_norms=setup.recipe.batch_norm == "still")
    most = setup.recipe.batch_size if run.device.type == "cuda" else min(IMAGES, setup.recipe.batch_size)
    some = evenly_spaced(len(setup.train), most)
    (batch,) = evaluation_batches(setup.train, setup.preprocessing, [some], workers=run.workers)
    images = normalise(batch.images.to(run.device), setup.preprocessing)
    found, _ = in_smaller_parts(
        lambda count: trial(network, images[:count], trained=trained, precisions=precisions, layouts=layouts),
        len(images),
    )
    write_json(run.folder.precision, found.as_json())
    if len(precisions) > 1 or found.compiled:
        run.progress.say(f"trial   {found.sentence()}")
    return found.computing


# ---- whether a network takes what a recipe gives it -----------------------------------------------------------------


def check_network(target: TargetModel, recipe: Recipe, size: int, images: int) -> None:
    """Check that the network takes images of this size, and batches as small as it will meet: not in a run folder yet.

    Raises:
        RecipeError: it does not, or gives something else than logits; the hint names what it takes.
    """
    name = target.source.name
    try:
        smallest = _smallest_batch(target, recipe, size)
    except RecipeError:
        raise
    except Exception as error:  # a network of the user's own may raise anything
        raise_if_no_memory(error, f"for pictures of {size} pixels", "Free some, or take a smaller --image-size.")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"{name} does not take pictures of {size} × {size} pixels ({reason}).",
            hint=_other_size(target, recipe, size),
        ) from error
    if min(recipe.batch_size, images) < smallest:
        raise RecipeError(
            f"{name} normalises over a batch: of pictures of {size} × {size} pixels it needs {smallest} in each.",
            hint=f"Add --batch-size {smallest}, or more." if images >= smallest else "Learn from more pictures.",
        )


def _smallest_batch(target: TargetModel, recipe: Recipe, size: int) -> int:
    """How many images of this size a batch needs at least; 1 where no step is taken.

    Raises:
        RecipeError: the network gives something else than logits.
        Exception: whatever the network raises at images of this size.
    """
    with torch.inference_mode():
        logits = target.network.eval()(torch.zeros(1, 3, size, size))
    shape = tuple(getattr(logits, "shape", ()))
    if shape != (1, len(target.classes)):
        raise RecipeError(
            f"{target.source.name} gives {shape or type(logits).__name__}, not one logit for each of "
            f"{len(target.classes)} classes.",
            hint=f"Name its output layer with head=…; {', '.join(target.head_names)} was exchanged.",
        )
    if recipe.method == "probe" or recipe.epochs == 0:
        return 1
    return smallest_batch(target, size, still_norms=recipe.batch_norm == "still")


SIZE_STEP, LARGEST_TRIED = 32, 512
"""Pixels between the image sizes that are tried in place of one that a network does not take, and the largest."""


def _other_size(target: TargetModel, recipe: Recipe, asked: int) -> str:
    """Advice: the size nearest to what was asked for that the network takes, in training too."""
    own = target.source.data_config.input_size[1]
    sizes = {own, *range(SIZE_STEP, LARGEST_TRIED + 1, SIZE_STEP)} - {asked}
    for size in sorted(sizes, key=lambda size: (abs(size - asked), size != own)):
        with suppress(Exception):
            _smallest_batch(target, recipe, size)
            return f"Try --image-size {size}: it takes that."
    return "Choose another --source: it took none of the sizes that were tried."


# ---- the pace of now, and a budget ----------------------------------------------------------------------------------


RECENT = 3.0
"""Seconds over which a figure follows what passes take: long beside one step, short beside a stage."""
ENDING = 2.0
"""Seconds to save a model, draw its curves and load it again: a run of a dozen seconds took so much longer."""


@dataclass(kw_only=True)
class Pace:
    """How long an image takes now."""

    forward: float = 0.0
    """Seconds to read an image and pass it through the network, when that was measured last."""
    step: float = 0.0
    """Seconds to read an image and train on it: the newest."""
    load: float = 1.0
    """How many times as long a pass takes now as when `forward` was measured, 1 or more."""
    _fastest: dict[str, float] = field(default_factory=dict)
    """By kind of pass, the shortest time of an image since then."""

    def measured(self, forward: float) -> None:
        """`forward` is what an image takes now."""
        self.forward, self.load = forward, 1.0
        self._fastest.clear()

    def took(self, kind: str, images: int, seconds: float) -> None:
        """A pass of this kind over so many images has just run."""
        if not images:
            return
        each = max(seconds / images, 1e-9)
        fastest = min(each, self._fastest.get(kind, each / self.load))
        self._fastest[kind] = fastest
        self.load = max(1.0, _newer(self.load, each / fastest, seconds))

    def trained(self, images: int, seconds: float) -> None:
        """A training step has just run."""
        self.took("training", images, seconds)
        self.step = _newer(self.step, seconds / images, seconds)


def _newer(former: float, new: float, seconds: float) -> float:
    """A figure that follows the newest ones, by how long these were measured."""
    return former + (1 - math.exp(-seconds / RECENT)) * (new - former)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long the ladder may take."""

    seconds: float = math.inf
    """From `began` to the end, the final evaluation included."""
    began: float = 0.0
    """When the ladder began, by `time.monotonic`, as if it had run without a break."""
    evaluated: int = 0
    """Images of the final evaluation, which take their time too."""
    pace: Pace = field(default_factory=Pace)

    @property
    def limited(self) -> bool:
        """Whether there is an end to it."""
        return math.isfinite(self.seconds)

    @property
    def left(self) -> float:
        """Seconds that are left for training and the final evaluation."""
        return self.seconds - ENDING * self.pace.load - (time.monotonic() - self.began)

    def forwards(self, images: int) -> float:
        """Seconds to pass so many images through the network, at the pace of now."""
        return images * self.pace.forward * self.pace.load

    def fits(self, images: int, more: float = 0.0) -> bool:
        """Whether there is time to pass so many images through the network, for `more` seconds of other work, and for
        the final evaluation."""
        return not self.limited or self.forwards(images + self.evaluated) + more <= self.left

    def ending(self, after: float, trainings: int) -> Callable[[int, float], bool]:
        """Whether the next of so many trainings has to end, asked after each step with its images and seconds.

        Each has an equal share of what is left before the work that comes after them all. When steps take longer than
        before, that work will too.

        Args:
            after: seconds of that work at the pace of now, the final evaluation included.
        """
        began, load = time.monotonic(), self.pace.load

        def ended(images: int, seconds: float) -> bool:
            self.pace.trained(images, seconds)
            left, used = self.left - after * self.pace.load / load, time.monotonic() - began
            return used > (left + used) / trainings

        return ended
