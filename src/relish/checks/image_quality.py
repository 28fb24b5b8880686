"""Blank, dark, blurred and oddly shaped images, and classes with few of them.

Measured against the dataset itself: where many images are dark, as scans are, that is no fault.
"""

import numpy as np
import numpy.typing as npt

from relish.checks.images import Bools, ImageSet
from relish.data.dataset import TEST, TRAIN, VALIDATION, WHOLE, Finding, Kind, Severity, first_few

BLANK_CONTRAST = 5.0
"""Standard deviation of the grey levels, of 255, up to which an image is blank."""
DARK_BRIGHTNESS = 20.0
"""Mean grey level, of 255, up to which an image is dark."""
BLURRED_DETAIL = 0.01
"""Variance of the Laplacian over the variance of the grey levels, up to which an image is blurred."""
TINY = 48
"""Pixels of the shorter side below which an image has little detail; networks usually see 224."""
STRETCHED = 3.0
"""Longer over shorter side from which a square crop shows little of an image, or a squeezed one distorts it."""
RARE = 0.05
"""Fraction of the images up to which a property is odd; where more have it, it is usual in this dataset."""
_GREY = (b"1", b"L", b"LA", b"La", b"I", b"F", b"I;16", b"I;16B", b"I;16L")
UNEVEN, VERY_UNEVEN = 3.0, 10.0
"""Images of the largest class over those of the smallest, from which there is a note, and a warning."""
FEW = 20
"""Training images of a class below which it can hardly be learned."""
FEW_TO_EVALUATE = 100
"""Images of a split below which a 95% interval is more than 12 points wide at an accuracy of 0.9."""


def hard_to_see(images: ImageSet) -> list[Finding]:
    """Findings of the kinds `blank`, `dark` and `blurred`; an image is in the first that fits."""
    contrast, brightness = images.facts["contrast"], images.facts["brightness"]
    blank = contrast <= BLANK_CONTRAST
    dark = (brightness <= DARK_BRIGHTNESS) & ~blank
    detail = images.facts["sharpness"] / np.maximum(contrast.astype(np.float64) ** 2, 1.0)
    blurred = (detail <= BLURRED_DETAIL) & ~blank & ~dark
    rare = max(1, RARE * len(images))
    return [
        *_found(images, blank, contrast, "blank", "seem blank or nearly so: one colour, hardly anything to see",
                "Nothing can be learned from a blank picture: look at the file, and take it out.",
                most=len(images), severity="warning"),
        *_found(images, dark, brightness, "dark", "seem very dark",
                "Look whether their class can still be seen; if not, brighten them or take them out.", most=rare),
        *_found(images, blurred, detail, "blurred", "seem blurred, or enlarged from much smaller ones",
                "Look whether their class can still be seen; if you expect such pictures in use, keep them.",
                most=rare),
    ]  # fmt: skip


def odd_shapes(images: ImageSet) -> list[Finding]:
    """`odd-size` findings, at most one each for tiny images, long ones, grey among coloured and coloured among grey."""
    width, height = images.facts["width"], images.facts["height"]
    shorter = np.minimum(width, height).astype(np.float64)
    ratio = np.maximum(width, height) / np.maximum(shorter, 1)
    grey = np.isin(images.facts["mode"], _GREY)
    colour = "If one class has most of them, a model may learn the colour instead of the class."
    properties = [
        (shorter < TINY, shorter, f"are smaller than {TINY} pixels on a side",
         "Their details are gone: take them from a larger original if there is one."),
        (ratio >= STRETCHED, -ratio, f"are {STRETCHED:.0f} times as long as wide, or longer",
         "Crop them to what they show: squeezed into a square, it can hardly be told."),
        (grey, shorter, "are grey, the others in colour", colour),
        (~grey, shorter, "are in colour, the others grey", colour),
    ]  # fmt: skip
    most = min(max(1, RARE * len(images)), len(images) - 1)
    return [
        finding
        for odd, oddest_first, words, advice in properties
        for finding in _found(images, odd, oddest_first, "odd-size", words, advice, most=most)
    ]


def _found(
    images: ImageSet,
    odd: Bools,
    worst_first: npt.NDArray[np.floating],
    kind: Kind,
    words: str,
    advice: str,
    *,
    most: float,
    severity: Severity = "note",
) -> list[Finding]:
    """One finding of the odd images, worst first; none where there are none, or more than `most`.

    Args:
        words: a verb in the plural, `are` or `seem`, and what follows it.
    """
    positions = np.flatnonzero(odd)
    if not 0 < len(positions) <= most:
        return []
    positions = positions[np.argsort(worst_first[positions], kind="stable")]
    verb, _, rest = words.partition(" ")
    one = {"are": "1 picture is", "seem": "1 picture seems"}[verb]
    subject = one if len(positions) == 1 else f"{len(positions):,} pictures {verb}"
    message, paths = f"{subject} {rest}.", images.named(positions)
    return [Finding(kind=kind, severity=severity, message=message, advice=advice, paths=paths)]


def balance(images: ImageSet) -> list[Finding]:
    """Classes much larger than others, classes with few training images, splits with few images to evaluate on."""
    trained = [name for name in (TRAIN, WHOLE) if name in images.split_names]
    findings = []
    for name in trained[:1]:
        counts = _counts(images, name)
        findings += [*_uneven(images.classes, counts), *_few(images.classes, counts)]
    for name in (VALIDATION, TEST):
        count = int(_counts(images, name).sum())
        if 0 < count < FEW_TO_EVALUATE:
            counted = f"{count} {name} picture{'s' * (count != 1)}"
            message = f"{counted}: an accuracy measured on so few is uncertain by many points."
            advice = "Mind the interval beside the figure; more pictures make it narrower."
            findings.append(Finding(kind="too-few", severity="note", message=message, advice=advice))
    return findings


def _counts(images: ImageSet, split: str) -> npt.NDArray[np.int64]:
    """(K,) images of each class in a split."""
    here = [i for i, name in enumerate(images.split_names) if name == split]
    return np.bincount(images.labels[np.isin(images.splits, here)], minlength=len(images.classes))


def _uneven(classes: tuple[str, ...], counts: npt.NDArray[np.int64]) -> list[Finding]:
    if len(counts) < 2 or counts.min() == 0 or counts.max() < UNEVEN * counts.min():
        return []
    most, least = int(counts.argmax()), int(counts.argmin())
    return [
        Finding(
            kind="imbalance",
            severity="warning" if counts.max() >= VERY_UNEVEN * counts.min() else "note",
            message=f'Class "{classes[most]}" has {counts[most]:,} pictures to learn from, '
            f'"{classes[least]}" has {counts[least]:,}.',
            advice="Read the figures class by class: saying the large class always would be right often. "
            "More pictures of the small ones help most.",
        )
    ]


def _few(classes: tuple[str, ...], counts: npt.NDArray[np.int64]) -> list[Finding]:
    few = [int(i) for i in np.argsort(counts, kind="stable") if counts[i] < FEW]
    if not few:
        return []
    listed = first_few([f'"{classes[i]}" ({counts[i]:,})' for i in few])
    return [
        Finding(
            kind="too-few",
            severity="warning",
            message=f"Fewer than {FEW} pictures to learn from: {listed}.",
            advice="Add pictures, of as many different things and places as the model will meet.",
        )
    ]
