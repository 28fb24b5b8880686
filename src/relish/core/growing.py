"""A file that grows for hours, and is there, whole, when all is done, whatever happens on the way.

In:   a target, what the work is of, and its rows as blocks of bytes, each with the names of what its rows are about.
Out:  the target, in one move at the end; until then a journal beside it, `NAME.partial`, from which the same work
      resumes.

The journal is an SQLite file that one process holds at a time. A block and the names of its rows are one record, so a
kill or a power cut leaves both or neither.
"""

import errno
import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.cache import is_damaged, remove_database
from relish.core.errors import RelishError, RunError
from relish.core.io import cannot_write

SECONDS = 2.0
"""Between two commits: the work that a kill can cost."""

_TABLES = ("about (content TEXT)", "blocks (number INTEGER PRIMARY KEY, tally TEXT, names BLOB, rows BLOB)")
_HASH_BYTES = 8


class Growing:
    """Rows on their way to a target. Made by `growing`."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self._file, self._connection, self._kept = file, connection, time.monotonic()
        self.count = 0
        """Rows so far, those of earlier starts among them."""
        self.tally: Counter[str] = Counter()
        """Further counts that are kept with the rows."""
        with _telling(file):
            for tally, size in connection.execute("SELECT tally, length(names) FROM blocks"):
                self.count += size // _HASH_BYTES
                self.tally.update(json.loads(tally))

    def missing(self) -> "Missing":
        """What tells a name that has no row yet from one that has."""
        with _telling(self._file):
            names = b"".join(names for (names,) in self._connection.execute("SELECT names FROM blocks"))
        return Missing(np.frombuffer(names, dtype="<u8"))

    def add(self, rows: bytes, names: Sequence[str], tally: Mapping[str, int]) -> None:
        """A further block of rows, one a name, and what it adds to the tally; it holds within seconds.

        Raises:
            WriteFailed: the disk is full.
        """
        hashes = b"".join(_hash(name).to_bytes(_HASH_BYTES, "little") for name in names)
        with _telling(self._file):
            self._connection.execute(
                "INSERT INTO blocks (tally, names, rows) VALUES (?, ?, ?)", (json.dumps(tally), hashes, rows)
            )
        self.count += len(names)
        self.tally.update(tally)
        if time.monotonic() - self._kept >= SECONDS:
            self.keep()

    def keep(self) -> None:
        """Make all rows hold, even if the power fails now."""
        with _telling(self._file):
            self._connection.commit()
        self._kept = time.monotonic()

    def blocks(self) -> Iterator[bytes]:
        """The blocks in the order in which they were added."""
        with _telling(self._file):
            for (rows,) in self._connection.execute("SELECT rows FROM blocks ORDER BY number"):
                yield rows


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
    target: Path, about: Mapping[str, Any], *, finish: Callable[[Iterator[bytes], Path], None], overwrite: bool = False
) -> Iterator[Growing]:
    """Rows to add to; on a clean exit they become `target`, on any other they wait for the same work to resume.

    Args:
        about: plain values for JSON; whoever resumes has to bring equal ones.
        finish: makes `target`, whole or not at all, out of the blocks.
        overwrite: replace `target`, and forget what was begun.

    Raises:
        RunError: `target` exists, was begun about something else, or another process is at work on it.
        WriteFailed: no space, no permission; the work can be resumed from the rows so far.
    """
    if target.exists() and not overwrite:
        raise RunError(f"{target} exists already.", hint="Name another file, or replace it with --overwrite.")
    file = partial_file(target)
    with _telling(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        connection = _opened(file, overwrite)
    with closing(connection):
        _check_same_work(file, connection, about)
        rows = Growing(file, connection)
        try:
            yield rows
        finally:
            rows.keep()
        with _telling(target):
            finish(rows.blocks(), target)
            file.unlink()  # while it is held, so that it is nobody else's


def partial_file(target: Path) -> Path:
    """Where rows wait until all of them are there."""
    return target.with_name(f"{target.name}.partial")


def _opened(file: Path, afresh: bool) -> sqlite3.Connection:
    try:
        return _held(file, afresh)
    except sqlite3.DatabaseError as error:
        if not (afresh and is_damaged(error)):
            raise
    remove_database(file)
    return _held(file, afresh)


def _held(file: Path, afresh: bool) -> sqlite3.Connection:
    """A connection that keeps its lock until it is closed or its process ends."""
    connection = sqlite3.connect(file, timeout=0)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")  # the rows are hours of work, and commits are seconds apart
        connection.execute("BEGIN EXCLUSIVE")
        for table in _TABLES:
            if afresh:
                connection.execute(f"DROP TABLE IF EXISTS {table.split()[0]}")
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        connection.commit()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _check_same_work(file: Path, connection: sqlite3.Connection, about: Mapping[str, Any]) -> None:
    with _telling(file):
        found = connection.execute("SELECT content FROM about").fetchone()
        if not found:
            connection.execute("INSERT INTO about VALUES (?)", (json.dumps(dict(about)),))
            connection.commit()
            return
    former = json.loads(found[0])
    changed = [key for key, value in about.items() if former.get(key) != value]
    if changed:
        raise RunError(
            f"{file} was begun with another {' and another '.join(changed)}.",
            hint="Give what it was begun with to resume, name another file, or begin anew with --overwrite.",
        )


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
    except sqlite3.Error as error:
        raise _in_words(path, error) from error


def _in_words(path: Path, error: sqlite3.Error) -> RelishError:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunError(f"{path}: another process is writing here.", hint="Name another file, or wait.")
    if is_damaged(error):
        return RunError(f"{path} is damaged ({error}).", hint="Begin anew with --overwrite.")
    # SQLite calls a quota that is used up an I/O error.
    full = {sqlite3.SQLITE_FULL: "No space left on device", sqlite3.SQLITE_IOERR: str(error)}
    return cannot_write(path, OSError(errno.ENOSPC if code in full else errno.EACCES, full.get(code, str(error))))


def _hash(name: str) -> int:
    # Of a million names, two share one by a chance of 1 in 40 million; the second would then have to wait in vain.
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=_HASH_BYTES).digest(), "little")
