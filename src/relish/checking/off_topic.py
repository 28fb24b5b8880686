"""Pictures that lie far from all others in feature space.

In:   each picture's nearest others and how alike they are.
Out:  one `off-topic` finding, the farthest picture first.
Not here: finding neighbours (`neighbours.py`).

Far is what is far for this dataset: the distances' own spread says so, and only the far tail is told. A rare but right
picture lies far as well, which is why this is a note.
"""

import numpy as np

from relish.checking.collection import Collection, Positions
from relish.checking.neighbours import Floats
from relish.data.findings import Finding

NEIGHBOURS = 5
"""Of whose distances the mean is taken."""
FAR = 3.5
"""Robust standard deviations above the median of the distances from which a picture is told."""
FEWEST = 30
"""Pictures; with fewer, none of them can be called usual."""
_PER_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def distances(cosines: Floats) -> Floats:
    """(N,) float32: mean distance, 1 minus the cosine, to the nearest others that there are; larger is farther.

    Source: Kuan and Mueller 2022, Back to the Basics: Revisiting Out-of-Distribution Detection Baselines,
        arXiv:2207.03061, section 3.
    """
    near = np.where(cosines[:, :NEIGHBOURS] < -0.5, np.nan, 1 - cosines[:, :NEIGHBOURS])
    none = np.isnan(near).all(1)
    near[none] = 0
    found: Floats = np.nanmean(near, axis=1)
    return found


def off_topic(pictures: Collection, cosines: Floats, told: Positions) -> list[Finding]:
    """The pictures that no others resemble.

    Args:
        cosines: (N, k) float32, see `neighbours.nearest_others`.
        told: positions that another finding tells already, such as blank ones.
    """
    if len(pictures) < FEWEST:
        return []
    far = distances(cosines)
    middle = np.median(far)
    deviation = _PER_DEVIATION * np.median(np.abs(far - middle))
    beyond = np.setdiff1d(np.flatnonzero(far > middle + FAR * max(deviation, 1e-6)), told)
    if not len(beyond):
        return []
    places = beyond[np.argsort(-far[beyond], kind="stable")]
    one = len(places) == 1
    return [
        Finding(
            kind="off-topic",
            severity="note",
            message=f"{'1 picture is' if one else f'{len(places):,} pictures are'} unlike all others.",
            advice="Look whether they belong here. A rare but right picture is worth keeping.",
            paths=pictures.named(places),
        )
    ]
