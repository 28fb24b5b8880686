"""Exact and near copies: pairs by perceptual hashes and backbone features, joined into groups, one finding a group.

Hashes or features alone are wrong too often. 64-bit hashes of scans, or of things on white, agree by chance; features
of two photographs of the same dish agree too. Candidates come from both, and each is confirmed by the other.

Hashes are looked up by multi-index hashing (Norouzi, Punjani and Fleet 2012, CVPR, section 3): cut into four bands of
16 bits, two hashes that differ in 7 bits or fewer differ in one bit or none in at least one band. So each hash is
looked up in sorted bands, as it is and with each one bit flipped, and only the matches are compared.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from relish.checks.image_quality import BLANK_CONTRAST
from relish.checks.images import Collection, Positions
from relish.data.dataset import Border, Finding

Codes = npt.NDArray[np.uint64]

SURE_BITS = 7
"""Every pair that differs in so many bits or fewer is found; of those further apart, some."""
CROWD = 256
"""A band that more hashes than this share says nothing of any two of them (plain grounds) and is passed over there."""
_BANDS, _WIDTH = 4, 16
_PROBES = np.array([0, *(1 << bit for bit in range(_WIDTH))], dtype=np.uint64)
_CHUNK = 2**20
"""Pairs compared at a time, which bounds memory."""
_ONES = np.array([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)


def bits_apart(left: Codes, right: Codes) -> npt.NDArray[np.int64]:
    """(P,) how many of the 64 bits differ, pair by pair."""
    differ = np.ascontiguousarray(left ^ right)
    apart: npt.NDArray[np.int64] = _ONES[differ.view(np.uint16)].reshape(-1, 4).sum(1, dtype=np.int64)
    return apart


def alike(codes: Codes, mirrored: Codes, most: int) -> tuple[Positions, Positions]:
    """Pairs of pictures whose hashes, or one's and the other's mirrored one, differ in at most `most` bits.

    Args:
        codes: (N,) uint64.
        mirrored: (N,) uint64, of the mirror images.
        most: bits; up to `SURE_BITS` no pair is missed outside a crowd.

    Returns:
        (P, 2) int64 positions, the lower one first, each pair once, sorted; and (P,) the bits that differ. Of many
        equal hashes each is paired with the next alone, which still joins them all.
    """
    kinds, kind_of = np.unique(codes, return_inverse=True)
    order = np.argsort(kind_of, kind="stable")
    first = order[np.searchsorted(kind_of[order], np.arange(len(kinds)))]
    same = kind_of[order][:-1] == kind_of[order][1:]
    found = [np.stack([order[:-1][same], order[1:][same]], axis=1)]
    # Every kind of hash against the kinds, and against the mirror images of one picture of each.
    corpus, owner = np.concatenate([kinds, mirrored[first]]), np.concatenate([first, first])
    found += [np.stack([first[q], owner[c]], axis=1) for q, c in _met(kinds, corpus, most)]
    pairs = np.sort(np.concatenate(found).astype(np.int64), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    straight = bits_apart(codes[pairs[:, 0]], codes[pairs[:, 1]])
    turned = bits_apart(codes[pairs[:, 0]], mirrored[pairs[:, 1]])
    return pairs, np.minimum(straight, turned)


def _met(queries: Codes, corpus: Codes, most: int) -> Iterator[tuple[Positions, Positions]]:
    """Positions in queries and corpus of codes that share a band but for one bit, and differ in `most` at most."""
    for band in range(_BANDS):
        shift, mask = np.uint64(_WIDTH * band), np.uint64(2**_WIDTH - 1)
        keys = (corpus >> shift) & mask
        order = np.argsort(keys, kind="stable")
        keys, wanted = keys[order], (queries >> shift) & mask
        for probe in _PROBES:
            low, high = (np.searchsorted(keys, wanted ^ probe, side) for side in ("left", "right"))
            sizes = np.where(high - low <= CROWD, high - low, 0)
            for q, c in _spread_out(low, sizes):
                near = bits_apart(queries[q], corpus[order[c]]) <= most
                yield q[near], order[c[near]]


def _spread_out(low: Positions, sizes: Positions) -> Iterator[tuple[Positions, Positions]]:
    """For each query all places from its lowest on, a bounded number of pairs at a time."""
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


def joined(count: int, pairs: Positions) -> Positions:
    """Which group each picture is in, where a pair joins two groups into one.

    Args:
        count: N, how many pictures.
        pairs: (P, 2) int64 positions.

    Returns:
        (N,) int64; a picture in no pair has a group of its own.
    """
    if not count:
        return np.zeros(0, dtype=np.int64)
    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    found: Positions = connected_components(links, directed=False)[1].astype(np.int64)
    return found


def several(group_of: npt.NDArray[np.int64]) -> list[Positions]:
    """The groups of two pictures and more, each ascending, in the order of their first pictures."""
    order = np.argsort(group_of, kind="stable")
    cuts = np.flatnonzero(np.diff(group_of[order])) + 1
    return sorted((g for g in np.split(order, cuts) if len(g) > 1), key=lambda group: int(group[0]))


def equal_rows(values: npt.NDArray[np.generic]) -> Positions:
    """(N,) int64: pictures of equal value get equal numbers."""
    found: Positions = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return found


def crossed(pictures: Collection, group: Positions) -> tuple[Border, ...]:
    """What a group crosses: `split`, `class`, both or nothing."""
    borders: list[Border] = []
    if len(np.unique(pictures.splits[group])) > 1:
        borders.append("split")
    if len(np.unique(pictures.labels[group])) > 1:
        borders.append("class")
    return tuple(borders)


def exact_groups(pictures: Collection) -> list[Positions]:
    """Groups of pictures with the same size and the same pixels, whatever their files are."""
    return several(equal_rows(pictures.facts["pixels"]))


def exact_duplicates(pictures: Collection) -> list[Finding]:
    """One finding for each group of pictures that are the same pixel by pixel."""
    found = [(crossed(pictures, group), group) for group in exact_groups(pictures)]
    return [
        Finding(
            kind="exact-duplicate",
            severity="error" if across else "note",
            message=f"{len(group)} files hold the same picture, pixel by pixel{_where(pictures, group, across)}.",
            advice=_advice(across),
            paths=pictures.named(group),
            across=across,
        )
        for across, group in sorted(found, key=lambda pair: -len(pair[0]))
    ]


def near_duplicates(pictures: Collection, group_of: Positions) -> list[Finding]:
    """One finding for each group of pictures that look like copies of each other.

    Args:
        group_of: (N,) int64, see `groups.joined`; groups of exact duplicates alone are left to `exact_duplicates`.
    """
    pixels = equal_rows(pictures.facts["pixels"])
    groups = [group for group in several(group_of) if len(np.unique(pixels[group])) > 1]
    found = [(crossed(pictures, group), group) for group in groups]
    return [
        Finding(
            kind="near-duplicate",
            severity="warning" if across else "note",
            message=f"{len(group)} pictures look like one, resized, cropped, mirrored or saved anew, or like one scene "
            f"taken twice{_where(pictures, group, across)}.",
            advice=_advice(across),
            paths=pictures.named(group),
            across=across,
        )
        for across, group in sorted(found, key=lambda pair: -len(pair[0]))
    ]


def _where(pictures: Collection, group: Positions, across: tuple[Border, ...]) -> str:
    words = ""
    if "split" in across:
        words += ", in " + _listed([pictures.split_names[i] for i in np.unique(pictures.splits[group])])
    if "class" in across:
        words += ", labelled " + _listed([pictures.classes[i] for i in np.unique(pictures.labels[group])])
    return words


def _advice(across: tuple[Border, ...]) -> str:
    if "class" in across:
        return "If it is one picture, only one label can be right: keep that one."
    if "split" in across:
        return "A picture that was learned from cannot test anything: take it out of one of the splits."
    return "It counts more than the others; one copy is enough."


def _listed(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    told = names[:shown]
    return (", ".join(told) if more else " and ".join([", ".join(told[:-1]), told[-1]])) + more
