"""One model of several: their average, which then learns from all the pictures together.

In:   models that were fine-tuned from one origin, each on a part of the pictures.
Out:  the network, put together of them.
Not here: fine-tuning each (`fine_tuning.py`), choosing how far from the probe to go (`ladder.py`).

Models that moved far from their origin no longer lie in one valley, and their average is worse than each of them. A
short pass over all the pictures, at a lower rate, brings it back down, to below them: it has learned from what each of
them lacked. It is what federated averaging does after each of its rounds (McMahan et al. 2017, arXiv:1602.05629).
"""

from collections.abc import Sequence

import numpy as np
from accelerate import Accelerator

from relish.core.errors import Diverged
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.evaluation.predictions import predict_split
from relish.evaluation.selection import tempered_losses
from relish.training.averaging import State, between, mean_of, state_of
from relish.training.fine_tuning import Fold, train_once
from relish.training.loop import Lesson


def put_together(
    lesson: Lesson,
    folds: Sequence[Fold],
    share: float,
    probe: State,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> bool:
    """Put the model that the folds come to into the lesson's network; whether it holds what they promise.

    Of one model there is nothing to put together: it is that model. What is made of several was judged by no picture
    that it has not learned from; so it must at least be no worse on all pictures than each of them was on those held
    out from it.

    Args:
        lesson: on all the pictures, for the average; with no epochs, it stays as it is.
        share: of the way from the probe to the fine-tuned model, as it was chosen.
        probe: the network with the probe that learned from all the pictures.

    Raises:
        Stopped, PictureError: as the loop does.
    """
    network = lesson.target.network
    if len(folds) == 1:
        network.load_state_dict(between(folds[0].probe, folds[0].tuned, share))
        return True
    average = mean_of([fold.tuned for fold in folds])
    network.load_state_dict(average)
    if lesson.recipe.passes:
        try:
            whole = train_once(lesson, folder.stage("fine-tuning-all"), folder, accelerator, progress)
        except Diverged:
            whole = False
        if not whole:
            network.load_state_dict(average)
    network.load_state_dict(between(probe, state_of(network), share))
    return _as_promised(lesson, folds, share, accelerator, progress)


def _as_promised(
    lesson: Lesson, folds: Sequence[Fold], share: float, accelerator: Accelerator, progress: Progress
) -> bool:
    said = predict_split(
        lesson.target.network, lesson.learn, lesson.preprocessing, accelerator,
        workers=lesson.workers, progress=progress, title="the model put together",
    )  # fmt: skip
    promised, labels = (
        np.concatenate([fold.said(share) for fold in folds]),
        np.concatenate([fold.out.labels for fold in folds]),
    )
    ours = tempered_losses(np.nan_to_num(said), lesson.learn.labels).mean()
    return bool(ours <= tempered_losses(np.nan_to_num(promised), labels).mean())
