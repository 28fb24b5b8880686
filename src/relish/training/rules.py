"""Rules of thumb: how the ladder's numbers follow from how many pictures there are.

In:   counts of pictures, seconds per picture.
Out:  numbers of epochs, folds, views.

Pure functions, each with where it comes from.
"""

import math

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
