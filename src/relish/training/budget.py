"""What fits into a run's time: rules of thumb, seconds per image measured on this machine, and the plan of each stage.

A plan is kept in the run folder because it depends on the clock: a run that is resumed has to do what it began.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.errors import RunError
from relish.core.io import write_json
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import to_device
from relish.data.dataset import Split
from relish.data.loader import evaluation_batches, training_batches
from relish.data.split import evenly_spaced, stratified_folds, usable_folds
from relish.data.transforms import Preprocessing, book_preprocessing, normalise
from relish.evaluation.features import Backbone
from relish.models.freeze import freeze, half_frozen, set_train_mode
from relish.models.precision import computing_in
from relish.models.target import TargetModel
from relish.training.checkpoint import state_of
from relish.training.recipe import Recipe
from relish.training.train import Lesson

FRAMINGS = 4
"""Ways of framing that are compared."""
FRAMING_PICTURES, FRAMED_OF_CLASS = 1000, 5
"""Pictures that framings are compared on, at most; or so many of each class, where that is more: with fewer a class
could not be held out in turn."""
SIZES = (224, 192, 160, 128, 96)
"""Sides that pictures may be shrunk to where time is short, in pixels; multiples of 32 as networks like them."""
_PROBE_SHARE, _CHOICES_SHARE = 0.5, 0.7
"""Shares of a budget: for plain features and the final judging at most, and with framings and views at most."""
_WORTH = 0.75
"""Where not all pictures can be learned from at any size: the largest size that allows this share of the most."""
FEWEST = 20
"""Pictures of each class that are learned from where time is shortest."""


@dataclass(frozen=True, kw_only=True)
class LowerPlan:
    """What is done up to the probe."""

    image_size: int
    """Side of the network's square, in pixels."""
    pictures: int
    """How many are learned from."""
    framings: bool
    """Whether ways of framing are compared."""
    views: int
    """Views of each picture that the probe learns from."""
    seconds: float
    """How long it will take, the final judging included."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class UpperPlan:
    """What is done from the probe on."""

    folds: int
    """Models that are fine-tuned; 0: none."""
    epochs: int
    """Passes over the pictures, each model."""
    seconds: float
    """How long it will take, the final judging included."""
    rates: int
    """Learning rates that the first model is fine-tuned at."""
    half_still: bool = False
    """Whether half of the groups of layers stand still, to save time, and not only a third."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def framed_on(pictures: int, classes: int) -> int:
    """How many of so many pictures framings are compared on."""
    return min(pictures, max(FRAMING_PICTURES, FRAMED_OF_CLASS * classes))


def plan_probe(
    *,
    pictures: int,
    judged: int,
    classes: int,
    forward: Mapping[int, float],
    solving: float,
    budget: float,
) -> LowerPlan:
    """Everything, where there is time; else smaller pictures, then fewer of them, and fewer choices.

    Args:
        pictures: to learn from.
        judged: pictures of the final split.
        forward: seconds to read a picture and pass it through the network, by the side of its square in pixels; the
            wanted side first and smaller ones after it.
        solving: seconds for each picture to choose a strength by cross-validation.
        budget: seconds; infinite for none.
    """
    # Where judging alone would take the budget up, it is not the learning that has to suffer.
    share = budget * _PROBE_SHARE
    room = {side: max(share - each * judged, share / 2) / (each + solving) for side, each in forward.items()}
    fits = [side for side, fitting in room.items() if fitting >= pictures]
    # A picture that takes its time to be read gains little by being shrunk.
    worth = [side for side, fitting in room.items() if fitting >= _WORTH * max(room.values())]
    side = (fits or worth)[0]
    each = forward[side]
    taken = max(int(min(pictures, room[side])), min(pictures, FEWEST * classes))
    seconds = (each + solving) * taken + each * judged
    # Framings are compared on some of the pictures; the one that is kept has been computed for these by then.
    compared = ((FRAMINGS - 1) * each + FRAMINGS * solving) * framed_on(taken, classes)
    framings = seconds + compared <= _CHOICES_SHARE * budget
    seconds += compared if framings else 0.0
    views = views_for(taken)
    viewed = (views - 1) * (each + 2 * solving) * taken
    if seconds + viewed > _CHOICES_SHARE * budget:
        views, viewed = 1, 0.0
    return LowerPlan(image_size=side, pictures=taken, framings=framings, views=views, seconds=seconds + viewed)


