"""Chance that can be looked up instead of replayed.

Every random draw of a run is a function of (seed, purpose, numbers such as epoch and index). Nothing depends on what
was drawn before, so a resumed run seeks to its place, and worker processes need no share of a common stream.

The generator is Philox, counter-based: one key, one stream (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3").
"""

import hashlib

import numpy as np


def derive(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose, such as `derive(0, "head")` or `derive(0, "picture", epoch, index)`."""
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A NumPy generator for one purpose; the same arguments give the same draws on every computer."""
    return np.random.Generator(np.random.Philox(key=derive(seed, purpose, *numbers)))
