"""The precision of a run: what its recipe says, or what a trial on this machine says; the same to its end.

In:   a lesson, ready to begin or to go on, and its run folder.
Out:  `f32` or `bf16`.

The outcome is written into the run folder before the first step: a run that is resumed, on another machine too, goes on
in the precision that it began in.
"""

import json

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.errors import RunError
from relish.core.io import write_json
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import to_device
from relish.data.loader import evaluation_batches
from relish.data.split import evenly_spaced
from relish.data.transforms import normalise
from relish.models.freeze import set_train_mode
from relish.models.precision import MEASURED_ON, PICTURES, Precision, Trial, trial
from relish.training.train import Lesson


def run_precision(lesson: Lesson, folder: RunFolder, accelerator: Accelerator, progress: Progress) -> Precision:
    """What the recipe asks for; for `auto`, the outcome of a trial, one for all processes and for all of the run.

    Raises:
        RunError: the run was begun, and which precision in cannot be read any more.
        ImageError: a picture cannot be opened any more.
    """
    if lesson.recipe.precision != "auto" or accelerator.device.type not in MEASURED_ON:
        return "f32"
    chosen: list[Precision] = ["f32"]
    if accelerator.is_main_process:
        chosen = [_noted(folder) if folder.precision.is_file() else _tried(lesson, folder, accelerator, progress)]
    if accelerator.num_processes > 1:
        broadcast_object_list(chosen)
    return chosen[0]


def _noted(folder: RunFolder) -> Precision:
    try:
        noted = json.loads(folder.precision.read_bytes())["precision"]
        return {"f32": "f32", "bf16": "bf16"}[noted]  # type: ignore[return-value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder.precision} does not say in which precision the run began.",
            hint='Write {"precision": "f32"} or {"precision": "bf16"} into it.',
        ) from error


def _tried(lesson: Lesson, folder: RunFolder, accelerator: Accelerator, progress: Progress) -> Precision:
    to_device(lesson.target.network, accelerator.device)
    set_train_mode(lesson.target.network, lesson.target, still_norms=lesson.recipe.batch_norm == "still")
    some = evenly_spaced(len(lesson.learn), min(PICTURES, lesson.recipe.batch_size))
    (batch,) = evaluation_batches(lesson.learn, lesson.preprocessing, [some])
    images = normalise(batch.images.to(accelerator.device), lesson.preprocessing)
    found: Trial = trial(lesson.target.network, images, training=True)
    write_json(folder.precision, found.as_json())
    progress.say(f"trial   {found.sentence()}")
    return found.precision
