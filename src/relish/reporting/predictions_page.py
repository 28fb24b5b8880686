"""A page to look through predictions, image by image: the surest mistakes, then an even sample.

Takes a split of a dataset and the probabilities of its images; writes one HTML file that needs nothing else.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.io import write_text
from relish.data.dataset import Dataset, Split
from relish.data.image import open_image
from relish.data.split import evenly_spaced
from relish.evaluation.metrics import predicted_class, score
from relish.reporting.page import embed, render


def write_predictions_page(
    path: Path,
    dataset: Dataset,
    split: Split,
    probabilities: npt.NDArray[np.floating[Any]],
    *,
    title: str,
    unknown: npt.NDArray[np.bool_] | None = None,
    mistakes: int = 12,
    sample: int = 24,
) -> None:
    """Write the page.

    Args:
        dataset: its class names, and how it names an image.
        split: the test images, with their true classes.
        probabilities: (N, K) floating point, in the order of the split.
        unknown: (N,) bool, which images are unlike anything the model learned from; None where nobody can say.
        mistakes: mistakes shown at most, those with the highest probability first.
        sample: images shown at most of the whole split, evenly spaced over it.

    Raises:
        DataError: the split is empty.
        ImageError: an image can no longer be opened.
        WriteFailed: no space or no permission.
    """
    predicted = predicted_class(probabilities)
    wrong = surest_mistakes(probabilities, split.labels)
    shown = evenly_spaced(len(split), sample)
    strange = np.zeros(len(split), dtype=np.bool_) if unknown is None else unknown

    def cards(positions: Iterable[int]) -> list[dict[str, Any]]:
        return [
            {**_card(dataset, split, probabilities[i], int(predicted[i]), i), "unknown": bool(strange[i])}
            for i in positions
        ]

    sections = [
        {"heading": "Mistakes", "text": _on_mistakes(len(wrong), mistakes), "cards": cards(wrong[:mistakes])},
        {"heading": "An even sample", "text": _on_sample(len(split), len(shown)), "cards": cards(shown)},
    ]
    top1 = score(probabilities, split.labels, dataset.classes).top1
    write_text(path, render("predictions.html", title=title, top1=top1, split_name="test", sections=sections))


def surest_mistakes(probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64]) -> list[int]:
    """Positions of the images whose predicted class is wrong, highest probability first.

    Args:
        probabilities: (N, K) floating point.
        labels: (N,) int64.
    """
    wrong = np.flatnonzero(predicted_class(probabilities) != labels)
    surest_first = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return [int(i) for i in wrong[surest_first]]


def _card(
    dataset: Dataset, split: Split, row: npt.NDArray[np.floating[Any]], predicted: int, position: int
) -> dict[str, Any]:
    path, truth = split.paths[position], int(split.labels[position])
    return {
        "name": dataset.label(path),
        "image": embed(open_image(path)),
        "predicted": dataset.classes[predicted],
        "predicted_probability": float(row[predicted]),
        "truth": dataset.classes[truth],
        "truth_probability": float(row[truth]),
        "right": predicted == truth,
    }


def _on_mistakes(wrong: int, most: int) -> str:
    if wrong == 0:
        return "None: every picture was given its true class."
    if wrong <= most:
        return "All of them, those it was surest of first. Some may be errors of the label."
    return f"The {most} of {wrong} that it was surest of. Some may be errors of the label."


def _on_sample(count: int, shown: int) -> str:
    if shown == count:
        return f"All {count} test pictures."
    return f"{shown} of {count} test pictures, evenly spaced over the split and picked by no one."
