"""Blank, dark, blurred and oddly shaped images, and classes with few of them.

Measured against the dataset itself: where many images are dark, as scans are, that is no fault.
"""

import numpy as np
import numpy.typing as npt

from relish.checks.images import Collection
from relish.data.dataset import TEST, TRAIN, VALIDATION, WHOLE, Finding, Kind, Severity, first_few

BLANK_CONTRAST = 5.0
"""Standard deviation of the grey levels, of 255, up to which a picture shows nothing to speak of."""
DARK_BRIGHTNESS = 20.0
"""Mean grey level, of 255, up to which a picture counts as dark."""
BLURRED_DETAIL = 0.01
"""Variance of the Laplacian over that of the grey levels, up to which a picture counts as blurred."""
USUAL = 0.05
"""Where a larger share of the pictures is so, it is how this dataset is, and no finding."""


def hard_to_see(pictures: Collection) -> list[Finding]:
    """Findings of the kinds `blank`, `dark` and `blurred`; a picture is in the first that fits."""
    facts = pictures.facts
    contrast, brightness = facts["contrast"], facts["brightness"]
    blank = contrast <= BLANK_CONTRAST
    dark = (brightness <= DARK_BRIGHTNESS) & ~blank
    detail = facts["sharpness"] / np.maximum(contrast.astype(np.float64) ** 2, 1.0)
    blurred = (detail <= BLURRED_DETAIL) & ~blank & ~dark
    return [
        *_told(pictures, "blank", blank, contrast, "blank or nearly so: one colour, hardly anything to see",
               "Nothing can be learned from a blank picture: look at the file, and take it out."),
        *_told(pictures, "dark", dark, brightness, "very dark",
               "Look whether their class can still be seen; if not, brighten them or take them out."),
        *_told(pictures, "blurred", blurred, detail, "blurred, or enlarged from much smaller ones",
               "Look whether their class can still be seen; if you expect such pictures in use, keep them."),
    ]  # fmt: skip


def _told(
    pictures: Collection,
    kind: Kind,
    found: npt.NDArray[np.bool_],
    worst_first: npt.NDArray[np.floating],
    words: str,
    advice: str,
) -> list[Finding]:
    count = int(found.sum())
    if not count or (kind != "blank" and count > max(1, USUAL * len(pictures))):
        return []
    places = np.flatnonzero(found)
    places = places[np.argsort(worst_first[places], kind="stable")]
    subject = "1 picture seems" if count == 1 else f"{count:,} pictures seem"
    severity: Severity = "warning" if kind == "blank" else "note"
    return [
        Finding(
            kind=kind, severity=severity, message=f"{subject} {words}.", advice=advice, paths=pictures.named(places)
        )
    ]


TINY = 48
"""Pixels of the shorter side under which a network has little to look at; sides of 224 are usual."""
STRETCHED = 3.0
"""Longer over shorter side from which a square holds little of a picture, or holds it badly squeezed."""
RARE = 0.05
"""Share of the pictures up to which being so counts as odd."""
_GREY = (b"1", b"L", b"LA", b"La", b"I", b"F", b"I;16", b"I;16B", b"I;16L")


def odd_shapes(pictures: Collection) -> list[Finding]:
    """At most one finding each for tiny pictures, long ones, grey ones among coloured and coloured among grey."""
    facts = pictures.facts
    shorter = np.minimum(facts["width"], facts["height"]).astype(np.float64)
    ratio = np.maximum(facts["width"], facts["height"]) / np.maximum(shorter, 1)
    grey = np.isin(facts["mode"], _GREY)
    found = [
        _rare(pictures, shorter < TINY, shorter, f"smaller than {TINY} pixels on a side",
              "Their details are gone: take them from a larger original if there is one."),
        _rare(pictures, ratio >= STRETCHED, -ratio, f"{STRETCHED:.0f} times as long as wide, or longer",
              "Crop them to what they show: squeezed into a square, it can hardly be told."),
        _rare(pictures, grey, shorter, "grey, the others in colour",
              "If one class has most of them, a model may learn the colour instead of the class."),
        _rare(pictures, ~grey, shorter, "in colour, the others grey",
              "If one class has most of them, a model may learn the colour instead of the class."),
    ]  # fmt: skip
    return [finding for finding in found if finding]


def _rare(
    pictures: Collection,
    odd: npt.NDArray[np.bool_],
    oddest_first: npt.NDArray[np.float64],
    words: str,
    advice: str,
) -> Finding | None:
    count = int(odd.sum())
    if not 0 < count <= max(1, RARE * len(pictures)) or count == len(pictures):
        return None
    places = np.flatnonzero(odd)
    places = places[np.argsort(oddest_first[places], kind="stable")]
    subject = "1 picture is" if count == 1 else f"{count:,} pictures are"
    return Finding(
        kind="odd-size",
        severity="note",
        message=f"{subject} {words}.",
        advice=advice,
        paths=pictures.named(places),
    )


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
