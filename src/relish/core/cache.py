"""The cache of computed values: one SQLite file under `relish_home()`, and a lock for other work in that folder.

Entries are bytes under a kind and a key; the modules that write them define their meaning (`data/survey.py`,
`models/precision.py`, `evaluation/features.py`). A cache never makes a command fail: where its file is locked, full or
read-only, relish warns and computes without it; a damaged file is emptied.

A kill leaves a transaction complete or absent, and each entry has a checksum. The journal is SQLite's rollback journal,
not WAL: WAL needs shared memory, which home folders on a network lack, and was not faster (docs/design.md).
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from relish.core.errors import Failed
from relish.core.io import cannot_write, holder_of, relish_home, sign_lock
from relish.core.progress import SILENT, Progress

LOCK_SECONDS = 30.0
"""How long to wait for another process to end its transaction, which takes milliseconds."""
WORK_SECONDS = 3600.0
"""How long to wait for another process to end a download, or to unpack an archive."""

_TABLE = "CREATE TABLE IF NOT EXISTS entries (kind TEXT, key BLOB, value BLOB, UNIQUE (kind, key))"
_FIND = "SELECT CAST(value AS BLOB) FROM entries WHERE kind = ? AND key = ?"
_CHECKSUM_BYTES = 4


def cache_file() -> Path:
    """The file of all entries; it may be deleted whenever no relish is running."""
    return relish_home() / "cache.sqlite3"


class Cache:
    """Entries by kind and key; several processes may use the file at once.

    Each call opens the file and closes it again: a connection must not be carried into a forked process.
    """

    def __init__(self, progress: Progress = SILENT) -> None:
        self._file, self._progress, self._usable = cache_file(), progress, True

    def recall(self, kind: str, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The keys that have an undamaged entry, each with its value, in the order of the keys."""
        if not self._usable:
            return
        try:
            with closing(_opened(self._file)) as connection:
                for key in keys:
                    found = connection.execute(_FIND, (kind, key)).fetchone()
                    content: bytes = (found and found[0]) or b""
                    value = content[_CHECKSUM_BYTES:]
                    if content and content[:_CHECKSUM_BYTES] == _checksum(kind, key, value):
                        yield key, value
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def remember(self, kind: str, entries: Mapping[bytes, bytes]) -> bool:
        """Store these in one transaction, replacing earlier values; False where the cache can no longer be used."""
        if not (self._usable and entries):
            return self._usable
        try:
            with closing(_opened(self._file)) as connection, connection:
                connection.executemany(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
                    ((kind, key, _checksum(kind, key, value) + value) for key, value in entries.items()),
                )
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return self._usable

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        if is_damaged(error):
            try:
                remove_database(self._file)
            except OSError as refusal:
                error = refusal
            else:
                self._usable = True
                self._progress.warn(f"{self._file} was damaged and has been emptied; what it held is computed again.")
                return
        reason = getattr(error, "strerror", None) or str(error)
        self._progress.warn(f"{self._file} cannot be used ({reason}): what is computed now is not kept for next time.")


def is_damaged(error: Exception) -> bool:
    """Whether SQLite's error means a file that is no database, or a damaged one."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def remove_database(file: Path) -> None:
    """Delete a database, its journal first: a journal alone would be taken for the next database's."""
    for path in (file.with_name(f"{file.name}-journal"), file):
        path.unlink(missing_ok=True)


def _opened(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file, timeout=LOCK_SECONDS)
    try:
        # A power cut may then lose or break what is only a cache; a kill cannot.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _checksum(kind: str, key: bytes, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(key, zlib.crc32(kind.encode()))).to_bytes(_CHECKSUM_BYTES, "little")


# ---- other work in the home folder ----------------------------------------------------------------------------------


@contextmanager
def one_at_a_time(lock: Path, what: str, progress: Progress) -> Iterator[bool]:
    """Hold a lock against other processes of this computer, after waiting for it. It ends with its process.

    Yields:
        Whether the lock holds; False on the few network file systems that have no locks.

    Raises:
        WriteFailed: the folder of the lock cannot be made or written to.
        Failed: another process has held it for too long.
    """
    file_lock = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        exclusive = _acquire(file_lock, what, progress)
    except OSError as error:
        raise cannot_write(lock.parent, error, "Free some space or name another folder, then again.") from error
    try:
        yield exclusive
    finally:
        file_lock.release()


def _acquire(lock: FileLock, what: str, progress: Progress) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        holder = holder_of(Path(lock.lock_file))
        progress.say(f"{holder} is at work on {what}; waiting for it")
        try:
            lock.acquire(timeout=WORK_SECONDS)
        except Timeout:
            words = f"{holder} has been at work on {what} for {WORK_SECONDS / 60:.0f} minutes."
            raise Failed(words, hint="Is it still doing something? End it, or wait and try again.") from None
    except NotImplementedError:
        return False
    sign_lock(Path(lock.lock_file))
    return True
