"""Every error a user can meet.

    RelishError            shown as words, never as a traceback
    ├── BadInput           exit code 2: what was given cannot be used
    │   ├── DataError      a folder, archive, table or image
    │   │   └── ImageError   one image; `reason` says what is wrong with it
    │   ├── ModelError     a source model or a weights file
    │   ├── RecipeError    a recipe, one of its keys or values
    │   └── RunError       a run folder
    ├── Failed             exit code 1: the input is fine, the doing failed
    │   ├── DownloadFailed     a host, a dropped connection, a wrong checksum
    │   ├── WriteFailed        no space, no permission
    │   └── Diverged           the loss is no number any more
    └── Stopped            exit code 130: the user or the system asked for it, and the work so far is saved

Each message says what was given, what is wrong with it and what to do next, in one to three lines.
"""

import difflib
from collections.abc import Iterable


class RelishError(Exception):
    """An error that the user can fix.

    Args:
        message: what we got and what is wrong with it, naming the file or argument.
        hint: what to do next; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class BadInput(RelishError):
    """What was given cannot be used as it is."""

    exit_code = 2


class DataError(BadInput):
    """A dataset whose layout, names or files do not allow what was asked."""


class ImageError(DataError):
    """One image that cannot be opened; `reason` is the part without its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class ModelError(BadInput):
    """A source model or a weights file that cannot be built, found or matched."""


class RecipeError(BadInput):
    """A recipe, one of its keys, or a value out of range."""


class RunError(BadInput):
    """A run folder that is not one, is of another run, or is not finished."""


class Failed(RelishError):
    """The input is fine; doing it did not work."""


class DownloadFailed(Failed):
    """A file that could not be brought here whole."""


class WriteFailed(Failed):
    """A file that could not be written; the former file is unchanged."""


class Diverged(Failed):
    """Training whose loss is no finite number any more: the learning rate is too high."""


class Stopped(RelishError):
    """Stopped from outside, with the work so far saved."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the known name closest to a mistyped one, or an empty string."""
    close = closest(name, known)
    return f'did you mean "{close}"?' if close else ""


def closest(name: str, known: Iterable[str]) -> str:
    """The known name closest in spelling, or an empty string."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), "")
