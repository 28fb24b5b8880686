"""One model of several: their average, which learns from all the pictures together where it is worse than they are.

In:   models that were fine-tuned from one origin, each on a part of the pictures.
Out:  the network, put together of them.
Not here: fine-tuning each (`fine_tuning.py`), choosing how far from the probe to go (`ladder.py`).

Models that stayed near their origin lie in one valley, and their average is better than each of them; those that moved
far do not, and it is worse. Which it is shows on the pictures that they all learned from in part. Some more
epochs over all of them then bring the average back down, to below its models: it learns what each of them lacked. It is
what federated averaging does after each of its rounds (McMahan et al. 2017, arXiv:1602.05629).
"""

from collections.abc import Sequence

import numpy as np
from accelerate import Accelerator

from relish.core.errors import Diverged
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.evaluation.inference import predict_split
from relish.evaluation.significance import tempered_losses
from relish.training.averaging import State, between, mean_of, state_of
from relish.training.fine_tuning import Fold, train_once
from relish.training.loop import Lesson
from relish.training.rules import COMPARED


def put_together(
    lesson: Lesson,
    folds: Sequence[Fold],
    share: float,
    probe: State,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> bool:
    """Put the model that the folds come to into the lesson's network; whether it may stand for them.

    Of one model there is nothing to put together: it is that model. What is made of several was judged by no picture
    that it has not learned from. So it is compared with them on pictures of which each of them has learned from a part:
    that shows models that do not go together, though not one that has learned these pictures by heart.

    Args:
        lesson: on all the pictures, for an average that is worse than its models.
        share: of the way from the probe to the fine-tuned model, as it was chosen.
        probe: the network with the probe that learned from all the pictures.

    Raises:
        Stopped, PictureError: as the loop does.
    """
    network = lesson.target.network
    if len(folds) == 1:
        network.load_state_dict(between(folds[0].probe, folds[0].tuned, share))
        return True
    places = np.unique(np.linspace(0, len(lesson.learn) - 1, COMPARED).round().astype(np.int64))
    some = lesson.learn.take(places)

    def loss(state: State) -> float:
        network.load_state_dict(state)
        said = predict_split(
            network, some, lesson.preprocessing, accelerator,
            workers=lesson.workers, progress=progress, title="comparing the average",
        )  # fmt: skip
        return float(tempered_losses(np.nan_to_num(said), some.labels).mean())

    theirs = float(np.mean([loss(between(fold.probe, fold.tuned, share)) for fold in folds]))
    average = mean_of([fold.tuned for fold in folds])
    if loss(between(probe, average, share)) <= theirs:
        return True
    progress.say(f"average worse than its models: it learns from all pictures, {_epochs(lesson)}")
    network.load_state_dict(average)
    try:
        train_once(lesson, folder.stage("fine-tuning-all"), folder, accelerator, progress)
    except Diverged:
        return False
    return loss(between(probe, state_of(network), share)) <= theirs


def _epochs(lesson: Lesson) -> str:
    return "1 epoch" if lesson.recipe.passes == 1 else f"{lesson.recipe.passes} epochs"
