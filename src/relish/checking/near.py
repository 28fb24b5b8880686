"""Which pictures are nearly the same: perceptual hashes and a backbone's features have to agree.

In:   a collection, and the directions of its features where there are any.
Out:  pairs of positions.
Not here: looking pairs up (`hashes.py`, `neighbours.py`), joining them (`groups.py`).

Either alone is wrong too often. Hashes of 64 bits meet by chance among pictures of one make, such as scans or things on
white; features of two photographs of the same dish meet too. Candidates come from both; each is confirmed by the other.
"""

import numpy as np
import numpy.typing as npt

from relish.checking.collection import Collection, Positions
from relish.checking.hashes import SURE_BITS, alike, bits_apart
from relish.checking.light import BLANK_CONTRAST

Floats = npt.NDArray[np.float32]

SAME_BITS, SAME_DIFFERENCES = 4, 8
"""Without features: bits that `phash` and `dhash` of copies may differ in, of 64 each."""
COSINES = ((SURE_BITS, 0.80), (14, 0.90))
"""With features: up to so many bits apart, pictures with at least this cosine are near copies."""
LEANING, CLOSE, STANDING_OUT = 26, 0.80, 0.5
"""A crop turns many bits, and a little of the direction. Up to so many bits apart (unlike pictures differ in 32) and
from this cosine on, two pictures are near copies if they are this many times as far from each other as from what
else is nearest to them, or less: the ratio test of Lowe 2004, IJCV 60(2), section 7.1, taken against several."""
ALONE = 0.90, 0.3
"""Likewise from this cosine on and with this ratio whatever the hashes say: a small crop leaves nothing of them."""
_CROWD = slice(4, None)
"""The neighbours that make up what else is near: the first few may be copies as well."""
_NEXT_TO_NOTHING = 1e-9


def by_hashes(pictures: Collection) -> Positions:
    """(P, 2) pairs whose hashes alone say so, mirror images not among them."""
    facts = pictures.facts
    pairs, bits = alike(facts["phash"], facts["phash"], SAME_BITS)
    differ = bits_apart(facts["dhash"][pairs[:, 0]], facts["dhash"][pairs[:, 1]])
    return _of_pictures(pictures, pairs[(bits <= SAME_BITS) & (differ <= SAME_DIFFERENCES)])


def by_both(pictures: Collection, directed: Floats, nearest: Positions, cosines: Floats) -> Positions:
    """(P, 2) pairs whose hashes and features agree.

    Args:
        directed: (N, D) float32 of length 1, see `neighbours.directions`.
        nearest: (N, k) positions of each picture's nearest others, -1 for none.
        cosines: (N, k) of these, -1 for none.
    """
    facts = pictures.facts
    hashed, _ = alike(facts["phash"], facts["mirrored"], SURE_BITS)
    felt = np.stack([np.repeat(np.arange(len(nearest)), nearest.shape[1]), nearest.ravel()], axis=1)
    pairs = np.unique(np.sort(np.concatenate([hashed, felt[felt[:, 1] >= 0]]), axis=1), axis=0)
    codes, mirrored = facts["phash"], facts["mirrored"]
    left, right = pairs[:, 0], pairs[:, 1]
    bits = np.minimum(bits_apart(codes[left], codes[right]), bits_apart(codes[left], mirrored[right]))
    cosine = _cosines(directed, pairs)
    agree = np.any([(bits <= most) & (cosine >= least) for most, least in COSINES], axis=0)
    apart = (1 - cosine) / np.maximum(_elsewhere(cosines)[pairs].min(1), _NEXT_TO_NOTHING)
    agree |= (bits <= LEANING) & (cosine >= CLOSE) & (apart <= STANDING_OUT)
    agree |= (cosine >= ALONE[0]) & (apart <= ALONE[1])
    return _of_pictures(pictures, pairs[agree])


def _elsewhere(cosines: Floats) -> Floats:
    """(N,) float32: how far each picture's further neighbours are; 0, which nothing is below, where there are none."""
    further = cosines[:, _CROWD]
    if not further.shape[1]:
        return np.zeros(len(cosines), dtype=np.float32)
    found: Floats = np.where((further < -0.5).any(1), 0, 1 - further.mean(1)).astype(np.float32)
    return found


def _cosines(directed: Floats, pairs: Positions, chunk: int = 8192) -> npt.NDArray[np.float32]:
    parts = [pairs[i : i + chunk] for i in range(0, len(pairs), chunk)]
    found = [np.einsum("ij,ij->i", directed[part[:, 0]], directed[part[:, 1]]) for part in parts]
    return np.concatenate([np.zeros(0, dtype=np.float32), *found])


def _of_pictures(pictures: Collection, pairs: Positions) -> Positions:
    """Without blank pictures, whose hashes are chance."""
    shown = pictures.facts["contrast"] > BLANK_CONTRAST
    return pairs[shown[pairs].all(1)]
