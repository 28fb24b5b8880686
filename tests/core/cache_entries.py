"""Entries of a cache, and a process that keeps some; without PyTorch, which takes seconds to load in each of them."""

import hashlib
import random

from relish.core.cache import Cache


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def value(number: int) -> bytes:
    return random.Random(number).randbytes(number * 997 % 9000)


def entries(*numbers: int) -> dict[bytes, bytes]:
    return {key(number): value(number) for number in numbers}


def keep_some(start: int) -> None:
    for number in range(start, start + 20):
        assert Cache().remember("rows", entries(number))


def keep_for_ever() -> None:
    """Ten at a time, and each time says from which number on."""
    cache = Cache()
    for number in range(0, 10**6, 10):
        cache.remember("rows", entries(*range(number, number + 10)))
        print(number, flush=True)
