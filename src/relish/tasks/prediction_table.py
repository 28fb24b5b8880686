"""Predictions as a CSV, JSONL or Parquet file of any number of rows, which a kill does not lose.

Until all rows are there they wait in a journal beside the table, `NAME.partial`: an SQLite file that one process holds
at a time. A block of rows and the names of its images are one record, so a kill or a power cut leaves both or neither.

The columns are the same in every format: `FIRST_COLUMNS`, and `probability_NAME` for each class. No class can take the
name of another column, since none of those begins with `probability_`. A name is written as it is, also one that a
spreadsheet would take for a formula; the caller reports how many there are.
"""

import csv
import errno
import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.cache import is_damaged, remove_database
from relish.core.errors import DataError, RelishError, RunError
from relish.core.io import atomic_path, cannot_write
from relish.evaluation.prediction import Prediction

FIRST_COLUMNS = ("path", "class", "probability", "unsure", "unfamiliarity", "unknown", "error")
GROUP_BYTES = 2**25
"""Of one row group of a Parquet file, before it is compressed."""
COMMIT_SECONDS = 2.0
"""Between two commits of the journal; the work that a kill can cost."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets compute. Source: OWASP, "CSV Injection"."""
_HASH_BYTES = 8

# ---- the journal ----------------------------------------------------------------------------------------------------


class Journal:
    """The rows so far of a table that is being written. Made by `journal_of`."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self._file, self._connection, self._committed = file, connection, time.monotonic()
        self.count = 0
        """Rows so far, those of earlier starts among them."""
        self.tally: Counter[str] = Counter()
        """Further counts that are kept with the rows."""
        with _errors_in_words(file):
            for tally, size in connection.execute("SELECT tally, length(names) FROM blocks"):
                self.count += size // _HASH_BYTES
                self.tally.update(json.loads(tally))

    def missing(self) -> "MissingRows":
        """What tells a name that has no row yet from one that has."""
        with _errors_in_words(self._file):
            names = b"".join(names for (names,) in self._connection.execute("SELECT names FROM blocks"))
        return MissingRows(np.frombuffer(names, dtype="<u8"))

    def add(self, rows: bytes, names: Sequence[str], tally: Mapping[str, int]) -> None:
        """Add a block of rows, one a name, and its counts to the tally; committed within `COMMIT_SECONDS`.

        Raises:
            WriteFailed: the disk is full.
        """
        hashes = b"".join(_hash(name).to_bytes(_HASH_BYTES, "little") for name in names)
        with _errors_in_words(self._file):
            self._connection.execute(
                "INSERT INTO blocks (tally, names, rows) VALUES (?, ?, ?)", (json.dumps(tally), hashes, rows)
            )
        self.count += len(names)
        self.tally.update(tally)
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make all rows last, even if the power fails now."""
        with _errors_in_words(self._file):
            self._connection.commit()
        self._committed = time.monotonic()

    def blocks(self) -> Iterator[bytes]:
        """The blocks in the order in which they were added."""
        with _errors_in_words(self._file):
            for (rows,) in self._connection.execute("SELECT rows FROM blocks ORDER BY number"):
                yield rows


class MissingRows:
    """Whether a name has no row yet; one that is named twice has two. Takes 16 bytes a row, not the names."""

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
def journal_of(
    target: Path, about: Mapping[str, Any], *, finish: Callable[[Iterator[bytes], Path], None], overwrite: bool = False
) -> Iterator[Journal]:
    """A journal to add rows to; a clean exit makes `target` of it, after any other one the same work can be resumed.

    Args:
        about: plain values for JSON; they must be equal when the work is resumed.
        finish: makes `target`, whole or not at all, out of the blocks.
        overwrite: replace `target`, and discard a journal that is there.

    Raises:
        RunError: `target` exists, its journal is about something else or damaged, or another process holds it.
        WriteFailed: no space, no permission; the work can be resumed from the rows so far.
    """
    if target.exists() and not overwrite:
        raise RunError(f"{target} exists already.", hint="Name another file, or replace it with --overwrite.")
    file = target.with_name(f"{target.name}.partial")
    with _errors_in_words(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        connection = _opened(file, overwrite)
    with closing(connection):
        _check_same_work(file, connection, about)
        journal = Journal(file, connection)
        try:
            yield journal
        finally:
            journal.commit()
        with _errors_in_words(target):
            finish(journal.blocks(), target)
            file.unlink()  # while this process holds it, so that it is nobody else's


def _opened(file: Path, overwrite: bool) -> sqlite3.Connection:
    if overwrite:
        try:
            with closing(_held(file)):
                remove_database(file)
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            remove_database(file)
    return _held(file)


def _held(file: Path) -> sqlite3.Connection:
    """A connection that keeps its lock until it is closed or its process ends."""
    connection = sqlite3.connect(file, timeout=0)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")  # the rows are hours of work, and commits are seconds apart
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("CREATE TABLE IF NOT EXISTS about (content TEXT)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, tally TEXT, names BLOB, rows BLOB)"
        )
        connection.commit()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _check_same_work(file: Path, connection: sqlite3.Connection, about: Mapping[str, Any]) -> None:
    with _errors_in_words(file):
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
def _errors_in_words(path: Path) -> Iterator[None]:
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
    # SQLite reports a quota that is used up as an I/O error.
    full = {sqlite3.SQLITE_FULL: "No space left on device", sqlite3.SQLITE_IOERR: str(error)}
    return cannot_write(path, OSError(errno.ENOSPC if code in full else errno.EACCES, full.get(code, str(error))))


def _hash(name: str) -> int:
    # Of a million names, two share one with a probability of 1 in 40 million; the second would then get no row.
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=_HASH_BYTES).digest(), "little")


