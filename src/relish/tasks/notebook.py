"""How a classifier shows itself in a notebook: accuracy with its interval, classes, and three mistakes with thumbnails.

Everything is read from the run folder; of a model file alone, or where a file of the run cannot be read, the fragment
says what is left. Images are embedded, so a saved notebook shows them without the dataset.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relish.core.errors import RelishError
from relish.core.run_folder import RunFolder
from relish.evaluation.explain import most_wrong
from relish.evaluation.metrics import Proportion
from relish.reporting.page import Embedded, embed, render
from relish.tasks.run_results import RunImages, read_run_predictions

MISTAKES = 3
TRIED = 30
"""Mistakes looked at for images that still exist."""
THUMBNAIL_SIDE = 128
"""Longest side in pixels."""


@dataclass(frozen=True)
class _Mistake:
    image: Embedded
    path: str
    truth: str
    predicted: str


def classifier_html(path: Path | None, source: str, classes: tuple[str, ...], accuracy: str) -> str:
    """An HTML fragment about a classifier.

    Args:
        path: what it was loaded from: a run folder, a model file, or None.
        accuracy: in words, shown where no evaluation can be read; may be empty.
    """
    mistakes: list[_Mistake] = []
    if path is not None and path.is_dir() and (folder := RunFolder(path)).finished:
        try:
            evaluation = folder.read_evaluation()
            accuracy = _accuracy(evaluation)
            mistakes = _mistakes(folder, evaluation)
        except (RelishError, KeyError, TypeError):
            pass  # the fragment is shown unasked: what is damaged in a run is for `relish report` to say
    accuracy = accuracy or "not evaluated"
    return render("classifier.html", path=path, source=source, classes=classes, accuracy=accuracy, mistakes=mistakes)


def _accuracy(evaluation: dict[str, Any]) -> str:
    top1 = Proportion(evaluation["top1"]["correct"], evaluation["top1"]["count"])
    return f"{evaluation['split']} accuracy {top1.sentence()}"


def _mistakes(folder: RunFolder, evaluation: dict[str, Any]) -> list[_Mistake]:
    found, dataset = read_run_predictions(folder, evaluation), folder.read_dataset()
    images, rows = RunImages(dataset), dataset["splits"][evaluation["split"]]
    mistakes: list[_Mistake] = []
    for position in most_wrong(found.probabilities, found.predicted, found.labels, TRIED):
        path = rows[position]["path"]
        truth, predicted = found.classes[found.labels[position]], found.classes[found.predicted[position]]
        if (image := images.open(path)) is not None:
            mistakes.append(_Mistake(embed(image, THUMBNAIL_SIDE, 80), path, truth, predicted))
        if len(mistakes) == MISTAKES:
            break
    return mistakes
