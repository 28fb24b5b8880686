"""Near copies of an image: pairs by perceptual hashes and backbone features, joined into groups.

Hashes or features alone are wrong too often. 64-bit hashes of scans, or of things on white, agree by chance; features
of two photographs of the same dish agree too. Candidates come from both, and each is confirmed by the other.

Hashes are looked up by multi-index hashing (Norouzi, Punjani and Fleet 2012, CVPR, section 3): cut into four bands of
16 bits, two hashes that differ in 7 bits or fewer differ in one bit or none in at least one band. So each hash is
looked up in sorted bands, as it is and with each one bit flipped, and only the matches are compared.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from relish.data.survey import Facts

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint64]
SURE_BITS = 7
"""Every pair that differs in so many bits or fewer is found; of more different pairs, some."""
CROWD = 256
"""A band with more hashes of one value is ignored: plain backgrounds share it, so it is no evidence for a copy."""
_BANDS, _WIDTH = 4, 16
"""Of a 64-bit hash; the width in bits."""
_PROBES = np.array([0, *(1 << bit for bit in range(_WIDTH))], dtype=np.uint64)
_CHUNK = 2**20
"""Pairs compared at a time, which bounds memory."""
_ONES = np.array([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)

SAME_BITS, SAME_DIFFERENCES = 4, 8
"""Without features: bits of 64 that the `phash` and the `dhash` of copies may differ in."""
COSINES = ((SURE_BITS, 0.80), (14, 0.90))
"""With features: images that differ in at most so many bits and have at least this cosine are near copies."""
CROP_BITS, CROP_COSINE, CROP_RATIO = 26, 0.80, 0.5
"""A crop changes many bits, and the features a little. Up to so many bits (unrelated images differ in 32) and from this
cosine on, two images are near copies if their distance is at most so many times the distance to the other neighbours:
the ratio test of Lowe 2004, IJCV 60(2), section 7.1, against the mean of several."""
SMALL_CROP_COSINE, SMALL_CROP_RATIO = 0.90, 0.3
"""Likewise whatever the hashes are: a small crop has an unrelated hash."""
_OTHER_NEIGHBOURS = slice(4, None)
"""Of the nearest, for the ratio test: the first few may be copies as well."""
_SMALLEST_DISTANCE = 1e-9
BLANK_CONTRAST = 5.0
"""Standard deviation of the grey levels, of 255, up to which an image is blank."""


def hamming_distances(left: Codes, right: Codes) -> npt.NDArray[np.int64]:
    """(P,) how many of the 64 bits differ, pair by pair."""
    differing = np.ascontiguousarray(left ^ right)
    distances: npt.NDArray[np.int64] = _ONES[differing.view(np.uint16)].reshape(-1, 4).sum(1, dtype=np.int64)
    return distances


def similar_hashes(codes: Codes, mirrored: Codes, most: int) -> tuple[Positions, Positions]:
    """Pairs of images where hash and hash, or hash and mirrored hash, differ in at most `most` bits.

    Args:
        codes: (N,) uint64.
        mirrored: (N,) uint64, of the mirror images.
        most: bits; up to `SURE_BITS` no pair is missed, except in a crowd.

    Returns:
        (P, 2) int64 positions, the lower one first, each pair once, sorted; and (P,) the bits that differ. Of many
        equal hashes each is paired with the next only, which still joins them all.
    """
    distinct, code_of = np.unique(codes, return_inverse=True)
    order = np.argsort(code_of, kind="stable")
    first = order[np.searchsorted(code_of[order], np.arange(len(distinct)))]
    equal = code_of[order][:-1] == code_of[order][1:]
    found = [np.stack([order[:-1][equal], order[1:][equal]], axis=1)]
    # Every distinct hash against all of them, and against the mirrored hash of one image of each.
    corpus, owner = np.concatenate([distinct, mirrored[first]]), np.concatenate([first, first])
    found += [np.stack([first[q], owner[c]], axis=1) for q, c in _matches(distinct, corpus, most)]
    pairs = np.sort(np.concatenate(found).astype(np.int64), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    return pairs, _bits(codes, mirrored, pairs)


def _bits(codes: Codes, mirrored: Codes, pairs: Positions) -> Positions:
    """(P,) bits that differ, of the pair's hashes or of one and the other mirrored: the smaller number."""
    left, right = pairs[:, 0], pairs[:, 1]
    straight, flipped = (hamming_distances(codes[left], other[right]) for other in (codes, mirrored))
    return np.minimum(straight, flipped)


def _matches(queries: Codes, corpus: Codes, most: int) -> Iterator[tuple[Positions, Positions]]:
    """Positions in queries and corpus of codes that share a band up to one bit and differ in at most `most` bits."""
    for band in range(_BANDS):
        shift, mask = np.uint64(_WIDTH * band), np.uint64(2**_WIDTH - 1)
        keys = (corpus >> shift) & mask
        order = np.argsort(keys, kind="stable")
        keys, wanted = keys[order], (queries >> shift) & mask
        for probe in _PROBES:
            low, high = (np.searchsorted(keys, wanted ^ probe, side) for side in ("left", "right"))
            sizes = np.where(high - low <= CROWD, high - low, 0)
            for q, c in _ranges(low, sizes):
                near = hamming_distances(queries[q], corpus[order[c]]) <= most
                yield q[near], order[c[near]]


