"""What every target of the fuzzing shares: how long it runs, and what must hold whatever was read.

In CI a target tries a few hundred examples, the same ones each time. With RELISH_FUZZ_SECONDS it tries new ones for so
long, and stops at the first that fails; Hypothesis keeps that one in `.hypothesis/`, and begins with it the next time.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.strategies import SearchStrategy

from relish.core.errors import LONGEST_LINE, RelishError, visible
from tests.conftest import IN_MEMORY

KEPT = Path(".hypothesis")
CPU_SECONDS = 10
"""Of processor time that one example may take: a hang. Waiting for other programs does not count."""
MEMORY = 400 * 2**20
"""Bytes by which one example may raise the process's memory."""
LINES = 3
"""Of an error that a user reads."""

Property = Callable[[Any], None]


def fuzz(inputs: SearchStrategy[Any], examples: int) -> Callable[[Property], Callable[[], None]]:
    """Make a test of a property of every input.

    Args:
        examples: in CI.
    """

    def decorate(check: Property) -> Callable[[], None]:
        target = check.__module__.rpartition("test_")[2]

        @pytest.mark.filterwarnings("ignore:Generating overly large repr")  # `note` has the input, cut
        @pytest.mark.slow
        @pytest.mark.fuzz
        def test() -> None:
            seconds = float(os.environ.get("RELISH_FUZZ_SECONDS", 0))
            if seconds:
                _explore(target, inputs, check, seconds)
            else:
                options = settings(OPTIONS, max_examples=examples, derandomize=True, database=None)
                options(given(inputs)(_noted(check)))()

        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        test.inputs, test.check = inputs, check  # type: ignore[attr-defined]
        return test

    return decorate


def _noted(check: Property) -> Property:
    """The same property, which says at a failure for which input it was."""

    def noted(example: Any) -> None:
        note(f"input: {example!r:.4000}")
        check(example)

    noted.__qualname__, noted.__module__ = check.__name__, check.__module__
    return noted


OPTIONS = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    print_blob=True,
)
_ROUND = 500
"""Examples of one round: of each, Hypothesis avoids repeating any."""


def _explore(target: str, inputs: SearchStrategy[Any], check: Property, seconds: float) -> None:
    """New examples until the time is over, or one fails."""
    began, count, failed = time.monotonic(), 0, 0
    KEPT.mkdir(exist_ok=True)
    last = KEPT / f"last-{target}"  # an example that kills the process is in here

    def counted(example: Any) -> None:
        nonlocal count
        count += 1
        last.write_text(repr(example), errors="backslashreplace")
        noted(example)

    noted = _noted(check)
    counted.__qualname__, counted.__module__ = f"{check.__name__}.counted", check.__module__
    options = settings(OPTIONS, max_examples=_ROUND, database=DirectoryBasedExampleDatabase(KEPT / "examples"))
    try:
        while time.monotonic() - began < seconds:
            options(seed(int.from_bytes(os.urandom(8), "big"))(given(inputs)(counted)))()
    except BaseException:
        failed = 1
        raise
    finally:
        print(f"\nfuzz {target}: {count:,} examples in {time.monotonic() - began:.0f} s, {failed} failed", flush=True)
    last.unlink()


# ---- what must hold -------------------------------------------------------------------------------------------------


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder that is relish's home and the current folder's parent; nothing outside it may be written."""
    before, home = os.getcwd(), os.environ.get("RELISH_HOME")
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=IN_MEMORY, ignore_cleanup_errors=True) as name:
        inside = Path(name).resolve() / "here"
        inside.mkdir()
        os.chdir(inside)
        os.environ["RELISH_HOME"] = str(inside.parent / "home")
        try:
            yield inside
        finally:
            os.chdir(before)
            os.environ.pop("RELISH_HOME", None) if home is None else os.environ.update(RELISH_HOME=home)


@contextmanager
def kept_in(place: Path, lines: int = LINES) -> Iterator[None]:
    """Let errors for users pass; anything else, a hang, hunger for memory, or an escape fails.

    Args:
        place: below it anything may be written.
        lines: of an error.
    """
    with _watched(place), _limited_time(), _limited_memory():
        try:
            yield
        except RelishError as error:
            assert_readable(str(error), lines)


def assert_readable(words: str, lines: int = LINES) -> None:
    """An error has a few lines, each of characters that a terminal shows."""
    assert words.strip(), "an error without words"
    assert words.count("\n") < lines, f"{words.count(chr(10)) + 1} lines: {words!r}"
    assert words == visible(words), f"steers the terminal: {words!r}"
    longest = max(map(len, words.split("\n")))
    assert longest <= LONGEST_LINE + 2, f"a line of {longest} characters: {words[:200]!r}"


@contextmanager
def _limited_time() -> Iterator[None]:
    def over(*_: object) -> None:
        raise AssertionError(f"more than {CPU_SECONDS} s of processor time")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


@contextmanager
def _limited_memory() -> Iterator[None]:
    """By Linux's own record of the highest use; elsewhere nothing is measured."""
    before = _memory(reset=True)
    yield
    grown = _memory() - before
    assert grown < MEMORY, f"{grown / 2**20:.0f} MB of memory for one example"


def _memory(*, reset: bool = False) -> int:
    """The highest resident memory of this process in bytes since the last reset."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class")
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_place: list[Path] = []
_escaped: list[str] = []


@contextmanager
def _watched(place: Path) -> Iterator[None]:
    """Fail where a file outside `place` is written, a program started, a host asked or an object unpickled."""
    _install()
    _escaped.clear()
    _place.append(place)
    try:
        yield
    finally:
        _place.pop()
    assert not _escaped, _escaped[:3]


def _audit(event: str, given: tuple[Any, ...]) -> None:
    """Python calls this at each access to the system."""
    if not _place:
        return
    if event in _PROGRAMS or event == "socket.connect":
        _escaped.append(f"{event} {given!r:.200}")
    elif event == "open" and isinstance(given[2], int) and given[2] & _WRITING and not isinstance(given[0], int):
        _check_path(event, given[0])
    elif event in _CHANGES:
        numbers = [one for one in given[1:] if isinstance(one, int)]
        for path in given[:2]:
            _check_path(event, path, numbers[-1] if numbers else -1)


def _check_path(event: str, path: object, folder: int = -1) -> None:
    """Note a path outside; it may be relative to an open folder."""
    with suppress(ValueError, TypeError, OSError):
        above = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()
        text = os.path.normpath(os.path.join(above, os.fsdecode(path)))  # type: ignore[arg-type]
        allowed = text.startswith((f"{_place[-1]}{os.sep}", "/dev/null", "/proc/self/")) or "__pycache__" in text
        if not allowed and text != str(_place[-1]):
            _escaped.append(f"{event} {text!r:.300}")


_INSTALLED: list[bool] = []


def _install() -> None:
    if not _INSTALLED:  # a hook cannot be taken out again
        sys.addaudithook(_audit)
        _INSTALLED.append(True)