def plan_fine_tuning(
    *,
    pictures: int,
    judged: int,
    classes: int,
    folds: int,
    held_alone: int,
    rates: int,
    batch_size: int,
    epochs: int | None,
    shares: int,
    forward: float,
    step: float,
    half_step: float | None,
    left: float,
) -> UpperPlan:
    """As many models and epochs as are wanted, or as there is time for; before a model is left out, rates are no more
    compared, and before that half of the layers stand still.

    Args:
        pictures: to learn from and to choose by.
        judged: pictures of the final split.
        folds: models wanted.
        held_alone: pictures that are held out where one model is fine-tuned.
        rates: learning rates that the first of them is to be fine-tuned at.
        epochs: asked for; None lets the rule decide.
        shares: averages that are tried on the pictures held out.
        forward: seconds to read a picture and pass it through the network.
        step: seconds to learn from a picture.
        half_step: the same with half of the layers still; None where that is no choice.
        left: seconds of the budget; infinite for none.
    """
    steps = {False: step} if half_step is None else {False: step, True: half_step}
    best = UpperPlan(folds=0, epochs=0, rates=1, seconds=judged * forward)
    for models, tried, still in product(dict.fromkeys((folds, 1)), dict.fromkeys((rates, 1)), steps):
        held = pictures / models if models > 1 else held_alone
        learned = pictures - held
        wanted = epochs_for(round(learned), batch_size, classes) if epochs is None else epochs
        # Each model is scored at every share; several are compared with their average, and with what becomes of it.
        compared = (models + 2) * min(pictures, COMPARED) if models > 1 else 0
        trained = models + tried - 1
        fixed = forward * (trained * held * shares + judged + compared)
        each = trained * (learned * steps[still] + held * forward)
        joint = pictures * steps[still] if models > 1 else 0.0
        seconds = [fixed + each * count + joint_epochs_for(count) * joint for count in range(1, wanted + 1)]
        affordable = sum(one <= left for one in seconds)
        if affordable:
            best = UpperPlan(
                folds=models, epochs=affordable, rates=tried, seconds=seconds[affordable - 1], half_still=still
            )
        if affordable >= max(1, math.ceil(wanted / 2)):
            break
    return best


ENDING = 2.0
"""Seconds to save a model, draw its curves and load it again: a run of a dozen seconds took so much longer."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""How far from the probe to the fine-tuned model: averages that are tried."""


@dataclass(frozen=True)
class Climb:
    """What a run climbs with."""

    target: TargetModel
    recipe: Recipe
    learn: Split
    contents: Mapping[Path, str]
    """SHA-256 of each picture's file."""
    held: frozenset[Path]
    """Pictures of `learn` that rungs are chosen by, where the dataset or the user says so; else the ladder decides."""
    preprocessing: Preprocessing
    seed: int
    judged: int
    """Pictures of the final split, which take their time too."""
    workers: int = 0
    budget: float = math.inf
    """Seconds from `began` to the end, judging included."""
    target_accuracy: float | None = None
    """On held-out pictures; the first rung that reaches it is the last."""
    began: float = 0.0
    """When the climb began, by `time.monotonic`."""

    @property
    def left(self) -> float:
        """Seconds of the budget that are left for learning and judging."""
        return self.budget - ENDING - (time.monotonic() - self.began)


def held_out(job: Climb, learn: Split, models: int) -> list[npt.NDArray[np.bool_]]:
    """The pictures held out from each of so many models, or of fewer where classes are too small for that many.

    Args:
        learn: N pictures.
        models: none, one, or several, each of which is judged by pictures of its own.

    Returns:
        (N,) bool for each. Where there are pictures that rungs are to be chosen by, those, of one model.
    """
    if not models:
        return []
    own = np.array([path in job.held for path in learn.paths])
    if own.any() and not own.all():
        return [own]
    contents = [job.contents[path] for path in learn.paths]
    count = usable_folds(learn.labels, contents, models if models > 1 else round(1 / HELD_SHARE))
    fold_of = stratified_folds(learn.labels, contents, count, job.seed)
    return [fold_of == number for number in range(min(count, models))]


