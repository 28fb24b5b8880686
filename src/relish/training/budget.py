"""What the ladder does in its time: rules of thumb, seconds per image measured on this machine, the plan of each stage.

A plan is kept in the run folder because it depends on the clock: a run that is resumed does what it began.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from relish.core.context import RunContext
from relish.evaluation.features import Backbone
from relish.models.freeze import half_frozen
from relish.training.checkpoint import kept_plan
from relish.training.measure import AGAIN, ROUGHLY, SECONDS, Budget, forward_seconds, solving_seconds, step_seconds
from relish.training.train import TrainingSetup

# ---- rules of thumb -------------------------------------------------------------------------------------------------

STEPS, EPOCHS = 150, (3, 10)
"""Steps of fine-tuning that are aimed at; the fewest and the most epochs. With 20 images, 60 epochs cost 5 to 10 points
of accuracy on held-out ones; with 800, 100 steps at twice the rate did no better than these."""
CLASS_STEPS = 10
"""Steps that are aimed at for each class, where that comes to more. With 40 drawn classes, 255 steps came to .898 of
the test images and 425 to .941 (docs/ladder.md)."""
HELD_SHARE = 0.2
"""Share of the images that is held out to choose rungs by, where one model is fine-tuned."""
FOLDS, FOLDED = 3, 3000
"""Models that are fine-tuned where there are this many images or fewer, each with another fold held out: three times
as many images to choose by, and their average is better than one of them."""
RATES, RATE_ALONE = (1e-3, 2e-4), 5e-4
"""Learning rates that the first model is fine-tuned at, and the rate where nothing is compared: a low rate is better on
photographs, a high one on scans and drawn images (docs/ladder.md)."""
COEFFICIENTS = (0.25, 0.5, 0.75, 1.0)
"""Mixing coefficients between the probe's weights (0) and the fine-tuned ones (1) that are compared."""
JOINT_SHARE = 0.5
"""Where the average of several models is worse than they are, it trains on all images for this share of their epochs
(docs/ladder.md has what it is worth)."""
COMPARED = 500
"""Images that the average and its models are compared on, at most."""
VIEWS, VIEWED = 5, 1000
"""Views that a probe is trained on, where there are this many images or fewer; above, the plain one alone."""
FRAMINGS = 4
"""Ways of framing that are compared."""
FRAMED, FRAMED_OF_CLASS = 1000, 5
"""Images that framings are compared on, at most; or so many of each class, where that is more: with fewer, a class
could not be held out in turn."""
OUTER_FOLDS = 5
"""Of the nested cross-validation that the figure comes from where images are few; every choice is made anew in each."""
SIZES = (224, 192, 160, 128, 96)
"""Image sizes that are tried where time is short, in pixels; multiples of 32, as networks like them."""
FEWEST = 20
"""Images of each class that are trained on where time is shortest."""
_PROBE_SHARE, _CHOICES_SHARE = 0.5, 0.7
"""Shares of a budget: for plain features and the final evaluation at most, and with framings and views at most."""
_WORTH = 0.75
"""Where not all images can be trained on at any size: the largest size that allows this share of the most."""


def folds_for(images: int) -> int:
    """How many models are fine-tuned: one, beside a fifth of the images that is held out, or one a fold."""
    return FOLDS if images <= FOLDED else 1


def candidate_rates(given: float | None, count: int) -> tuple[float, ...]:
    """The learning rates that the first model is fine-tuned at.

    Args:
        given: by the user, and then the only one.
        count: how many there is time for.
    """
    if given is not None:
        return (given,)
    return RATES if count > 1 else (RATE_ALONE,)


def rates_for(images: int) -> int:
    """How many rates are compared: with many images there are steps enough to get there, or back, from one."""
    return len(RATES) if images <= FOLDED else 1


def framed_on(images: int, classes: int) -> int:
    """How many of so many images framings are compared on."""
    return min(images, max(FRAMED, FRAMED_OF_CLASS * classes))


def epochs_for(images: int, batch_size: int, classes: int) -> int:
    """Epochs over so many images: more for few images and for many classes."""
    steps = max(STEPS, CLASS_STEPS * classes)
    return max(EPOCHS[0], min(EPOCHS[1], round(steps / math.ceil(images / batch_size))))


def joint_epochs_for(epochs: int) -> int:
    """Epochs over all images for the average of models that were fine-tuned for so many epochs each."""
    return max(1, round(JOINT_SHARE * epochs))


# ---- plans ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """What is done up to the probe."""

    image_size: int
    """Side of the network's square, in pixels."""
    images: int
    """How many are trained on."""
    framings: bool
    """Whether ways of framing are compared."""
    views: int
    """Views of each image that the probe is trained on."""
    seconds: float
    """How long it will take, the final evaluation included."""
    forward: float
    """Seconds to read an image and pass it through the network, as it was measured."""
    solving: float = 0.0
    """Seconds for each image to choose a strength by cross-validation, likewise."""


