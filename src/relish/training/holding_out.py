"""Which pictures are held out from each model that is fine-tuned.

In:   a climb, the pictures it learns from, how many models there are to be.
Out:  a mask of the pictures for each.
Not here: how folds are dealt (`data/folds.py`), fine-tuning (`tuning.py`).
"""

import numpy as np
import numpy.typing as npt

from relish.data.dataset import Split
from relish.data.split import stratified_folds, usable_folds
from relish.training.probing import Climb
from relish.training.rules import HELD_SHARE


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
