"""How long jobs report their progress.

Jobs write to a `Progress`. The base class prints nothing, `Warnings` prints warnings, `Screen` lines and live bars too.
The command line chooses `Screen` (`Warnings` with `--quiet` or `--json`); Python stays silent, but in a notebook shows
`Cell`: one live bar, and warnings. Every process but the first is silent. What is printed goes to standard error, so
that standard output stays what a command returns.

Names come from strangers' folders: whatever is printed, here or by anyone through `EscapedStream`, cannot steer the
terminal.
"""

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from relish.core.errors import message_lines, visible


class EscapedStream:
    """A text stream that shows control characters as escapes, whoever writes to it."""

    def __init__(self, stream: TextIO, keep: str) -> None:
        self.plain, self._keep = stream, keep

    def write(self, text: str) -> int:
        return self.plain.write(visible(text, self._keep))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Standard output and error as `EscapedStream`s, for as long as a command runs."""
    # Libraries draw bars on standard error by carriage returns.
    out, error = EscapedStream(sys.stdout, "\n"), EscapedStream(sys.stderr, "\n\r")
    with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, error)):
        yield


class _LastingStream:
    """A text stream whose loss ends no job: a terminal may be closed while one goes on, or saves its work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def terminal() -> Console:
    """Standard error for coloured lines and bars; what is printed to it must be `visible` already."""
    lasting = _LastingStream(getattr(sys.stderr, "plain", sys.stderr))
    return Console(file=cast(TextIO, lasting), highlight=False, soft_wrap=True, force_jupyter=False)


class Bar:
    """A progress bar; this one is not shown."""

    shown = False

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Advance by `steps`, and show `words` beside the bar."""

    def expect(self, total: int) -> None:
        """Set the number of steps where it is found out on the way."""


class Progress:
    """Receives a job's messages; this one drops them."""

    def say(self, line: str = "") -> None:
        """Print one line."""

    def warn(self, line: str) -> None:
        """Print one line that should not be missed."""

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
        """A bar from `done` to `total` steps, None where the total is unknown; removed at the end."""
        yield Bar()


SILENT = Progress()
"""The default where no progress is given."""


class Muted(Progress):
    """Another progress's bars and warnings without its lines."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def warn(self, line: str) -> None:
        self.progress.warn(line)

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
        with self.progress.bar(title, total, done) as shown:
            yield shown


class Bars(Muted):
    """Another progress's bars alone, for work whose lines and warnings were said before."""

    def warn(self, line: str) -> None:
        pass


class Warnings(Progress):
    """Warnings on standard error and nothing else: what is omitted is always reported."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or terminal()

    def warn(self, line: str) -> None:
        self.console.print(f"warning: {message_lines(line)}", style="yellow", markup=False)


class Screen(Warnings):
    """Lines and live bars on standard error; no bars where it is not a terminal."""

    def say(self, line: str = "") -> None:
        self.console.print(visible(line), markup=False)

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
        steps = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn())
        words = TextColumn("{task.fields[words]}", markup=False)
        time = (words, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        hidden = not self.console.is_terminal
        with RichProgress(*steps, *time, console=self.console, transient=True, disable=hidden) as shown:
            task = shown.add_task(visible(title), total=total, completed=done, words="")
            yield Bar() if hidden else _ShownBar(shown, task)


class _ShownBar(Bar):
    shown = True

    def __init__(self, progress: RichProgress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def expect(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def advance(self, steps: int = 1, words: str = "") -> None:
        if words:
            self._progress.update(self._task, words=visible(words))
        self._progress.advance(self._task, steps)


class Cell(Progress):
    """For the cell of a notebook: one live bar in HTML, with what was said last below it; gone when a bar ends.

    Rich's own bars need ipywidgets there, or they come out as a line a refresh.
    """

    def __init__(self) -> None:
        self._display: Any = None
        self._said = ""

    def say(self, line: str = "") -> None:
        self._said = line

    def warn(self, line: str) -> None:
        print(f"warning: {message_lines(line)}", file=sys.stderr)

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
        shown = _CellBar(self, title, total, done)
        shown.draw()
        try:
            yield shown
        finally:
            self.show("", "")

    def show(self, plain: str, markup: str) -> None:
        """Replace what the bar's place shows; every bar of a job has the same place."""
        from IPython.display import display  # where there is a cell, there is IPython

        below = f"<div>{html.escape(visible(self._said))}</div>" if markup else ""
        shown = {"text/plain": plain, "text/html": markup + below}
        if self._display is None:
            self._display = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._display.update(shown, raw=True)


class _CellBar(Bar):
    shown = True

    def __init__(self, cell: Cell, title: str, total: int | None, done: int) -> None:
        self._cell, self._title, self._total, self._done = cell, title, total, done
        self._words = ""
        self._drawn = 0.0

    def expect(self, total: int) -> None:
        self._total = total

    def advance(self, steps: int = 1, words: str = "") -> None:
        self._done += steps
        self._words = words or self._words
        if time.monotonic() > self._drawn + _REDRAWN or self._done == self._total:
            self.draw()

    def draw(self) -> None:
        """Show how far it is."""
        self._drawn = time.monotonic()
        far = f"{self._done}/{self._total}" if self._total is not None else f"{self._done}"
        plain = visible(f"{self._title} {far} {self._words}".strip())
        # Without a value the browser shows a bar that is under way.
        value = "" if self._total is None else f' value="{self._done}" max="{self._total}"'
        self._cell.show(plain, f"<progress{value}></progress> {html.escape(plain)}")


_REDRAWN = 0.2
"""Seconds between two drawings of a bar in a notebook, each of which is a message to a browser."""


def default_progress() -> Progress:
    """What a call from Python shows where it was given no progress: a notebook's `Cell`, else nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return SILENT if getattr(shell, "kernel", None) is None else Cell()  # a terminal's IPython has no kernel
