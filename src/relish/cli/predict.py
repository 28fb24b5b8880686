"""`relish predict RUN PATH…`: what a model says of pictures."""

import json as jsonlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from relish.cli import options as o
from relish.core.errors import one_line

if TYPE_CHECKING:
    from relish.evaluation.prediction import Prediction


@o.app.command(
    short_help="Say the class of pictures.",
    epilog="example:  relish predict runs/photos-auto-1 new.jpg holiday/ 'more/*.png'    or, of many:  "
    "relish predict runs/photos-auto-1 archive/ --out answers.csv",
)
def predict(
    run: o.RunOrFile,
    paths: Annotated[list[str], Argument(metavar="PATH", help="Files, folders, globs, or - for standard input.")],
    out: Annotated[
        Path | None,
        Option(
            help="Table to write: .csv, .jsonl or .parquet. Given again, a broken-off command goes on.",
            show_default="the screen",
        ),
    ] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace the table, and what is left of a former one.")
    ] = False,
    null: Annotated[bool, Option("--null", "-0", help="Paths on standard input end in NUL: find -print0.")] = False,
    device: o.Device = "auto",
    precision: Annotated[str, Option(help="f32, or auto: bf16 where it is faster here and agrees.")] = "f32",
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Say the class of each picture, and how probable it is. Exit code 2 where no picture could be read."""
    from relish.core.errors import BadInput
    from relish.tasks.predict import predict as ask
    from relish.tasks.predict import predict_table

    if out is None:
        if overwrite:
            raise BadInput("--overwrite replaces a table, and none is named.", hint="Name one with --out.")
        voice = o.voice(quiet=True)
        answers = ask(run, paths, nul=null, device=device, precision=precision, progress=voice)
        pictures, unreadable = _print(answers, json)
        if unreadable:
            voice.warn(f"{unreadable} of {pictures} pictures could not be read.")
    else:
        voice = o.voice(quiet or json)
        written = predict_table(
            run, paths, out, nul=null, overwrite=overwrite, device=device, precision=precision, progress=voice
        )
        if written.formulas:
            voice.warn(
                f"{written.formulas:,} rows hold a name that begins like a formula: let no spreadsheet compute {out}, "
                "import it as text."
            )
        print(jsonlib.dumps(written.as_json()) if json else written.sentence())
        pictures, unreadable = written.pictures, written.unreadable
    if pictures and pictures == unreadable:
        if out is not None:
            voice.warn(f"no picture could be read: the column error of {out} says why.")
        raise typer.Exit(2)


def _print(answers: "Iterator[Prediction]", json: bool) -> tuple[int, int]:
    """Answers as they come: how many there were, and how many of them are errors."""
    good = bad = 0
    for found in answers:
        good, bad = good + (found.error is None), bad + (found.error is not None)
        if json:
            # A list written row by row: whole at the end, and never held in memory.
            print(("[" if good + bad == 1 else ",\n ") + jsonlib.dumps(found.as_json()), end="")
        elif found.error is not None:
            print(f"{one_line(found.path)}: {found.error}", file=sys.stderr)
        else:
            answer = [f"{found.class_name}  {found.probability:.4f}", *found.doubts]
            print(f"{one_line(found.path)}  {'  '.join(answer)}")
    if json:
        print("]" if good + bad else "[]")
    return good + bad, bad
