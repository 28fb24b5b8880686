"""Sizes, proportions and colours that are unlike the rest of the dataset.

In:   a collection.
Out:  `odd-size` findings, one for each way of being odd.
"""

import numpy as np
import numpy.typing as npt

from relish.checking.collection import Collection
from relish.data.findings import Finding

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
