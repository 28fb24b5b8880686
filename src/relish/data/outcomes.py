"""Remember what came of reading a file, so that a dataset is decoded for its survey once and not at every start.

In:   a file's absolute path, size and times, and what came of reading it.
Out:  the same for files that have not changed since.
Not here: reading files (`survey.py`).

This is a convenience and never a reason to fail: a memory that is damaged is built anew, and one that is locked, full
or read-only is gone without.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import PIL

from relish.core.io import relish_home
from relish.data.image import MAX_PIXELS

_RULES = f"2/{PIL.__version__}/{MAX_PIXELS}"
"""What can be opened depends on this; raise the first number when `pictures.py` accepts more or less than before,
or `facts.py` measures otherwise."""

_TABLE = """CREATE TABLE IF NOT EXISTS outcomes_2 (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, rules TEXT, sha256 TEXT, reason TEXT,
    facts BLOB
) WITHOUT ROWID"""
_FORMER = "DROP TABLE IF EXISTS outcomes_1"
"""It knew no facts: what it held is read anew."""
_LOCK_SECONDS = 10.0


class FileKey(NamedTuple):
    """A file as it stood at one time. Its change time is in it since unpacking and copying set the other at will."""

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of reading a file."""

    sha256: str
    reason: str
    """Why it cannot be opened; empty where it can."""
    facts: bytes = b""
    """A row of `facts.FACTS`; empty where it cannot be opened."""
    lasting: bool = True
    """Whether the reason lies in the file's bytes: a permission or a lack of memory may be mended."""


class Outcomes:
    """The memory of all surveys, one SQLite file under `relish_home()`; several processes may use it at once."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or relish_home() / "pictures.sqlite3"
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> "Outcomes":
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connection = _opened(self._file)
            except sqlite3.OperationalError:  # locked, read-only or no such folder: the file may be a good one
                self._connection = None
            except sqlite3.DatabaseError:
                self._rebuild()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def recall(self, keys: Sequence[FileKey]) -> dict[FileKey, Outcome]:
        """What is known of these files, as they stand now."""
        if self._connection is None:
            return {}
        try:
            rows = [self._row(self._connection, key) for key in keys]
        except sqlite3.DatabaseError as error:
            self._give_up(error)
            return {}
        return {key: Outcome(*row) for key, row in zip(keys, rows, strict=True) if row}

    def remember(self, outcomes: Mapping[FileKey, Outcome]) -> None:
        """Keep these, in one transaction."""
        if self._connection is None or not outcomes:
            return
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO outcomes_2 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [(*key, _RULES, o.sha256, o.reason, o.facts) for key, o in outcomes.items()],
                )
        except sqlite3.DatabaseError as error:
            self._give_up(error)

    @staticmethod
    def _row(connection: sqlite3.Connection, key: FileKey) -> tuple[str, str, bytes] | None:
        found: tuple[str, str, bytes] | None = connection.execute(
            "SELECT sha256, reason, facts FROM outcomes_2"
            " WHERE path = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ? AND rules = ?",
            (*key, _RULES),
        ).fetchone()
        return found

    def _give_up(self, error: sqlite3.DatabaseError) -> None:
        self._close()
        if not isinstance(error, sqlite3.OperationalError):
            with suppress(OSError):
                self._rebuild()

    def _rebuild(self) -> None:
        for file in (self._file, self._file.with_name(f"{self._file.name}-journal")):
            file.unlink(missing_ok=True)
        with suppress(sqlite3.DatabaseError):
            self._connection = _opened(self._file)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _opened(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_LOCK_SECONDS)
    try:
        with connection:
            connection.execute(_FORMER)
            connection.execute(_TABLE)
    except sqlite3.Error:
        with closing(connection):
            raise
    return connection
