"""`evaluate`: judge a saved model on labelled pictures, on one process or several."""

from pathlib import Path

from relish.core.devices import accelerator_for
from relish.core.progress import Progress
from relish.evaluation.figures import Figures
from relish.tasks.classifier import Classifier


def evaluate(
    run: str | Path,
    data: str | Path,
    split: str | None = None,
    *,
    workers: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Figures | None:
    """As `Classifier.evaluate`, from a path; None in every process but the first.

    Raises:
        RunError, ModelError, DataError: as loading and evaluating do.
    """
    accelerator = accelerator_for(device)
    voice = progress if progress is not None and accelerator.is_main_process else Progress()
    model = Classifier.load(run, device=device)
    found = model.evaluate(data, split, workers=workers, progress=voice)
    return found if accelerator.is_main_process else None
