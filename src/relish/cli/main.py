"""The `relish` command: gathers the commands, and turns every error into words and an exit code."""

import atexit
import io
import os
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from typer import Option

from relish.cli.options import app
from relish.core.errors import RelishError, visible
from relish.core.io import relish_home, write_text
from relish.core.progress import escaped_output, terminal
from relish.core.runtime import StopFlag, is_out_of_memory

INTERRUPTED = 130
"""What typer makes of Ctrl-C."""

COMMANDS = (
    *("demo", "show", "check", "fit", "evaluate", "decide", "report", "predict", "export", "serve", "teach"),
    *("compare", "sweep", "sources", "models", "pretrain", "convert", "card"),
)
"""A module of this room each, in the order of `relish --help`."""
for name in COMMANDS:
    import_module(f"relish.cli.{name}")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"relish {version('relish-vision')}")
        raise typer.Exit


@app.callback()
def before_a_command(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options of `relish` itself; each does its work in its own callback."""


def main() -> None:
    """Run one command; exit code 0 when done, 1 when it failed, 2 for bad input, 128 and the signal's when stopped."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that is not UTF-8, or a terminal that knows no arrows, is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    with StopFlag() as stop, stop.at_once():
        try:
            _in_words(stop)
        except KeyboardInterrupt:  # once more, while the first one was told
            sys.exit(128 + stop.number)


def program() -> NoReturn:
    """`main` in a process of its own, which then ends at once.

    Python would take every module apart first: seconds, where torch is among them. Whatever asked to be told of the end
    is told, such as processes that read images.
    """
    code: str | int | None = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    if not isinstance(code, int | None):  # words
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does, before what is registered
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


def _command(stop: StopFlag) -> None:
    try:
        os.getcwd()  # libraries look for files beside it, and end the process where it is gone
    except FileNotFoundError:
        _end("the current folder is not there any more: it was removed.\n  Go to another one.", 2)
    try:
        with escaped_output():
            app(prog_name="relish")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # where no run is under way
            _print_error("stopped.")
            sys.exit(128 + stop.number if stop else INTERRUPTED)
        raise
    finally:
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told


def _in_words(stop: StopFlag) -> None:
    try:
        _command(stop)
    except RelishError as error:
        _end(str(error), error.exit_code)
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        sys.exit(1)
    except Exception as error:
        if is_out_of_memory(error):
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            _end(f"too little memory ({reason}).\n  Free some, or take smaller pictures, batches or networks.", 1)
        if not isinstance(error, OSError):
            reason = (str(error).splitlines() or [""])[0][:120]
            _end(
                f"{type(error).__name__}: {reason}\n  This is a defect of relish: please report it, with {_kept()}.", 1
            )
        if error.filename is None:
            _drop_output()
        _end(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)


def _kept() -> str:
    """The file that holds the traceback of the error that is being handled."""
    file = relish_home() / "traceback.txt"
    try:
        write_text(file, traceback.format_exc())
    except (OSError, RelishError):
        return "the command you typed"
    return str(file)


def _open_closed_streams() -> None:
    """Give each standard stream that the caller closed, as `>&-` does, the null device: Python has None in its place.

    The first free descriptor goes to the next file that is opened; what a library prints would otherwise land in it.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _end(words: str, exit_code: int) -> NoReturn:
    _print_error(f"error: {words}")
    sys.exit(exit_code)


def _print_error(words: str) -> None:
    terminal().print(visible(words), markup=False, style="red")


def _drop_output() -> None:
    """Keep Python from trying to write the rest once more when it ends (its documentation of SIGPIPE)."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # not a real file, such as a test's
