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
    │   ├── TooLittleMemory    in parts as small as they can be, too
    │   ├── WorkerFailed       a process that reads images has died, or says nothing any more
    │   └── Diverged           the loss is no number any more
    └── Stopped            exit code 128 and the signal's number: asked for from outside, and the work so far is saved

Each message says what was given, what is wrong with it and what to do next, in one to three lines. Names in it come
from strangers' folders: what would steer a terminal is shown as an escape, and a line of any length is cut.
"""

import difflib
import re
import signal
from collections.abc import Iterable

_STEERING = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, Unicode's line ends and marks of direction, and halves of pairs, which cannot be encoded."""


def visible(text: str, keep: str = "\n") -> str:
    """The text with every character that steers a screen, instead of being shown, as an escape such as `\\x1b`.

    Control characters move the cursor and change colours; marks of direction show a name in another order than its
    own (Unicode Technical Report 36, section 2.5).

    Args:
        keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return _STEERING.sub(lambda met: met[0] if met[0] in keep else _escape(met[0]), text)


def one_line(name: object) -> str:
    """A name or a path as `visible` shows it, line ends too."""
    return visible(str(name), keep="")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


LONGEST_LINE = 1000
"""Characters: room for the longest path, and not for whatever text a file holds where a word should be."""


def message_lines(text: str) -> str:
    """A message as it is shown; only where it goes on with two blanks, as ours do, a line ends.

    Of a line that is too long, the middle is left out.
    """
    return "\n  ".join(_cut(one_line(line)) for line in text.split("\n  "))


def _cut(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    half = LONGEST_LINE // 2
    return f"{line[: half - 1]} … {line[2 - half :]}"


class RelishError(Exception):
    """An error that the user can fix.

    Args:
        message: what we got and what is wrong with it, naming the file or argument.
        hint: what to do next; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message_lines(message)
        self.hint = message_lines(hint)

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
        self.reason = one_line(reason)

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # on its way from a worker process


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


class TooLittleMemory(Failed):
    """Neither this machine's memory nor its device's holds what is asked for."""


class WorkerFailed(Failed):
    """A worker process that was killed, or that has given no sign of life for too long."""


class Diverged(Failed):
    """Training whose loss is no finite number any more: the learning rate is too high."""


class Stopped(RelishError):
    """Stopped from outside, with the work so far saved.

    Args:
        number: of the signal that asked for it.
    """

    def __init__(self, message: str, *, hint: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + number


class Interruption(KeyboardInterrupt):
    """A signal that asks to stop, where there is nothing to finish first; raised as Python raises Ctrl-C.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stopped_by(error: KeyboardInterrupt, message: str, hint: str) -> Stopped:
    """The error that stands for an interruption, by a signal or by Ctrl-C."""
    return Stopped(message, hint=hint, number=error.number if isinstance(error, Interruption) else signal.SIGINT)


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the known name closest to a mistyped one, or an empty string."""
    close = closest(name, known)
    return f'did you mean "{close}"?' if close else ""


def closest(name: str, known: Iterable[str]) -> str:
    """The known name closest in spelling, or an empty string."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), "")
