"""What a climb does within its time: measured on this machine, planned once, kept in the run folder.

In:   how many pictures there are, how long one takes, how long there is.
Out:  a `Plan`.
Not here: measuring (`timing.py`) and doing it (`ladder.py`).

A plan is kept because it depends on the clock: a run that is resumed has to do what it began.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from relish.training.rules import COMPARED, epochs_for, joint_epochs_for, views_for

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
