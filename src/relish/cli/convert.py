"""`relish convert WEIGHTS OUT`: a Gluon file, or any other of weights, as safetensors with a header."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o


@o.app.command(
    short_help="Turn a Gluon .params file into safetensors with a header.",
    epilog="example:  relish convert resnet18_v2.params resnet18_v2.safetensors",
)
def convert(
    weights: Annotated[Path, Argument(metavar="WEIGHTS", help="Gluon .params file, or any file that --weights takes.")],
    out: Annotated[Path, Argument(metavar="OUT", help="The .safetensors file to write.")],
    source: Annotated[str | None, Option(help="The network it must be of.", show_default="what the file says")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace OUT if it exists.")] = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn a file of weights into safetensors whose header says how to build the network."""
    from relish.tasks.inspect import convert as run

    run(weights, out, source=source, overwrite=overwrite, progress=o.voice(quiet))
    print(out)
