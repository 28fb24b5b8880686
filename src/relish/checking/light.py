"""Pictures with little to see: blank, dark or blurred.

In:   a collection.
Out:  findings, one a kind, the worst picture first.
Not here: measuring light and detail (`data/facts.py`).

Measured against the dataset itself: where many pictures are dark, as scans are, that is how they are and no fault.
"""

import numpy as np
import numpy.typing as npt

from relish.checking.collection import Collection
from relish.data.findings import Finding, Kind, Severity

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
