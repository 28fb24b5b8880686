"""A page to look at what a classifier says, picture by picture: its surest mistakes, then an even sample.

In:   a split of a dataset and the probabilities of its pictures.
Out:  one HTML file that needs nothing else: pictures inside it, no script, no link, no network.

Class and file names come from strangers' folders. They are escaped by the template engine, kept from turning the
text around them by `<bdi>`, and the page forbids itself to load anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined

from relish.core.io import write_text
from relish.data.dataset import Dataset, Split
from relish.data.image import open_image
from relish.evaluation.metrics import Scores, said_class, score
from relish.reporting.embedding import embedded
from relish.reporting.page_template import PREDICTIONS


@dataclass(frozen=True)
class _Card:
    name: str
    picture: str
    """A `data:` address."""
    width: int
    height: int
    said: str
    said_percent: str
    said_share: float
    truth: str
    truth_percent: str
    truth_share: float
    right: bool


@dataclass(frozen=True)
class _Section:
    heading: str
    words: str
    cards: Sequence[_Card]


def write_predictions_page(
    path: Path,
    dataset: Dataset,
    split: Split,
    probabilities: npt.NDArray[np.floating[Any]],
    *,
    title: str,
    scored_on: str = "test",
    mistakes: int = 12,
    sample: int = 24,
) -> Scores:
    """Write the page.

    Args:
        path: the HTML file.
        dataset: says the class names and what to call a picture.
        split: the pictures that were judged, with their true classes.
        probabilities: (N, K) floating point, in the order of the split.
        title: heading of the page.
        scored_on: what the split is called.
        mistakes: how many wrong ones to show at most, those with the highest probability first.
        sample: how many to show at most of all pictures, evenly spaced over the split.

    Returns:
        The scores that the page states, of every picture in the split.

    Raises:
        DataError: the split is empty.
        ImageError: a picture cannot be opened any more.
        WriteFailed: no space or no permission.
    """
    scores = score(probabilities, split.labels, dataset.classes)
    said = said_class(probabilities)
    wrong = surest_mistakes(probabilities, split.labels)
    shown = evenly_spaced(len(split), sample)

    def cards(positions: Iterable[int]) -> list[_Card]:
        return [_card(dataset, split, probabilities[i], int(said[i]), i) for i in positions]

    sections = [
        _Section("Mistakes", _words_on_mistakes(len(wrong), mistakes), cards(wrong[:mistakes])),
        _Section("An even sample", _words_on_sample(len(split), len(shown), scored_on), cards(shown)),
    ]
    write_text(path, _render(title, scores, scored_on, sections))
    return scores


def surest_mistakes(probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64]) -> list[int]:
    """Positions of the pictures that are taken for another class, highest probability first.

    Args:
        probabilities: (N, K) floating point.
        labels: (N,) int64.
    """
    wrong = np.flatnonzero(said_class(probabilities) != labels)
    surest_first = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return [int(i) for i in wrong[surest_first]]


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the positions 0 to `count - 1`, evenly spaced: a sample that no one has picked."""
    shown = min(count, most)
    return [(2 * i + 1) * count // (2 * shown) for i in range(shown)]


def _card(dataset: Dataset, split: Split, row: npt.NDArray[np.floating[Any]], said: int, position: int) -> _Card:
    path, truth = split.paths[position], int(split.labels[position])
    picture = embedded(open_image(path))
    return _Card(
        name=dataset.label(path),
        picture=picture.address,
        width=picture.width,
        height=picture.height,
        said=dataset.classes[said],
        said_percent=percent(float(row[said])),
        said_share=float(row[said]),
        truth=dataset.classes[truth],
        truth_percent=percent(float(row[truth])),
        truth_share=float(row[truth]),
        right=said == truth,
    )


def percent(share: float) -> str:
    """Whole percent, except that neither certainty nor impossibility is claimed by rounding."""
    if 0.995 <= share < 1:
        return ">99%"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _words_on_mistakes(wrong: int, most: int) -> str:
    if wrong == 0:
        return "None: every picture was given its true class."
    if wrong <= most:
        return "All of them, those it was surest of first. Some may be errors of the label."
    return f"The {most} of {wrong} that it was surest of. Some may be errors of the label."


def _words_on_sample(count: int, shown: int, scored_on: str) -> str:
    if shown == count:
        return f"All {count} {scored_on} pictures."
    return f"{shown} of {count} {scored_on} pictures, evenly spaced over the split and picked by no one."


def _render(title: str, scores: Scores, scored_on: str, sections: Sequence[_Section]) -> str:
    # Autoescape is on for the whole page; nothing in the template is marked as safe.
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Rounded as `Proportion.sentence` rounds them, so that the page and the command line say the same.
    value, low, high = (100 * float(f"{share:.3f}") for share in (scores.top1.value, *scores.top1.interval))
    return engine.from_string(PREDICTIONS).render(
        title=title, top1=scores.top1, value=value, low=low, high=high, scored_on=scored_on, sections=sections
    )
