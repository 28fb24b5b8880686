"""`evaluate`: judge a saved model on labelled pictures, on one process or several."""

from pathlib import Path

import numpy as np

from relish.core.progress import Progress
from relish.core.runtime import accelerator_for
from relish.data.image import open_image
from relish.evaluation.figures import Figures, figures
from relish.export.reader import SUFFIX, OnnxClassifier
from relish.tasks.classifier import Classifier
from relish.tasks.labelled import pictures_of
from relish.tasks.predict import refuse_choice


def evaluate(
    run: str | Path,
    data: str | Path,
    split: str | None = None,
    *,
    workers: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Figures | None:
    """As `Classifier.evaluate`, from a path, which may be of an exported file; None in every process but the first.

    Raises:
        RunError, ModelError, DataError: as loading and evaluating do.
    """
    if Path(run).suffix == SUFFIX:
        refuse_choice(run, device)
        return evaluate_file(OnnxClassifier(run), data, split, progress=progress)
    accelerator = accelerator_for(device)
    voice = progress if progress is not None and accelerator.is_main_process else Progress()
    model = Classifier.load(run, device=device)
    found = model.evaluate(data, split, workers=workers, progress=voice)
    return found if accelerator.is_main_process else None


def evaluate_file(
    model: OnnxClassifier, data: str | Path, split: str | None = None, *, progress: Progress | None = None
) -> Figures:
    """How good an exported file is on labelled pictures.

    Raises:
        DataError: no such split, or a class that the model does not know.
        ImageError: a picture cannot be opened any more.
    """
    voice = progress or Progress()
    _, chosen, part = pictures_of(data, model.classes, split, voice)
    voice.say(f"data    {part}, {len(chosen)} pictures")
    said = []
    with voice.bar("evaluating", len(chosen)) as bar:
        for path in chosen.paths:
            _, logits = model.probabilities(np.asarray(open_image(path))[None])
            said.append(logits)
            bar.advance()
    return figures(np.concatenate(said), chosen.labels, model.classes, model.about.decision)
