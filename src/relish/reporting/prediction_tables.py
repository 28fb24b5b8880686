"""Predictions as a table: CSV, JSONL or Parquet, of any number of rows.

In:   answers, some at a time.
Out:  a block of bytes for their rows, and what makes the table of all blocks (`core/growing.py` keeps them till then).

The columns are the same whatever the form: path, class, probability, unsure, error, and `probability_NAME` for each
class. No class can take the name of another column, since none of those begins with `probability_`. A name is written
as it is, also one that a spreadsheet would take for a formula; how many there are is for the caller to tell.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from relish.core.errors import DataError
from relish.core.io import atomic_path
from relish.data.layout import printable

FIRST_COLUMNS = ("path", "class", "probability", "unsure", "error")
GROUP_BYTES = 2**25
"""Of one row group of a Parquet file, before it is compressed."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets compute. Source: OWASP, "CSV Injection"."""


class Answer(Protocol):
    """What is said of one picture; a `Prediction` is one."""

    @property
    def path(self) -> str: ...
    @property
    def class_name(self) -> str | None: ...
    @property
    def probability(self) -> float | None: ...
    @property
    def probabilities(self) -> Mapping[str, float] | None: ...
    @property
    def unsure(self) -> bool: ...
    @property
    def error(self) -> str | None: ...


@dataclass(frozen=True)
class Table:
    """One form of table."""

    rows: Callable[[Sequence[Answer]], bytes]
    """Rows as a block of bytes."""
    finish: Callable[[Iterable[bytes], Path], None]
    """Makes the table of all blocks, whole or not at all."""
    formulas: bool = False
    """Whether spreadsheets open it, and compute cells that look like formulas."""


def table_for(path: Path, classes: Sequence[str]) -> Table:
    """The form of table that a file's suffix asks for.

    Raises:
        DataError: no form has this suffix; or pyarrow, which Parquet takes, is not installed.
    """
    makers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() not in makers:
        raise DataError(
            f"--out {path}: a table of predictions ends in {', '.join(makers)}.", hint="Such as predictions.csv."
        )
    return makers[path.suffix.lower()](classes)


def looks_like_a_formula(answer: Answer) -> bool:
    """Whether a spreadsheet would compute one of its cells instead of showing it."""
    return answer.path.startswith(_FORMULA) or (answer.class_name or "").startswith(_FORMULA)


def columns(classes: Sequence[str]) -> list[str]:
    """The names of all columns, in their order."""
    return [*FIRST_COLUMNS, *(f"probability_{name}" for name in classes)]


def _cells(answer: Answer, count: int) -> list[Any]:
    """In the order of the columns, None for what an answer lacks; float32: an answer has no more digits."""
    path = printable(answer.path)
    if answer.probabilities is None:
        return [path, None, None, None, answer.error, *[None] * count]
    each = [np.float32(p) for p in answer.probabilities.values()]
    return [path, answer.class_name, np.float32(answer.probability or 0), answer.unsure, None, *each]


# ---- CSV and JSONL --------------------------------------------------------------------------------------------------


def _csv(classes: Sequence[str]) -> Table:
    def lines(rows: Sequence[Sequence[Any]]) -> bytes:
        page = StringIO()
        csv.writer(page).writerows(rows)  # RFC 4180, so lines end in CR LF
        return page.getvalue().encode()

    def rows(answers: Sequence[Answer]) -> bytes:
        cells = [_cells(answer, len(classes)) for answer in answers]
        return lines([[str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in cells])

    return Table(rows, partial(_write_lines, lines([columns(classes)])), formulas=True)


def _jsonl(classes: Sequence[str]) -> Table:
    names = columns(classes)

    def line(answer: Answer) -> str:
        # A float32 is written with the digits that tell it from its neighbours, not with those of a float64.
        cells = [float(str(c)) if isinstance(c, np.float32) else c for c in _cells(answer, len(classes))]
        return json.dumps(dict(zip(names, cells, strict=True)), ensure_ascii=False) + "\n"

    return Table(lambda answers: "".join(map(line, answers)).encode(), partial(_write_lines, b""))


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
    kinds = [pa.string(), pa.string(), pa.float32(), pa.bool_(), pa.string(), *[pa.float32()] * len(classes)]
    schema = pa.schema(list(zip(columns(classes), kinds, strict=True)))

    def rows(answers: Sequence[Answer]) -> bytes:
        found = list(zip(*(_cells(answer, len(classes)) for answer in answers), strict=True))
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