@dataclass(frozen=True, kw_only=True)
class FineTuningPlan:
    """What is done from the probe on."""

    folds: int
    """Models that are fine-tuned; 0: none."""
    epochs: int
    """Of each model."""
    rates: int
    """Learning rates that the first model is fine-tuned at."""
    half_still: bool = False
    """Whether half of the groups of layers are frozen, to save time, and not only a third."""
    seconds: float
    """How long it will take, the final evaluation included."""
    step: float = 0.0
    """Seconds to read an image and train on it, as it was measured."""


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """What is still to be trained, the next one first."""

    held: Sequence[float]
    """How many images are held out from each."""
    scored: int
    """How many of them, from the first on, are evaluated after every epoch."""
    models: int
    """That an average is made of in the end."""

    def seconds(self, epochs: int, *, images: int, evaluated: int, forward: float, step: float) -> tuple[float, float]:
        """Of these trainings, for so many epochs each, and of all that comes after them.

        Args:
            images: to train on, held-out ones included.
            evaluated: images of the final evaluation.
            forward, step: seconds to read an image and pass it through the network, or train on it.
        """
        # Each is evaluated at every coefficient after its last step, those that are evaluated after every epoch at all
        # but the last one; then comes what is made of them, which is compared with them.
        scored, joint = sum(self.held[: self.scored]), 0
        after = evaluated + sum(self.held) * len(COEFFICIENTS) - scored
        if self.models > 1:
            after += min(images, COMPARED) * (self.models + 2)
            joint = images * joint_epochs_for(epochs)
        during = epochs * (sum(images - out for out in self.held) * step + scored * forward)
        return during, after * forward + joint * step


def plan_probe(
    *,
    images: int,
    evaluated: int,
    classes: int,
    forward: Mapping[int, float],
    solving: float,
    budget: float,
    nested: bool = False,
) -> ProbePlan:
    """Everything, where there is time; else smaller images, then fewer of them, and fewer choices.

    Args:
        images: to train on.
        evaluated: images of the final evaluation.
        forward: seconds to read an image and pass it through the network, by the side of its square in pixels; the
            wanted side first and smaller ones after it.
        solving: seconds for each image to choose a strength by cross-validation.
        budget: seconds; infinite for none.
        nested: whether everything is chosen anew within outer folds, of all the images.
    """
    solving *= 1 + OUTER_FOLDS * nested
    # Where the final evaluation alone would use the budget up, training is not what has to suffer.
    share = budget * _PROBE_SHARE
    fitting = {side: max(share - each * evaluated, share / 2) / (each + solving) for side, each in forward.items()}
    fits = [side for side, count in fitting.items() if count >= images]
    # An image that takes its time to be read gains little by being shrunk.
    worth = [side for side, count in fitting.items() if count >= _WORTH * max(fitting.values())]
    side = (fits or worth)[0]
    each = forward[side]
    taken = images if nested else max(int(min(images, fitting[side])), min(images, FEWEST * classes))
    seconds = (each + solving) * taken + each * evaluated
    # Framings are compared on some of the images; the one that is kept has been computed for these by then.
    compared = ((FRAMINGS - 1) * each + FRAMINGS * solving) * framed_on(taken, classes)
    framings = seconds + compared <= _CHOICES_SHARE * budget
    seconds += compared if framings else 0.0
    views = VIEWS if taken <= VIEWED else 1
    viewed = (views - 1) * ((2 if nested and framings else 1) * each + 2 * solving) * taken  # folds may differ
    if seconds + viewed > _CHOICES_SHARE * budget:
        views, viewed = 1, 0.0
    return ProbePlan(
        image_size=side, images=taken, framings=framings, views=views, seconds=seconds + viewed, forward=each,
        solving=solving,
    )  # fmt: skip


def plan_fine_tuning(
    *,
    images: int,
    evaluated: int,
    classes: int,
    folds: int,
    held_alone: int,
    rates: int,
    batch_size: int,
    epochs: int | None,
    forward: float,
    step: float,
    half_step: float | None,
    left: float,
) -> FineTuningPlan:
    """As many models and epochs as are wanted, or as there is time for; before a model is omitted, rates are no longer
    compared, and before that half of the layers are frozen.

    Args:
        images: to train on and to choose by.
        evaluated: images of the final evaluation.
        folds: models wanted.
        held_alone: images that are held out where one model is fine-tuned.
        rates: learning rates that the first of them is to be fine-tuned at.
        epochs: asked for; None lets the rule decide.
        forward: seconds to read an image and pass it through the network.
        step: seconds to read an image and train on it.
        half_step: the same with half of the layers frozen; None where that is no choice.
        left: seconds of the budget; infinite for none.
    """
    steps = {False: step} if half_step is None else {False: step, True: half_step}
    best = FineTuningPlan(folds=0, epochs=0, rates=1, seconds=evaluated * forward)
    for models, tried, still in product(dict.fromkeys((folds, 1)), dict.fromkeys((rates, 1)), steps):
        held = images / models if models > 1 else held_alone
        wanted = epochs_for(round(images - held), batch_size, classes) if epochs is None else epochs
        trainings = Trainings(held=[held] * (models + tried - 1), scored=tried, models=models)
        seconds = partial(trainings.seconds, images=images, evaluated=evaluated, forward=forward, step=steps[still])
        affordable = affordable_epochs(wanted, left, seconds)
        if affordable:
            best = FineTuningPlan(
                folds=models, epochs=affordable, rates=tried, half_still=still, seconds=sum(seconds(affordable)),
                step=steps[still],
            )  # fmt: skip
        if affordable >= max(1, math.ceil(wanted / 2)):
            break
    return best


