"""The pictures that words on a command line name.

In:   files, folders, globs, `-` for standard input.
Out:  each picture, one by one and never all at once; a name that stands for none, as its error in its place.
"""

import codecs
import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from relish.core.errors import ImageError
from relish.data.folder import images_below, matches

Given = Path | io.BytesIO | ImageError

_BLOCK = 2**16
_TELLING = 64
"""Bytes that tell a picture from text: every format's header has some that are none within them."""


def pictures_named(words: Sequence[str], *, nul: bool = False) -> Iterator[Given]:
    """Every picture named, in order; folders are walked through while they are asked for.

    Args:
        nul: standard input holds paths that end in a NUL each, as `find -print0` writes them, instead of lines.
    """
    for word in words:
        if word == "-":
            yield from _standard_input(nul=nul)
        elif glob.has_magic(word) and not os.path.lexists(word):
            yield from _or_error((found for match in matches(word) for found in _one(Path(match))), word)
        else:
            yield from _one(Path(word))


def _one(path: Path) -> Iterator[Given]:
    if os.path.isdir(path):
        yield from _or_error(images_below(path), str(path), "there is no picture in this folder")
    else:
        yield path


def _or_error(found: Iterator[Given], name: str, reason: str = "matches no file") -> Iterator[Given]:
    empty = True
    for one in found:
        empty = False
        yield one
    if empty:
        yield ImageError(name, reason)


def _standard_input(*, nul: bool) -> Iterator[Given]:
    """Paths, read as they are asked for; or, where it begins like no text, one picture's bytes."""
    stream: io.BufferedReader = sys.stdin.buffer  # type: ignore[assignment]
    head = b""
    while len(head) < _TELLING and (more := stream.read1(_BLOCK)):
        head += more
    if nul or _is_text(head):
        names = _separated(head, stream, b"\0" if nul else b"\n")
        paths = (Path(os.fsdecode(name)) for name in names if name.strip())
        yield from _or_error(paths, "-", "standard input is empty")
    else:
        yield io.BytesIO(head + stream.read())


def _separated(head: bytes, stream: io.BufferedReader, separator: bytes) -> Iterator[bytes]:
    rest = head
    while True:
        *names, rest = rest.split(separator)
        yield from names if separator == b"\0" else (name.strip() for name in names)
        more = stream.read1(_BLOCK)
        if not more:
            break
        rest += more
    yield rest if separator == b"\0" else rest.strip()


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character that the block cuts is no error
    except UnicodeDecodeError:
        return False
    return b"\0" not in head  # no path has one, and nearly every picture does
