"""Files: atomic writes, fingerprints of contents, and the folder of relish's own cache.

A kill, a full disk or a power cut leaves the old file or the new one, never a part of one: each write goes to a
temporary file beside its target, is forced to disk, then renamed over it. Rename is atomic only within one file
system, which is why the temporary file is not in /tmp.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from relish.core.errors import ModelError, RelishError, WriteFailed


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on a clean exit it becomes `target`, on an error it vanishes.

    Raises:
        WriteFailed: the folder cannot be made or written to, the disk is full, or `target` is a device or a
            pipe, whose place no file may take.
    """
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise cannot_write(target, OSError("it is a device or a pipe"), "Name a file.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        os.close(handle)
    except OSError as error:
        raise cannot_write(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        force_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        force_to_disk(target.parent)
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        raise cannot_write(target, cause) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; on a clean exit it becomes `target`, on an error it vanishes.

    Raises:
        WriteFailed: `target` exists already, or the disk is full.
    """
    if target.exists():
        raise WriteFailed(f"{target} exists already.", hint="Name another folder, or move that one away.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(target)
        force_to_disk(target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(target: Path, content: str) -> None:
    """Write UTF-8 text to `target`, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content.encode())


def write_json(target: Path, content: Any) -> None:
    """Write `content` to `target` as readable JSON, atomically; NaN is refused, since JSON has none."""
    write_text(target, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_yaml(target: Path, content: Any) -> None:
    """Write `content` to `target` as YAML in the order given, atomically."""
    write_text(target, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def sign_lock(lock: Path) -> None:
    """Write into a lock's file, while it is held, which process holds it."""
    with suppress(OSError):  # Windows keeps others from a locked file, this process's too
        lock.write_text(f"process {os.getpid()} on {platform.node()}")


def holder_of(lock: Path) -> str:
    """Who holds a lock, such as `another process (process 712 on tower)`."""
    with suppress(OSError, ValueError):
        if name := lock.read_text(encoding="utf-8"):
            return f"another process ({name[:100]})"
    return "another process"


def append_line(target: Path, line: str) -> None:
    """Add one line to a log, in one write, so that a kill can cut at most the last line.

    A last line that a full disk cut short is ended first, so that the new line is whole.

    Raises:
        WriteFailed: the disk is full or the folder cannot be written to.
    """
    try:
        with target.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else f"\n{line}"
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise cannot_write(target, error) from error


def force_to_disk(path: Path) -> None:
    """Have a file's content, or the names in a folder, survive a power cut.

    Raises:
        OSError: it cannot be opened or written.
    """
    if path.is_dir() and os.name != "posix":
        return  # only POSIX lets a folder be opened; elsewhere the rename itself has to do
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # There is no way to read the mask without setting it, so two threads must not do so at once.
    with _READING_MASK:
        mask = os.umask(0o022)
        os.umask(mask)
    return mask


_READING_MASK = threading.Lock()
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _system_error(error: Exception) -> OSError | None:
    """The system's error that this one is or hides: torch and zipfile raise their own where a disk is full."""
    if isinstance(error, OSError):
        return error
    cause: BaseException | None = None if isinstance(error, RelishError) else error.__context__
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in _FULL):
        cause = cause.__context__
    return cause


def cannot_write(target: Path, error: OSError, hint: str = "") -> WriteFailed:
    """The error to raise where the system refuses to write `target`; by default with a hint by the kind of refusal."""
    advice = "Free some space, then again." if error.errno in _FULL else "Name a place where you may write."
    return WriteFailed(f"{target}: cannot write ({error.strerror or error}).", hint=hint or advice)


# ---- fingerprints ---------------------------------------------------------------------------------------------------


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """SHA-256 of anything JSON can hold, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# ---- relish's own folder --------------------------------------------------------------------------------------------


def relish_home() -> Path:
    """The cache folder; it may not exist yet."""
    named = os.environ.get("RELISH_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "relish"


def check_target(target: Path, suffix: str, *, overwrite: bool) -> None:
    """Refuse a model's file to write that has another suffix, is a folder, or exists and is not to be replaced.

    Raises:
        ModelError: one of these.
    """
    if target.suffix != suffix:
        raise ModelError(f"{target}: is not named {suffix}.", hint=f"Write to {target.with_suffix(suffix)}.")
    if target.is_dir():
        raise ModelError(f"{target}: is a folder.", hint="Name a file.")
    if target.exists() and not overwrite:
        raise ModelError(f"{target} exists already.", hint="Name another file, or replace it: --overwrite.")