def affordable_epochs(most: int, left: float, seconds: Callable[[int], tuple[float, float]]) -> int:
    """The most epochs, `most` at most, that what is left suffices for; 0: none.

    Args:
        left: seconds.
        seconds: of so many epochs, and of what comes after them.
    """
    return bisect_right(range(1, most + 1), left, key=lambda epochs: sum(seconds(epochs)))


# ---- plans of a run: measured, said, and kept in its folder ---------------------------------------------------------


def planned_probe(run: RunContext, setup: TrainingSetup, budget: Budget) -> ProbePlan:
    """What this run does up to the probe."""
    classes = len(setup.target.classes)

    def made() -> ProbePlan:
        backbone = Backbone.of(setup.target, run.device)
        lasting = SECONDS if budget.limited else ROUGHLY  # what nothing hangs on but words takes a tenth
        sides = [setup.preprocessing.image_size]
        if budget.limited and setup.recipe.image_size is None:
            sides += [side for side in SIZES if side < sides[0] and backbone.accepts(side)]
        measured = forward_seconds(backbone, setup.train, setup.preprocessing, sides, run.workers, lasting=lasting)
        return plan_probe(
            images=len(setup.train), evaluated=budget.evaluated, classes=classes,
            forward={side: seconds / run.processes for side, seconds in measured.items()},
            solving=solving_seconds(backbone.width, classes, lasting), budget=budget.left, nested=setup.nested,
        )  # fmt: skip

    plan = kept_plan(run, "probe", ProbePlan, made)
    budget.pace.measured(plan.forward)
    fewer = f" of {len(setup.train)}" if plan.images < len(setup.train) else ""
    choices = ["framings compared"] * plan.framings + [f"{plan.views} views"] * (plan.views > 1)
    more = f", {', '.join(choices)}" if choices else ""
    run.progress.say(
        f"plan    probe: {plan.images}{fewer} pictures of {plan.image_size} px{more}; about {_told(plan.seconds)}"
    )
    if plan.seconds > budget.seconds:
        run.progress.warn(
            f"the budget of {_told(budget.seconds)} is too small for these pictures: judging and the smallest probe "
            f"take about {_told(plan.seconds)}."
        )
    return plan


def planned_fine_tuning(
    run: RunContext, setup: TrainingSetup, budget: Budget, *, folds: int, held_alone: int
) -> FineTuningPlan:
    """What this run does from the probe on.

    Args:
        setup: with all the images.
        folds: models that are wanted, each with another fold held out.
        held_alone: images that are held out where one model is fine-tuned.
    """
    recipe = setup.recipe

    def made() -> FineTuningPlan:
        measured_again(run, setup, budget)
        step = step_seconds(run, setup, SECONDS if budget.limited else ROUGHLY) / run.processes
        half = None
        if budget.limited and recipe.freeze == "early":
            with half_frozen(setup.target):
                half = step_seconds(run, setup) / run.processes
        return plan_fine_tuning(
            images=len(setup.train), evaluated=budget.evaluated, classes=len(setup.target.classes), folds=folds,
            held_alone=held_alone, rates=rates_for(len(setup.train)) if recipe.learning_rate is None else 1,
            batch_size=recipe.batch_size, epochs=recipe.epochs, forward=budget.forwards(1), step=step, half_step=half,
            left=budget.left,
        )  # fmt: skip

    plan = kept_plan(run, "fine-tuning", FineTuningPlan, made)
    budget.pace.step = plan.step
    if not plan.folds:
        run.progress.say("plan    fine-tuning: no time for it")
        return plan
    epochs = f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}"
    models = f"{plan.folds} models, {epochs} each" if plan.folds > 1 else epochs
    rates = [f"{rate:g}" for rate in candidate_rates(recipe.learning_rate, plan.rates)]
    first = ", the first" if plan.folds > 1 and len(rates) > 1 else ","
    still = ", half of the layers still" if plan.half_still else ""
    run.progress.say(
        f"plan    fine-tuning: {models}{first} at rate{'s' * (len(rates) > 1)} {' and '.join(rates)}{still}; "
        f"about {_told(plan.seconds)}"
    )
    return plan


def measured_again(run: RunContext, setup: TrainingSetup, budget: Budget) -> None:
    """The pace of now is measured, where there is a budget; the network has to give numbers."""
    if budget.limited:
        size, backbone = setup.preprocessing.image_size, Backbone.of(setup.target, run.device)
        found = forward_seconds(backbone, setup.train, setup.preprocessing, [size], run.workers, most=AGAIN)
        budget.pace.measured(found[size] / run.processes)


def _told(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
