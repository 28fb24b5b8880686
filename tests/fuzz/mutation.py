"""Bytes that are nearly a valid file: seeds with a few bytes, numbers and lengths changed, and hostile words."""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence

from hypothesis import strategies as st

_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_FORMS = ("B", "<H", ">H", "<I", ">I", "<Q", ">Q")
_HEADER = 96
"""Bytes at the start of a file where most of what is decided stands."""

WORDS = (
    *("", " ", ".", "..", "/", "../x", "a/../../x", "/etc/passwd", "~", "C:\\x", "a\\b", "-", "--set", "x" * 300),
    *("é", "e\u0301", "\u202egnp.x", "\u200b", "\x1b[2J", "a\nb", "a\n  b", "a\rb", "a\0b", "\ud800", "💥", "\ufeff"),
    *(
        "null",
        "none",
        "nan",
        "NaN",
        "inf",
        "-1",
        "0",
        "1e999",
        "9" * 5000,
        "0x10",
        "1_000",
        "true",
        "[]",
        "{}",
        "[" * 5000,
    ),
    *("%s", "{0}", "{x!r}", "'", '"', "`", "$(id)", "<b>", "&amp;", "=1+1", "con", "a" * 255 + ".png"),
)
"""Texts that programs take for something else."""

words = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))


def mutated(seeds: Sequence[bytes], most: int = 6) -> st.SearchStrategy[bytes]:
    """One of the seeds with up to so many changes."""
    edit = st.one_of(_overwritten(), _moved())
    # By number: Hypothesis would write their bytes into the strategy's name.
    seed = st.sampled_from(range(len(seeds))).map(lambda number: seeds[number])
    return st.builds(_edited, seed, st.lists(edit, max_size=most), seed)


Edit = Callable[[bytes, bytes], bytes]


def _edited(content: bytes, edits: list[Edit], other: bytes) -> bytes:
    for edit in edits:
        content = edit(content, other)
    return content


def _place() -> st.SearchStrategy[float]:
    """Where in a file: a whole number counts bytes of its start, a fraction is a share of it."""
    return st.one_of(st.integers(0, _HEADER), st.floats(0, 1, exclude_max=True))


def _at(place: float, content: bytes) -> int:
    return min(place, len(content)) if isinstance(place, int) else int(place * len(content))


def _overwritten() -> st.SearchStrategy[Edit]:
    """Some bytes become a number, or any bytes."""
    number = st.builds(_packed, st.sampled_from(_NUMBERS), st.sampled_from(_FORMS))
    return st.builds(_write, _place(), st.one_of(number, st.binary(min_size=1, max_size=4)))


def _packed(number: int, form: str) -> bytes:
    return struct.pack(form, number % 256 ** struct.calcsize(form))


def _write(place: float, new: bytes) -> Edit:
    def edit(content: bytes, _: bytes) -> bytes:
        start = _at(place, content)
        return content[:start] + new + content[start + len(new) :]

    return edit


def _moved() -> st.SearchStrategy[Edit]:
    """A part is taken out, doubled, moved to the end, filled with one byte, or taken from another file."""
    return st.builds(_cut, _place(), st.integers(0, 64) | st.integers(0, 2**16), st.integers(0, 5))


def _cut(place: float, length: int, kind: int) -> Edit:
    def edit(content: bytes, other: bytes) -> bytes:
        start = _at(place, content)
        before, part, behind = content[:start], content[start : start + length], content[start + length :]
        foreign = other[start : start + length]
        return (
            before + behind,
            before + part + part + behind,
            before + behind + part,
            before + bytes(part[:1] * len(part)) + behind,
            before + foreign + behind,
            before,
        )[kind]

    return edit


def with_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have right checksums again, so that decoders read what was changed."""
    parts, place = [content[:8]], 8
    while len(content) - place >= 12:
        length = int.from_bytes(content[place : place + 4], "big")
        chunk = content[place + 4 : place + 8 + length]
        if len(content) < place + 12 + length:
            break
        parts += [content[place : place + 4], chunk, zlib.crc32(chunk).to_bytes(4, "big")]
        place += 12 + length
    return b"".join(parts) + content[place:]


def changed(valid: Mapping[str, object], values: st.SearchStrategy[object], most: int = 4) -> st.SearchStrategy[dict]:
    """A mapping with some keys taken away, and some given other values; new keys may come in."""
    keys = st.one_of(st.sampled_from(sorted(valid)), words)
    gone = st.lists(st.sampled_from(sorted(valid)), max_size=1)
    return st.builds(
        lambda new, out: {k: v for k, v in {**valid, **new}.items() if k not in out},
        st.dictionaries(keys, values, max_size=most),
        gone,
    )
