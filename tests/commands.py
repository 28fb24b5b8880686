"""Type a command into `relish` without starting a process: what came out, and with which exit code."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

from relish.cli.main import main


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def relish(*words: object, stdin: bytes = b"") -> Ended:
    """Run one command in this process; an error that nothing foresaw fails the test."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    former = sys.argv, sys.stdin
    sys.argv, sys.stdin = ["relish", *map(str, words)], io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as exited:
        ended = Ended(int(exited.code or 0), *(stream.buffer.getvalue().decode() for stream in (out, err)))
        assert "defect of relish" not in ended.err, ended.err
        return ended
    finally:
        sys.argv, sys.stdin = former
    raise AssertionError("a command ends by exiting")


def refused(*words: object, code: int = 2) -> str:
    """The words of a command's refusal: standard error alone, an error first or after what led to it, a few lines."""
    ended = relish(*words)
    assert (ended.code, ended.out) == (code, ""), ended
    before, error, after = ended.err.rpartition("rror: ")
    assert error, ended.err
    assert len(after.splitlines()) <= 6, after
    assert "Traceback" not in before
    return after


def done(*words: object, stdin: bytes = b"") -> Ended:
    """A command that has to succeed."""
    ended = relish(*words, stdin=stdin)
    assert ended.code == 0, ended.err
    return ended


def files_below(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with its bytes: what has to be as it was after a refusal."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
