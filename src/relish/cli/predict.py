"""`relish predict RUN PATH…`: what a model says of pictures."""

import json as jsonlib
import sys
from typing import Annotated

import typer
from typer import Argument, Option

from relish.cli import options as o


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Say the class of pictures.",
        epilog="example:  relish predict runs/photos-auto-1 new.jpg holiday/ 'more/*.png'",
    )(predict)


def predict(
    run: o.Run,
    paths: Annotated[list[str], Argument(metavar="PATH", help="Files, folders, globs, or - for standard input.")],
    device: o.Device = "auto",
    precision: Annotated[str, Option(help="f32, or auto: bf16 where it is faster here and agrees.")] = "f32",
    json: o.Json = False,
) -> None:
    """Say the class of each picture, and how probable it is. Exit code 2 where no picture could be read."""
    from relish.tasks.predict import predict as ask

    good = bad = 0
    for found in ask(run, paths, device=device, precision=precision):
        good, bad = good + (found.error is None), bad + (found.error is not None)
        if json:
            # A list written row by row: whole at the end, and never held in memory.
            print(("[" if good + bad == 1 else ",\n ") + jsonlib.dumps(found.as_json()), end="")
        elif found.error is not None:
            print(f"{found.path}: {found.error}", file=sys.stderr)
        else:
            print(f"{found.path}  {found.class_name}  {found.probability:.4f}{'  unsure' * found.unsure}")
    if json:
        print("]" if good + bad else "[]")
    if bad:
        o.voice().warn(f"{bad} of {good + bad} pictures could not be read.")
        if not good:
            raise typer.Exit(2)
