"""`relish demo`: the four steps on drawn pictures, offline."""

import shlex
from pathlib import Path
from typing import Annotated

from typer import Option

from relish.cli import options as o


@o.app.command(
    short_help="Fine-tune on drawn pictures, offline: try this first.",
    epilog="then, with your own pictures in a folder a class:  relish fit photos/",
)
def demo(
    out: Annotated[Path, Option(help="Folder to make; numbered where it exists.")] = Path("relish-demo"),
    seed: Annotated[int, Option(help="Of the pictures and of the training.", min=0)] = 0,
) -> None:
    """Fine-tune on drawn pictures, offline, in a few minutes: against scratch, against a frozen backbone."""
    from relish.tasks.demo import demo as run

    made = run(out, seed=seed, progress=o.voice())
    best = made.comparison.sides[0].outcomes[0].folder.path
    print()
    print(made.comparison.table())
    for sentence in made.comparison.sentences():
        print(sentence)
    print("\nLook at")
    for path in made.wrote:
        print(f"  {path}")
    print("\nAsk the model about a picture")
    print(f"  {shlex.join(['relish', 'predict', str(best), str(made.folder / 'pictures/test/hotdog/000.jpg')])}")
    print("With your own pictures, in one folder a class")
    print("  relish fit photos/")
