"""Pairs of perceptual hashes that differ in few bits, without comparing every hash with every other.

In:   64-bit hashes of the pictures, and of their mirror images.
Out:  pairs of positions, with the number of bits that differ.
Not here: what makes two pictures near copies (`near.py`).

Multi-index hashing (Norouzi, Punjani and Fleet 2012, CVPR, section 3): cut into four bands of 16 bits, two hashes that
differ in 7 bits or fewer differ in one bit or none in at least one band. So each hash is looked up in sorted bands, as
it is and with each one bit turned, and only what is met there is compared.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

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
