"""The precision of a run: what its recipe says, or what a trial on this machine says; the same to its end.

The outcome is written into the run folder before the first step: a run that is resumed, on another machine too,
computes in the precision that it began in.
"""

import json

from relish.core.context import RunContext
from relish.core.errors import RunError
from relish.core.io import write_json
from relish.core.runtime import to_device
from relish.data.loader import evaluation_batches
from relish.data.split import evenly_spaced
from relish.data.transforms import normalise
from relish.models.freeze import set_train_mode
from relish.models.precision import IMAGES, MEASURED_ON, Precision, trial
from relish.training.train import TrainingSetup


def run_precision(run: RunContext, setup: TrainingSetup) -> Precision:
    """What the recipe asks for; for `auto`, the outcome of a trial, one for all processes and for all of the run.

    Raises:
        RunError: the run was begun, and its precision cannot be read any more.
        ImageError: an image cannot be opened any more.
    """
    if setup.recipe.precision != "auto" or run.device.type not in MEASURED_ON:
        return "f32"
    return run.from_main(lambda: _kept(run) if run.folder.precision.is_file() else _tried(run, setup))


def _kept(run: RunContext) -> Precision:
    file = run.folder.precision
    try:
        return {"f32": "f32", "bf16": "bf16"}[json.loads(file.read_bytes())["precision"]]  # type: ignore[return-value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} does not say in which precision the run began.",
            hint='Write {"precision": "f32"} or {"precision": "bf16"} into it.',
        ) from error


def _tried(run: RunContext, setup: TrainingSetup) -> Precision:
    network = setup.target.network
    to_device(network, run.device)
    set_train_mode(network, setup.target, still_norms=setup.recipe.batch_norm == "still")
    some = evenly_spaced(len(setup.train), min(IMAGES, setup.recipe.batch_size))
    (batch,) = evaluation_batches(setup.train, setup.preprocessing, [some])
    found = trial(network, normalise(batch.images.to(run.device), setup.preprocessing), training=True)
    write_json(run.folder.precision, found.as_json())
    run.progress.say(f"trial   {found.sentence()}")
    return found.precision