def _ranges(low: Positions, sizes: Positions) -> Iterator[tuple[Positions, Positions]]:
    """Queries, each with the positions from its lowest on; at most about `_CHUNK` pairs at a time."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, "right")))
        counts = sizes[start:stop]
        queries = np.repeat(np.arange(start, stop), counts)
        within = np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield queries, low[queries] + within
        start = stop


def pairs_by_hashes(facts: Facts) -> Positions:
    """(P, 2) near copies by hashes alone, without mirror images."""
    pairs, bits = similar_hashes(facts["phash"], facts["phash"], SAME_BITS)
    differences = hamming_distances(facts["dhash"][pairs[:, 0]], facts["dhash"][pairs[:, 1]])
    return _without_blank(facts, pairs[(bits <= SAME_BITS) & (differences <= SAME_DIFFERENCES)])


def pairs_by_features(facts: Facts, vectors: Floats, nearest: Positions, cosines: Floats) -> Positions:
    """(P, 2) near copies where hashes and features agree.

    Args:
        vectors: (N, D) float32 features of length 1, see `evaluation.features.unit_vectors`.
        nearest: (N, k) positions of each image's nearest others, -1 for none.
        cosines: (N, k) of these, -1 for none.
    """
    codes, mirrored = facts["phash"], facts["mirrored"]
    by_hash, _ = similar_hashes(codes, mirrored, SURE_BITS)
    by_feature = np.stack([np.repeat(np.arange(len(nearest)), nearest.shape[1]), nearest.ravel()], axis=1)
    pairs = np.unique(np.sort(np.concatenate([by_hash, by_feature[by_feature[:, 1] >= 0]]), axis=1), axis=0)
    bits, cosine = _bits(codes, mirrored, pairs), _cosines(vectors, pairs)
    agree = np.any([(bits <= most) & (cosine >= least) for most, least in COSINES], axis=0)
    ratio = (1 - cosine) / np.maximum(_distance_to_others(cosines)[pairs].min(1), _SMALLEST_DISTANCE)
    agree |= (bits <= CROP_BITS) & (cosine >= CROP_COSINE) & (ratio <= CROP_RATIO)
    agree |= (cosine >= SMALL_CROP_COSINE) & (ratio <= SMALL_CROP_RATIO)
    return _without_blank(facts, pairs[agree])


def _distance_to_others(cosines: Floats) -> Floats:
    """(N,) float32: mean distance of each image to its further neighbours; 0, so that no pair passes, without any."""
    others = cosines[:, _OTHER_NEIGHBOURS]
    if not others.shape[1]:
        return np.zeros(len(cosines), dtype=np.float32)
    distances: Floats = np.where((others < -0.5).any(1), 0, 1 - others.mean(1)).astype(np.float32)
    return distances


def _cosines(vectors: Floats, pairs: Positions) -> Floats:
    parts = [pairs[i : i + 8192] for i in range(0, len(pairs), 8192)]  # bounds memory
    cosines = [np.einsum("ij,ij->i", vectors[part[:, 0]], vectors[part[:, 1]]) for part in parts]
    return np.concatenate([np.zeros(0, dtype=np.float32), *cosines])


def _without_blank(facts: Facts, pairs: Positions) -> Positions:
    """Pairs without blank images, whose hashes are chance."""
    shown = facts["contrast"] > BLANK_CONTRAST
    return pairs[shown[pairs].all(1)]


def exact_pairs(facts: Facts) -> Positions:
    """(P, 2): each image of a group of exact copies with the next."""
    pairs = [np.stack([group[:-1], group[1:]], axis=1) for group in exact_groups(facts)]
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])


def group_pairs(count: int, pairs: Positions) -> Positions:
    """The group of each image: the connected components of the pairs.

    Args:
        count: N, how many images.
        pairs: (P, 2) int64 positions.

    Returns:
        (N,) int64; an image in no pair has a group of its own.
    """
    from scipy.sparse import coo_array  # late: SciPy takes long to import, and predicting does without it
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.zeros(0, dtype=np.int64)
    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    groups: Positions = connected_components(links, directed=False)[1].astype(np.int64)
    return groups


def members(group_of: npt.NDArray[np.int64]) -> list[Positions]:
    """The groups of two images and more, each ascending, in the order of their first images."""
    order = np.argsort(group_of, kind="stable")
    cuts = np.flatnonzero(np.diff(group_of[order])) + 1
    return sorted((g for g in np.split(order, cuts) if len(g) > 1), key=lambda group: int(group[0]))


def least_of_each(group_of: Positions, contents: Sequence[str]) -> list[str]:
    """For each of N images the smallest hash of its group: the same in whatever order the images come."""
    least: dict[int, str] = {}
    for number, content in zip(group_of.tolist(), contents, strict=True):
        least[number] = min(content, least.get(number, content))
    return [least[number] for number in group_of.tolist()]


def exact_groups(facts: Facts) -> list[Positions]:
    """Groups of images of the same size and the same pixels, whatever their files are."""
    return members(np.unique(facts["pixels"], return_inverse=True)[1])
