"""A file that grows for hours, and is there, whole, when all is done, whatever happens on the way.

In:   a target, what the work is of, and its rows as bytes, each with the name of what it is about.
Out:  the target, in one move at the end; until then a folder beside it, `NAME.partial`, from which the same work goes
      on.
Not here: what a row is.

    rows         the rows, only ever added to
    names        8 bytes a row: a hash of the name it is about
    state.json   what the work is of, and how much of these two files counts

Rows reach the disk before the state that counts them. What a kill leaves behind that count is cut off when the work
goes on, so no row is there twice and none by half.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from relish.core.errors import RunError
from relish.core.io import cannot_write, write_json

SECONDS = 2.0
"""Between two counts: the work that a kill can cost."""


class Growing:
    """Rows on their way to a target. Made by `growing`."""

    def __init__(self, folder: Path, about: Mapping[str, Any], head: bytes) -> None:
        self._rows, self._names, self._state = (folder / name for name in ("rows", "names", "state.json"))
        state = _read(self._state)
        if state is not None and not (_has(self._rows, state["bytes"]) and _has(self._names, 8 * state["rows"])):
            state = None  # its rows became the target already, and have been taken away since
        if state is not None and state["about"] != about:
            changed = [key for key, value in about.items() if state["about"].get(key) != value]
            raise RunError(
                f"{folder} was begun with another {' and another '.join(changed)}.",
                hint="Give what it was begun with to go on, name another file, or begin anew with --overwrite.",
            )
        self._about = dict(about)
        self._held = _Held(state["bytes"], state["rows"], state["tally"]) if state else _Held(len(head), 0, {})
        self._files = _cut(self._rows, self._held.size if state else 0), _cut(self._names, 8 * self._held.count)
        self._kept = time.monotonic()
        if state is None:
            self._files[0].write(head)

    @property
    def count(self) -> int:
        """Rows so far, those of earlier starts among them."""
        return self._held.count

    @property
    def tally(self) -> Mapping[str, int]:
        """Further counts that are kept with the rows."""
        return self._held.tally

    def missing(self) -> "Missing":
        """What tells a name that has no row yet from one that has."""
        self.keep()
        return Missing(np.fromfile(self._names, dtype="<u8", count=self.count))

    def add(self, rows: bytes, names: Sequence[str], tally: Mapping[str, int]) -> None:
        """Further rows, one a name, and what they add to the tally; they hold within seconds.

        Raises:
            WriteFailed: the disk is full.
        """
        before = self._held
        counts = {key: before.tally.get(key, 0) + value for key, value in tally.items()}
        with _telling(self._rows):
            self._files[0].write(rows)
            self._files[1].write(b"".join(_hash(name).to_bytes(8, "little") for name in names))
        # At once: Ctrl-C may come between any two statements, and what counts has to agree.
        self._held = _Held(before.size + len(rows), before.count + len(names), counts)
        if time.monotonic() - self._kept >= SECONDS:
            self.keep()

    def keep(self) -> None:
        """Make all rows hold, even if the power fails now."""
        with _telling(self._rows):
            for file in self._files:
                file.flush()
                os.fsync(file.fileno())
        held = self._held
        write_json(self._state, {"about": self._about, "bytes": held.size, "rows": held.count, "tally": held.tally})
        self._kept = time.monotonic()

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            with suppress(OSError):  # of a full disk, which has been told of
                file.close()


@dataclass(frozen=True)
class _Held:
    """What counts."""

    size: int
    """Bytes of the file of rows."""
    count: int
    tally: Mapping[str, int]


class Missing:
    """Whether a name has no row yet; one that is named twice has two."""

    def __init__(self, hashes: npt.NDArray[np.uint64]) -> None:
        self._hashes, self._left = np.unique(hashes, return_counts=True)

    def __call__(self, name: str) -> bool:
        """Ask once for each time that a name comes up."""
        wanted = np.uint64(_hash(name))
        place = int(np.searchsorted(self._hashes, wanted))
        if place == len(self._hashes) or self._hashes[place] != wanted or not self._left[place]:
            return True
        self._left[place] -= 1
        return False


@contextmanager
def growing(
    target: Path,
    about: Mapping[str, Any],
    *,
    head: bytes,
    finish: Callable[[Path, Path], None],
    overwrite: bool = False,
) -> Iterator[Growing]:
    """Rows to add to; on a clean exit they become `target`, on any other they wait for the same work to go on.

    Args:
        about: plain values for JSON; whoever goes on has to bring equal ones.
        head: what stands before the first row.
        finish: makes the second path, whole or not at all, out of the first, the file of rows, which it may move.
        overwrite: replace `target`, and forget what was begun.

    Raises:
        RunError: `target` exists, was begun about something else, or another process is at work on it.
        WriteFailed: no space, no permission; the rows so far can be gone on from.
    """
    if target.exists() and not overwrite:
        raise RunError(f"{target} exists already.", hint="Name another file, or replace it with --overwrite.")
    folder = partial_folder(target)
    with _telling(target):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if overwrite:
            (folder / "state.json").unlink(missing_ok=True)
        with _telling(target):
            rows = Growing(folder, about, head)
        try:
            yield rows
        finally:
            try:
                rows.keep()
            finally:
                rows.close()
        with _telling(target):
            finish(folder / "rows", target)
            shutil.rmtree(folder)


def partial_folder(target: Path) -> Path:
    """Where rows wait until all of them are there."""
    return target.with_name(f"{target.name}.partial")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock", blocking=False)
    with _telling(folder):
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{folder}: another process is writing here.", hint="Name another file, or wait.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _read(state: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(state.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size >= size


def _cut(path: Path, size: int) -> BinaryIO:
    """A file to add to, behind so many bytes."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    file.truncate(size)
    file.seek(size)
    return file


def _hash(name: str) -> int:
    # Of a million names, two share one by a chance of 1 in 40 million; the second would then have to wait in vain.
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")