class Plans:
    """The two plans of a climb, read back where the run is resumed."""

    def __init__(self, job: Climb, folder: RunFolder, accelerator: Accelerator, progress: Progress) -> None:
        self.job, self.accelerator, self.progress = job, accelerator, progress
        self.file, self.stages = folder.path / "plan.json", folder.stages
        self.kept = _read(self.file)

    def lower(self) -> LowerPlan:
        """What is done up to the probe."""
        job = self.job

        def made() -> dict[str, Any]:
            backbone = Backbone(job.target, self.accelerator.device)
            sizes = self._sizes(backbone)
            measured = forward_seconds(backbone, job.learn, job.preprocessing, sizes)
            forward = {side: seconds / self.accelerator.num_processes for side, seconds in measured.items()}
            classes = len(job.target.classes)
            plan = plan_probe(
                pictures=len(job.learn), judged=job.judged, classes=classes, forward=forward,
                solving=solving_seconds(backbone.width, classes), budget=job.left,
            )  # fmt: skip
            return {**plan.as_dict(), "forward": forward[plan.image_size]}

        found = self._agreed("probe", made, {"forward", *_fields_of(LowerPlan)})
        self.forward = found.pop("forward")
        plan = LowerPlan(**found)
        fewer = f" of {len(job.learn)}" if plan.pictures < len(job.learn) else ""
        choices = ["framings compared"] * plan.framings + [f"{plan.views} views"] * (plan.views > 1)
        more = f", {', '.join(choices)}" if choices else ""
        self.progress.say(
            f"plan    probe: {plan.pictures}{fewer} pictures of {plan.image_size} px{more}; about {_told(plan.seconds)}"
        )
        if plan.seconds > job.budget:
            self.progress.warn(
                f"the budget of {_told(job.budget)} is too small for these pictures: judging and the smallest probe "
                f"take about {_told(plan.seconds)}."
            )
        return plan

    def upper(self, lesson: Lesson) -> UpperPlan:
        """What is done from the probe on, with all the pictures of this lesson."""
        job = self.job

        def made() -> dict[str, Any]:
            step = step_seconds(lesson, self.accelerator) / self.accelerator.num_processes
            half = None
            if math.isfinite(job.budget) and job.recipe.freeze == "early":
                with half_frozen(job.target):
                    half = step_seconds(lesson, self.accelerator) / self.accelerator.num_processes
            count = len(lesson.learn)
            (alone,) = held_out(job, lesson.learn, 1)
            plan = plan_fine_tuning(
                pictures=count, judged=job.judged, classes=len(job.target.classes),
                folds=len(held_out(job, lesson.learn, folds_for(count))), held_alone=int(alone.sum()),
                rates=rates_for(count), batch_size=job.recipe.batch_size, epochs=job.recipe.epochs,
                shares=len(SHARES) + 1, forward=self.forward, step=step, half_step=half, left=job.left,
            )  # fmt: skip
            return {**plan.as_dict(), "step": half if plan.half_still else step}

        found = self._agreed("fine-tuning", made, {"step", *_fields_of(UpperPlan)})
        self.step = found.pop("step")
        plan = UpperPlan(**found)
        if plan.half_still:
            freeze(job.target, "half")
        if plan.folds:
            epochs = f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}"
            models = f"{plan.folds} models, {epochs} each" if plan.folds > 1 else epochs
            first = "the first " if plan.folds > 1 else ""
            rates = f", {first}at {plan.rates} rates" if plan.rates > 1 else ""
            still = ", half of the layers still" if plan.half_still else ""
            self.progress.say(f"plan    fine-tuning: {models}{rates}{still}; about {_told(plan.seconds)}")
        else:
            self.progress.say("plan    fine-tuning: no time for it")
        return plan

    def _sizes(self, backbone: Backbone) -> list[int]:
        """Sides that the network takes: the wanted one, and the smaller ones where the user has not asked for it."""
        wanted = self.job.preprocessing.image_size
        if self.job.recipe.image_size is not None or not math.isfinite(self.job.budget):
            return [wanted]
        return [wanted, *(side for side in SIZES if side < wanted and backbone.accepts(side))]

    def _agreed(self, name: str, made: Callable[[], dict[str, Any]], keys: set[str]) -> dict[str, Any]:
        """The plan kept under this name, or one made and kept now: the first process's, in all of them.

        What was trained by a plan that is no more, or was another version's, is trained anew.
        """
        plan: list[dict[str, Any]] = [{}]
        if self.accelerator.is_main_process:
            if self.kept.get(name, {}).keys() != keys:
                if name == "probe":
                    self.kept = {}  # what comes after it rests on it
                shutil.rmtree(self.stages, ignore_errors=True)
                self.kept[name] = made()
            plan = [self.kept[name]]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(plan)
        self.kept[name] = plan[0]
        if self.accelerator.is_main_process:
            write_json(self.file, self.kept)
        return dict(plan[0])


