"""The journal of a folder: every change as one step that is done wholly or not at all, undone and done again.

A step is a list of operations on files below the folder: a move, a folder made or removed, a decision remembered. It is
written to `FOLDER/.relish/journal.sqlite3` before the first operation and marked after the last one. A process that is
killed in between leaves a step that was begun; whoever opens the folder next goes through its operations once more, of
which those already done change nothing. No operation deletes or replaces a file: a move takes a free name.

SQLite's rollback journal with `synchronous=FULL` keeps rows through a power cut; the folders that were changed are
forced to the disk before a step is marked done.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from relish.core.errors import DataError, Failed
from relish.core.io import cannot_write, force_to_disk

Verb = Literal["move", "mkdir", "rmdir", "keep", "forget"]
_OPPOSITE: dict[str, Verb] = {"move": "move", "mkdir": "rmdir", "rmdir": "mkdir", "keep": "forget", "forget": "keep"}
_TABLES = """
CREATE TABLE IF NOT EXISTS steps (
  number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL, state TEXT, details TEXT, operations TEXT);
CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT);
"""
DONE, UNDONE, DOING, UNDOING = "done", "undone", "doing", "undoing"
"""States of a step: the last two are those of one that a kill interrupted."""


class Operation(NamedTuple):
    """One operation; paths are relative to the folder, with forward slashes."""

    verb: Verb
    first: str
    """What is moved, made, removed or remembered."""
    second: str = ""
    """Where a move goes."""

    @property
    def inverse(self) -> "Operation":
        """What takes it back."""
        verb = _OPPOSITE[self.verb]
        return Operation(verb, self.second, self.first) if verb == "move" else Operation(verb, self.first)


@dataclass(frozen=True)
class Step:
    """One change as the page tells of it."""

    number: int
    details: dict[str, Any]
    """`kind`, `count`, `from`, `to`; `batch`, where several steps are undone together."""
    operations: tuple[Operation, ...]

    @property
    def shown(self) -> dict[str, Any]:
        """What the page is told of it."""
        return {name: self.details[name] for name in ("kind", "count", "from", "to")}


class Journal:
    """The steps of one folder; used by one process, from any thread.

    Args:
        folder: what the paths of operations are relative to; `file` may lie in it.

    Raises:
        DataError: the file is no journal.
        WriteFailed: it cannot be written.
    """

    def __init__(self, folder: Path, file: Path) -> None:
        self.folder, self.lock = folder, threading.RLock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._rows.execute("PRAGMA synchronous = FULL")
            self._rows.executescript(_TABLES)
        except OSError as error:
            raise cannot_write(file, error) from error
        except sqlite3.Error as error:
            self._rows.close()
            raise DataError(f"{file}: is no journal ({error}).", hint="Move it away: undo then begins anew.") from error
        self._file = file
        self.recovered = self._recover()

    def close(self) -> None:
        """End the use of the file."""
        with self.lock:
            self._rows.close()

    def perform(self, details: dict[str, Any], operations: Sequence[Operation]) -> None:
        """Do a step; what was undone before can no longer be done again.

        Raises:
            Failed: the system refuses an operation; those before it are taken back.
        """
        with self.lock:
            words = (time.time(), DOING, json.dumps(details), json.dumps(operations))
            with self._transaction():
                self._execute("DELETE FROM steps WHERE state = ?", (UNDONE,))
                number = self._execute(
                    "INSERT INTO steps (time, state, details, operations) VALUES (?, ?, ?, ?)", words
                ).lastrowid
            done: list[Operation] = []
            try:
                for operation in operations:
                    self._do(operation)
                    done.append(operation)
            except OSError as error:
                for operation in reversed(done):
                    with suppress(OSError):
                        self._do(operation.inverse)
                with self._transaction():
                    self._execute("DELETE FROM steps WHERE number = ?", (number,))
                raise Failed(
                    f"{error.filename or self.folder}: {error.strerror or error}.", hint="Try again."
                ) from None
            self._mark(number, DONE, operations)

    def next_step(self, state: str) -> Step | None:
        """The step that would be undone (`DONE`: the last one) or done again (`UNDONE`: the first one)."""
        order = "DESC" if state == DONE else "ASC"
        with self.lock:
            row = self._execute(
                f"SELECT number, details, operations FROM steps WHERE state = ? ORDER BY number {order}",  # noqa: S608
                (state,),
            ).fetchone()
        return None if row is None else _step(*row)

    def reverse(self, state: str) -> list[Step]:
        """Undo the last step (`DONE`) or do the next one again (`UNDONE`), with those of the same batch."""
        with self.lock:
            reversed_steps: list[Step] = []
            while step := self.next_step(state):
                batch = step.details.get("batch")
                if reversed_steps and (not batch or batch != reversed_steps[0].details.get("batch")):
                    break
                self._reverse(step, state)
                reversed_steps.append(step)
            return reversed_steps

    def kept(self) -> set[str]:
        """The keys of all decisions to keep something as it is."""
        with self.lock:
            return {key for (key,) in self._execute("SELECT key FROM kept")}

    def note(self, name: str, value: Any = None) -> Any:
        """A value that is kept with the folder, outside of undo; where one is given it is kept from now on."""
        with self.lock:
            if value is not None:
                self._execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))
                return value
            row = self._execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])

    # ---- doing ------------------------------------------------------------------------------------------------------

    def _reverse(self, step: Step, state: str) -> None:
        """Take a step back (`DONE`) or do it again (`UNDONE`), as far as what it moved is still there."""
        undo = state == DONE
        wanted = [operation.inverse for operation in reversed(step.operations)] if undo else list(step.operations)
        planned = list(self._planned(wanted))
        forward = [operation.inverse for operation in reversed(planned)] if undo else planned
        self._mark(step.number, UNDOING if undo else DOING, forward)
        for operation in planned:
            with suppress(OSError):  # what is gone, or in use, stays as it is
                self._do(operation)
        self._mark(step.number, UNDONE if undo else DONE, forward)

    def _planned(self, operations: Sequence[Operation]) -> Iterator[Operation]:
        """The operations with free names where others have taken theirs; moves of what is gone are left out."""
        names = Names(self.folder)
        for operation in operations:
            if operation.verb == "move":
                if not os.path.lexists(self.folder / operation.first):
                    continue
                operation = operation._replace(second=names.free(operation.second, operation.first))
            yield operation

    def _recover(self) -> int:
        """Bring steps that were interrupted to their end; how many there were."""
        rows = self._execute(
            "SELECT number, state, details, operations FROM steps WHERE state IN (?, ?)", (DOING, UNDOING)
        ).fetchall()
        for number, state, details, text in rows:
            step = _step(number, details, text)
            undo = state == UNDOING
            operations = [one.inverse for one in reversed(step.operations)] if undo else list(step.operations)
            for operation in operations:
                with suppress(OSError):
                    self._do(operation)
            self._mark(number, UNDONE if undo else DONE, step.operations)
        return len(rows)

    def _do(self, operation: Operation) -> None:
        """One operation; done already, it changes nothing."""
        first, second = self.folder / operation.first, self.folder / operation.second
        match operation.verb:
            case "move":
                move(first, second)
            case "mkdir":
                first.mkdir(parents=True, exist_ok=True)
            case "rmdir":
                with suppress(OSError):  # something has come in meanwhile, or it is gone
                    first.rmdir()
            case "keep":
                self._execute("INSERT OR IGNORE INTO kept VALUES (?)", (operation.first,))
            case "forget":
                self._execute("DELETE FROM kept WHERE key = ?", (operation.first,))

    def _mark(self, number: int | None, state: str, operations: Sequence[Operation]) -> None:
        if state in (DONE, UNDONE):
            for folder in {Path(one.first).parent for one in operations} | {Path(o.second).parent for o in operations}:
                with suppress(OSError):  # a folder that is gone
                    force_to_disk(self.folder / folder)
        with self._transaction():
            self._execute(
                "UPDATE steps SET state = ?, operations = ? WHERE number = ?", (state, json.dumps(operations), number)
            )

    def _execute(self, words: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Raises Failed: the file cannot be read or written; a step that was begun is finished at the next opening."""
        try:
            return self._rows.execute(words, values)
        except sqlite3.Error as error:
            hint = "Look whether the disk is full or broken, then start again: what was begun is finished."
            raise Failed(f"{self._file}: {error}.", hint=hint) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(Failed):  # what it is rolled back for is told
                self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")