# ---- the formats ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """One format of table."""

    rows: Callable[[Sequence[Prediction]], bytes]
    """Rows as a block of bytes."""
    finish: Callable[[Iterable[bytes], Path], None]
    """Makes the table of all blocks, whole or not at all."""
    formulas: bool = False
    """Whether spreadsheets open it, and compute cells that look like formulas."""


def table_for(path: Path, classes: Sequence[str]) -> Table:
    """The format that a file's suffix asks for.

    Raises:
        DataError: no format has this suffix; or pyarrow, which Parquet takes, is not installed.
    """
    makers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() not in makers:
        raise DataError(
            f"--out {path}: a table of predictions ends in {', '.join(makers)}.", hint="Such as predictions.csv."
        )
    return makers[path.suffix.lower()](classes)


def looks_like_a_formula(prediction: Prediction) -> bool:
    """Whether a spreadsheet would compute one of its cells instead of showing it."""
    return prediction.path.startswith(_FORMULA) or (prediction.class_name or "").startswith(_FORMULA)


def columns(classes: Sequence[str]) -> list[str]:
    """The names of all columns, in their order."""
    return [*FIRST_COLUMNS, *(f"probability_{name}" for name in classes)]


def _cells(prediction: Prediction, count: int) -> list[Any]:
    """In the order of the columns, None for what a prediction lacks; float32: a prediction has no more digits."""
    path = prediction.path.encode("utf-8", "backslashreplace").decode()
    if prediction.probabilities is None:
        return [path, *[None] * 5, prediction.error, *[None] * count]
    each = [np.float32(p) for p in prediction.probabilities.values()]
    strange = None if prediction.unfamiliarity is None else np.float32(prediction.unfamiliarity)
    doubts = [prediction.unsure, strange, prediction.unknown]
    return [path, prediction.class_name, np.float32(prediction.probability or 0), *doubts, None, *each]


# ---- CSV and JSONL --------------------------------------------------------------------------------------------------


def _csv(classes: Sequence[str]) -> Table:
    def lines(rows: Sequence[Sequence[Any]]) -> bytes:
        page = StringIO()
        csv.writer(page).writerows(rows)  # RFC 4180, so lines end in CR LF
        return page.getvalue().encode()

    def rows(predictions: Sequence[Prediction]) -> bytes:
        cells = [_cells(prediction, len(classes)) for prediction in predictions]
        return lines([[str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in cells])

    return Table(rows, partial(_write_lines, lines([columns(classes)])), formulas=True)


def _jsonl(classes: Sequence[str]) -> Table:
    names = columns(classes)

    def line(prediction: Prediction) -> str:
        # A float32 is written with the digits that tell it from its neighbours, not with those of a float64.
        cells = [float(str(c)) if isinstance(c, np.float32) else c for c in _cells(prediction, len(classes))]
        return json.dumps(dict(zip(names, cells, strict=True)), ensure_ascii=False) + "\n"

    return Table(lambda predictions: "".join(map(line, predictions)).encode(), partial(_write_lines, b""))


def _write_lines(head: bytes, blocks: Iterable[bytes], target: Path) -> None:
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        file.write(head)
        file.writelines(blocks)


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(classes: Sequence[str]) -> Table:
    """A block is a record batch, as an Arrow message; Parquet's index comes at the end."""
    try:
        import pyarrow as pa  # late: only Parquet needs it
    except ImportError as error:
        raise DataError(
            "writing Parquet takes pyarrow, which is not installed.",
            hint='Install it with  pip install "relish-vision[parquet]"  or name a .csv or .jsonl file.',
        ) from error
    first = [pa.string(), pa.string(), pa.float32(), pa.bool_(), pa.float32(), pa.bool_(), pa.string()]
    kinds = [*first, *[pa.float32()] * len(classes)]
    schema = pa.schema(list(zip(columns(classes), kinds, strict=True)))

    def rows(predictions: Sequence[Prediction]) -> bytes:
        found = list(zip(*(_cells(prediction, len(classes)) for prediction in predictions), strict=True))
        arrays = [pa.array(column, kind) for column, kind in zip(found, kinds, strict=True)]
        return bytes(pa.record_batch(arrays, schema=schema).serialize())

    return Table(rows, partial(_write_parquet, schema))


def _write_parquet(schema: Any, blocks: Iterable[bytes], target: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    batches = (pa.ipc.read_record_batch(block, schema) for block in blocks)
    with atomic_path(target) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for group in _grouped(batches):
            writer.write_table(pa.Table.from_batches(group))


def _grouped(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Batches together as a row group: many small ones would make a file that is large and slow to read."""
    group: list[Any] = []
    size = 0
    for batch in batches:
        group.append(batch)
        size += batch.nbytes
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
