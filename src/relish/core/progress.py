"""How long jobs tell where they are.

Work is written against `Progress`, which says nothing; `Warnings` shows what should not be missed, `Screen` lines and
live bars too. What a person sees is chosen once, at the edge: `Screen` on the command line (`Warnings` with `--quiet`
or `--json`), silence from Python and in every process but the first.
Everything goes to standard error, so that standard output stays what a command returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Bar:
    """One bar; this one is not shown."""

    shown = False

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Move on by `steps`, and show `words` beside the bar."""

    def expect(self, total: int) -> None:
        """How many steps there are in all, where that is found out on the way."""


class Progress:
    """A job's voice; this one is silent."""

    def say(self, line: str = "") -> None:
        """One plain line that stays on the screen."""

    def warn(self, line: str) -> None:
        """One line that should not be missed."""

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
        """A bar from `done` to `total` steps, None where nobody knows yet; gone at the end."""
        yield Bar()


class Muted(Progress):
    """Another voice's bars and warnings, but none of its lines."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def warn(self, line: str) -> None:
        self.progress.warn(line)

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
        with self.progress.bar(title, total, done) as shown:
            yield shown


class Warnings(Progress):
    """Warnings on standard error, and nothing else: what was left out is never left out in silence."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        self.console.print(f"warning: {line}", style="yellow", markup=False)


class Screen(Warnings):
    """Lines and live bars on standard error; bars are left out where it is not a terminal."""

    def say(self, line: str = "") -> None:
        self.console.print(line, markup=False)

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with RichProgress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as shown:
            task = shown.add_task(title, total=total, completed=done, words="")
            yield _ShownBar(shown, task) if self.console.is_terminal else Bar()


class _ShownBar(Bar):
    shown = True

    def __init__(self, progress: RichProgress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def expect(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def advance(self, steps: int = 1, words: str = "") -> None:
        if words:
            self._progress.update(self._task, advance=steps, words=words)
        else:
            self._progress.update(self._task, advance=steps)
