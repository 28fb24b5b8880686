"""Rules of thumb: how the ladder's numbers follow from how many pictures there are.

In:   counts of pictures, seconds per picture.
Out:  numbers of epochs, folds, views.

Pure functions, each with where it comes from.
"""

import math

STEPS = (60, 400)
"""Steps of fine-tuning, at least and at most, before the number of epochs is rounded."""
EPOCHS = (3, 12)
"""Epochs of fine-tuning, at least and at most."""
HELD_SHARE, HELD_ENOUGH = 0.2, 200
"""Share of the pictures that is held out to choose rungs by, and how many make one such set enough."""
FEW_FOLDS = 3
"""Folds where fewer than that could be held out: each picture is held out once."""
VIEWS, VIEWED = 5, 1000
"""Views that a probe learns from, where it has this many pictures or fewer; above, the plain one alone."""


def folds_for(pictures: int) -> int:
    """How many models are fine-tuned: one, beside a fifth of the pictures that is held out, or one a fold."""
    return 1 if pictures * HELD_SHARE >= HELD_ENOUGH else FEW_FOLDS


def views_for(pictures: int) -> int:
    """How many views of each picture a probe learns from."""
    return VIEWS if pictures <= VIEWED else 1


def epochs_for(pictures: int, batch_size: int) -> int:
    """Passes over so many pictures: few pictures are passed over more often, many less often."""
    steps = math.ceil(pictures / batch_size)
    wanted = max(EPOCHS[0], min(EPOCHS[1], STEPS[1] // steps))
    return max(wanted, math.ceil(STEPS[0] / steps)) if steps < STEPS[0] // EPOCHS[1] else wanted
