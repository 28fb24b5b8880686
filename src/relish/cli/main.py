"""The `relish` command: gathers the commands, and turns every error into words and an exit code."""

import io
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from typer import Option

from relish.cli.options import app
from relish.core.errors import RelishError, visible
from relish.core.progress import escaped_output, terminal

INTERRUPTED = 130

COMMANDS = (
    *("demo", "show", "check", "fit", "evaluate", "decide", "report", "predict", "export", "serve"),
    *("compare", "sweep", "models", "pretrain", "convert", "card"),
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
    """Run one command; exit code 0 when done, 1 when it failed, 2 for bad input, 130 when stopped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that is not UTF-8, or a terminal that knows no arrows, is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            with escaped_output():
                app(prog_name="relish")
        finally:
            sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
    except RelishError as error:
        _end(str(error), error.exit_code)
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            _drop_output()
        _end(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # Ctrl-C where no run is under way; typer has made an exit code of it
            print("stopped.", file=sys.stderr)
        raise


def _end(words: str, exit_code: int) -> NoReturn:
    terminal().print(f"error: {visible(words)}", markup=False, style="red")
    sys.exit(exit_code)


def _drop_output() -> None:
    """Keep Python from trying to write the rest once more when it ends (its documentation of SIGPIPE)."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # not a real file, such as a test's
