"""`relish export RUN OUT`: one ONNX file that prepares its pictures itself."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o


@o.app.command(
    short_help="Write a model as one ONNX file, proved against PyTorch.",
    epilog="example:  relish export runs/photos-auto-1 photos.onnx",
)
def export(
    run: o.Run,
    out: Annotated[Path, Argument(metavar="OUT", help="The .onnx file to write.")],
    batch: Annotated[int, Option(help="Pictures it takes at once, all of one size.", min=1)] = 1,
    int8: Annotated[bool, Option("--int8", help="Compute in 8-bit whole numbers.")] = False,
    data: Annotated[
        str | None, Option(help="Labelled pictures to prove it on.", show_default="those the run was judged on")
    ] = None,
    split_names: o.SplitNames = None,
    root: o.Root = None,
    column_names: o.ColumnNames = None,
    zip_encoding: o.ZipEncoding = None,
    limit: Annotated[int | None, Option(help="Prove it on so many pictures.", show_default="all", min=1)] = None,
    allow_mismatch: Annotated[
        bool, Option("--allow-mismatch", help="Keep a file that answers otherwise than PyTorch.")
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace OUT if it exists.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write a model as one ONNX file: uint8 pictures of any size in, probabilities out.

    It is compared with PyTorch on real pictures first; a file that answers otherwise is not written (exit code 1).
    """
    given = o.arguments(locals())
    from relish.tasks.export import export as run_export

    voice, done = given["progress"], run_export(**given)
    if json:
        print(jsonlib.dumps(done.as_json(), indent=1))
        return
    for line in done.summary():
        voice.say(line)
    for words in done.mismatch:
        voice.warn(words)
    voice.say(f"next    relish predict {out} PICTURE")
    print(out)