def _step(number: int, details: str, operations: str) -> Step:
    return Step(number, json.loads(details), tuple(Operation(*one) for one in json.loads(operations)))


def move(source: Path, target: Path) -> None:
    """Rename a file or a folder; nothing happens where it is there already.

    Raises:
        OSError: there is something of that name, or the system refuses.
    """
    if not os.path.lexists(source) and os.path.lexists(target):
        return
    if os.path.lexists(target) and not (source.exists() and target.exists() and os.path.samefile(source, target)):
        raise FileExistsError(17, "something of that name is there already", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)


class Names:
    """Free names for what is moved: each folder is listed once, and each name given once.

    Args:
        folder: what paths are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._taken = folder, dict[str, set[str]]()

    def free(self, wanted: str, moved: str = "") -> str:
        """The path itself, or with a number before its ending, that nothing else has, whatever the case of letters.

        Args:
            moved: what is to get the name; its own name is free to it.
        """
        path = Path(wanted)
        taken = self._in(path.parent)
        own = Path(moved).name.casefold() if Path(moved).parent == path.parent else None
        number, name = 1, path.name
        while name.casefold() in taken and name.casefold() != own:
            number += 1
            name = f"{path.stem}-{number}{path.suffix}"
        taken.add(name.casefold())
        return (path.parent / name).as_posix()

    def _in(self, parent: Path) -> set[str]:
        if parent.as_posix() not in self._taken:
            try:
                names = os.listdir(self._folder / parent)
            except OSError:
                names = []
            self._taken[parent.as_posix()] = {name.casefold() for name in names}
        return self._taken[parent.as_posix()]