def _fields_of(plan: type[LowerPlan] | type[UpperPlan]) -> set[str]:
    """The names of a plan's values."""
    return {field.name for field in fields(plan)}


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{file} cannot be read ({error}).", hint="Delete it, and the run is planned afresh.") from error


def _told(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


STEPS, EPOCHS = 150, (3, 10)
"""Steps of fine-tuning that are aimed at, and epochs at least and at most. With 20 pictures, 60 epochs cost 5 to 10
points of accuracy on held-out ones; with 800, 100 steps at twice the rate did no better than these."""
CLASS_STEPS = 10
"""Steps that are aimed at for each class, where that comes to more. With 40 drawn classes, 255 steps came to .898 of
the test pictures and 425 to .941 (docs/ladder.md)."""
HELD_SHARE = 0.2
"""Share of the pictures that is held out to choose rungs by, where one model is fine-tuned."""
FOLDS, FOLDED = 3, 3000
"""Models that are fine-tuned where there are this many pictures or fewer, each with another part held out: three times
as many judge, and what is made of them is better than one of them."""
RATES, RATE_ALONE = (1.0, 0.2), 0.5
"""Shares of the recipe's rate that the first model is fine-tuned at, and the share where there is no comparing: a low
rate is better on photographs, a high one on scans and drawn pictures (docs/ladder.md)."""
JOINT_SHARE = 0.5
"""Where the average of several models is worse than they are, it passes over all pictures for this share of their
epochs (docs/ladder.md has what it is worth)."""
COMPARED = 500
"""Pictures that the average and its models are compared on, at most."""
VIEWS, VIEWED = 5, 1000
"""Views that a probe learns from, where it has this many pictures or fewer; above, the plain one alone."""


def folds_for(pictures: int) -> int:
    """How many models are fine-tuned: one, beside a fifth of the pictures that is held out, or one a fold."""
    return FOLDS if pictures <= FOLDED else 1


def rates_for(pictures: int) -> int:
    """How many rates are tried: with many pictures there are steps enough to get there, or back, from one."""
    return len(RATES) if pictures <= FOLDED else 1


def rate_shares(count: int) -> tuple[float, ...]:
    """Which shares of the recipe's rate are tried where so many are."""
    return RATES if count > 1 else (RATE_ALONE,)


def views_for(pictures: int) -> int:
    """How many views of each picture a probe learns from."""
    return VIEWS if pictures <= VIEWED else 1


def epochs_for(pictures: int, batch_size: int, classes: int) -> int:
    """Passes over so many pictures: few pictures, and those of many classes, are passed over more often."""
    steps = max(STEPS, CLASS_STEPS * classes)
    return max(EPOCHS[0], min(EPOCHS[1], round(steps / math.ceil(pictures / batch_size))))


def joint_epochs_for(epochs: int) -> int:
    """Passes over all pictures by the average of models that were fine-tuned for so many epochs each."""
    return max(1, round(JOINT_SHARE * epochs))


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
            for batch in evaluation_batches(split, sized, [evenly_spaced(len(split), count)]):
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
            lesson.learn, how, [evenly_spaced(len(lesson.learn), count)], seed=0, epoch=0,
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
