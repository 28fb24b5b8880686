"""What to look at next: labels that are doubted, sure mistakes, near copies, odd images; and which images to label.

A suspicion has a key of contents and class, so that a decision about it holds wherever the image is moved to, and the
same suspicion under another class is a new one. Images that are set aside are compared with others, not predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from relish.checks.images import ImageSet
from relish.checks.label_issues import OutOfFold, off_topic, wrong_labels
from relish.checks.run_checks import NEIGHBOURS
from relish.core.runtime import rng_for
from relish.data.dataset import WHOLE, Dataset, Split
from relish.data.near_copies import exact_pairs, group_pairs, members, pairs_by_features
from relish.evaluation.features import Features, nearest_others, unit_vectors
from relish.teaching.learning import Learner
from relish.teaching.shelves import Image
from relish.teaching.solving import Solved

Kind = Literal["label", "mistake", "copy", "odd"]
RULE = "k-means++ among gradients of the output layer (BADGE, Ash et al. 2020, arXiv:1906.03671)"
"""How the most useful unlabelled images are found."""
FEW = 2
"""Images without which there is nothing to compare."""


@dataclass(frozen=True)
class Suggestion:
    """One image to look at, and why."""

    key: str
    kind: Kind
    image: Image
    label: str
    suggested: str | None = None
    probability: float | None = None
    other: Image | None = None


def suggestions(learner: Learner, solved: Solved) -> list[Suggestion]:
    """Everything that is suspected now, surest first within each kind."""
    framed = learner.now[0]
    known = [
        (image, name, sha256)
        for name, image in learner.library.content.labelled
        if (sha256 := learner.sha256(image)) in framed.rows
    ]
    if len(known) < FEW:
        return []
    images, features = _image_set(learner, known), framed.features([sha256 for _, _, sha256 in known])
    vectors = unit_vectors(features)
    nearest, cosines = nearest_others(vectors, min(NEIGHBOURS, len(known) - 1))
    pairs = np.concatenate([exact_pairs(images.facts), pairs_by_features(images.facts, vectors, nearest, cosines)])
    image_of = {image.path: (image, name, sha256) for image, name, sha256 in known}
    found = _doubted(images, solved, image_of)
    for group in members(group_pairs(len(known), pairs)):
        first, *rest = (known[place] for place in group)
        for image, name, sha256 in rest:
            key = "copy/" + "/".join(sorted([first[2], sha256]))
            found.append(Suggestion(key, "copy", image, name, None, None, first[0]))
    for finding in off_topic(images, cosines, np.zeros(0, dtype=np.int64)):
        for path in finding.paths:
            image, name, sha256 = image_of[path]
            found.append(Suggestion(f"odd/{sha256}", "odd", image, name))
    return found


def _image_set(learner: Learner, known: Sequence[tuple[Image, str, str]]) -> ImageSet:
    folder = learner.library.folder
    classes = tuple(sorted({name for _, name, _ in known}))
    labels = np.array([classes.index(name) for _, name, _ in known], dtype=np.int64)
    paths = tuple(folder / image.path for image, _, _ in known)
    return ImageSet(
        dataset=Dataset(folder.name, str(folder), folder, classes, {WHOLE: Split(paths, labels)}),
        paths=paths,
        names=tuple(image.path for image, _, _ in known),
        labels=labels,
        splits=np.zeros(len(known), dtype=np.int64),
        split_names=(WHOLE,),
        sha256=tuple(sha256 for _, _, sha256 in known),
        facts=learner.facts([sha256 for _, _, sha256 in known]),
    )


def _doubted(images: ImageSet, solved: Solved, image_of: Mapping[str, tuple[Image, str, str]]) -> list[Suggestion]:
    """Labels that confident learning doubts, then the other images that are predicted otherwise, surest first."""
    row_of = {sha256: row for row, sha256 in enumerate(solved.examples.contents)}
    names = solved.examples.classes
    positions = [p for p, sha256 in enumerate(images.sha256) if sha256 in row_of and _label(images, p) in names]
    rows = [row_of[images.sha256[p]] for p in positions]
    probabilities = np.zeros((len(rows), len(images.classes)), dtype=np.float32)
    probabilities[:, [images.classes.index(name) for name in names]] = solved.probabilities[rows]
    doubts = wrong_labels(images, OutOfFold(np.array(positions, dtype=np.int64), probabilities))
    found: list[tuple[str, Kind, str | None, float | None]] = [
        (one.paths[0], "label", one.suggested, one.confidence) for one in doubts
    ]
    doubted, highest = {path for path, *_ in found}, probabilities.max(1)
    for row in np.argsort(-highest, kind="stable"):
        path, likeliest = images.names[positions[row]], images.classes[int(probabilities[row].argmax())]
        if likeliest != _label(images, positions[row]) and path not in doubted:
            found.append((path, "mistake", likeliest, float(highest[row])))
    suspected = []
    for path, kind, said, probability in found:
        image, name, sha256 = image_of[path]
        key = f"label/{sha256}/{name}"
        suspected.append(Suggestion(key, kind, image, name, said, probability))
    return suspected


def _label(images: ImageSet, position: int) -> str:
    return images.classes[int(images.labels[position])]


def most_useful(
    features: Features, probabilities: npt.NDArray[np.float64] | None, count: int, seed: int = 0
) -> list[int]:
    """The positions of the images whose labels would teach most: uncertain ones, and not all of them alike.

    Each image stands for the gradient that its likeliest label would give the output layer, which is long where the
    probe is uncertain; k-means++ draws long ones that are far from one another. Without probabilities it draws images
    that are unlike one another.

    Args:
        features: (N, D) float32.
        probabilities: (N, K), or None.
        count: how many, at most.

    Source: Ash, Zhang, Krishnamurthy, Langford and Agarwal 2020, Deep Batch Active Learning by Diverse, Uncertain
        Gradient Lower Bounds, arXiv:1906.03671, algorithm 1.
    """
    if not len(features):
        return []
    slopes = np.ones((len(features), 1)) if probabilities is None else probabilities.copy()
    if probabilities is not None:
        slopes[np.arange(len(slopes)), slopes.argmax(1)] -= 1.0
    rows = features.astype(np.float64)
    squares = (slopes**2).sum(1) * (rows**2).sum(1)  # of each gradient's length, the product of slope and features
    rng, chosen = rng_for(seed, "most useful"), [int(squares.argmax())]
    distances = np.full(len(rows), np.inf)
    while len(chosen) < min(count, len(rows)):
        last = chosen[-1]
        products = (slopes @ slopes[last]) * (rows @ rows[last])
        distances = np.minimum(distances, np.maximum(squares + squares[last] - 2 * products, 0.0))
        distances[chosen] = 0.0
        total = distances.sum()
        if total <= 0:  # the others are copies of these
            rest = sorted(set(range(len(rows))) - set(chosen), key=lambda place: -squares[place])
            return [*chosen, *rest][:count]
        chosen.append(int(rng.choice(len(rows), p=distances / total)))
    return chosen
