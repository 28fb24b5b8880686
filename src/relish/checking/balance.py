"""How many pictures each class has.

In:   a collection.
Out:  `imbalance` and `too-few` findings.
"""

import numpy as np
import numpy.typing as npt

from relish.checking.collection import Collection
from relish.data.dataset import TEST, TRAIN, VALIDATION, WHOLE, first_few
from relish.data.findings import Finding

UNEVEN, VERY_UNEVEN = 3.0, 10.0
"""Pictures of the largest class over those of the smallest, from which to say so, and to warn."""
FEW = 20
"""Pictures to learn from, under which a class can hardly be learned, and one picture is a twentieth of it."""
FEW_TO_JUDGE = 100
"""Pictures of a split to score on, under which a 95% interval is more than 12 points wide at an accuracy of 0.9."""


def balance(pictures: Collection) -> list[Finding]:
    """Classes much larger than others, classes with few pictures to learn from, splits with few to score on."""
    learned = [name for name in (TRAIN, WHOLE) if name in pictures.split_names]
    found = []
    for name in learned[:1]:
        counts = _counts(pictures, name)
        found += [*_uneven(pictures, counts), *_few(pictures, counts)]
    for name in (VALIDATION, TEST):
        count = int(_counts(pictures, name).sum())
        if 0 < count < FEW_TO_JUDGE:
            found.append(_few_to_judge(name, count))
    return found


def _counts(pictures: Collection, split: str) -> npt.NDArray[np.int64]:
    here = [i for i, name in enumerate(pictures.split_names) if name == split]
    return np.bincount(pictures.labels[np.isin(pictures.splits, here)], minlength=len(pictures.classes))


def _uneven(pictures: Collection, counts: npt.NDArray[np.int64]) -> list[Finding]:
    if len(counts) < 2 or counts.min() == 0 or counts.max() < UNEVEN * counts.min():
        return []
    most, least = int(counts.argmax()), int(counts.argmin())
    return [
        Finding(
            kind="imbalance",
            severity="warning" if counts.max() >= VERY_UNEVEN * counts.min() else "note",
            message=f'Class "{pictures.classes[most]}" has {counts[most]:,} pictures to learn from, '
            f'"{pictures.classes[least]}" has {counts[least]:,}.',
            advice="Read the figures class by class: saying the large class always would be right often. "
            "More pictures of the small ones help most.",
        )
    ]


def _few(pictures: Collection, counts: npt.NDArray[np.int64]) -> list[Finding]:
    few = [int(i) for i in np.argsort(counts, kind="stable") if counts[i] < FEW]
    if not few:
        return []
    told = first_few([f'"{pictures.classes[i]}" ({counts[i]:,})' for i in few])
    return [
        Finding(
            kind="too-few",
            severity="warning",
            message=f"Fewer than {FEW} pictures to learn from: {told}.",
            advice="Add pictures, of as many different things and places as the model will meet.",
        )
    ]


def _few_to_judge(split: str, count: int) -> Finding:
    return Finding(
        kind="too-few",
        severity="note",
        message=f"{count} {split} picture{'s' * (count != 1)}: an accuracy measured on so few is uncertain by many "
        "points.",
        advice="Mind the interval beside the figure; more pictures make it narrower.",
    )
