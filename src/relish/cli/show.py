"""`relish show DATA`: look at pictures before training on them."""

from pathlib import Path
from typing import Annotated

from typer import Option

from relish.cli import options as o


@o.app.command(
    short_help="Write a grid of the pictures: look before training.",
    epilog="example:  relish show photos/    or, as the network sees them:  relish show photos/ --recipe book",
)
def show(
    data: o.Data,
    first: Annotated[str | None, Option(help="Class of the upper rows.", show_default="the first")] = None,
    last: Annotated[str | None, Option(help="Class of the lower rows.", show_default="the last")] = None,
    rows: Annotated[int, Option(help="Rows of pictures.")] = 2,
    columns: Annotated[int, Option(help="Pictures in a row.")] = 8,
    recipe: Annotated[
        str | None, Option(help="Show training pictures as this recipe's network sees them.", show_default=False)
    ] = None,
    source: o.Source = None,
    weights: o.Weights = None,
    image_size: o.ImageSize = None,
    value_range: o.ValueRange = None,
    seed: Annotated[int, Option(help="Of the crops, with --recipe.", min=0)] = 0,
    split_names: o.SplitNames = None,
    root: o.Root = None,
    column_names: o.ColumnNames = None,
    zip_encoding: o.ZipEncoding = None,
    out: Annotated[Path, Option(help="The picture to write.")] = Path("pictures.png"),
) -> None:
    """Write the book's grid: the first pictures of one class over the last of another."""
    given = o.arguments(locals())
    from relish.core.io import atomic_path
    from relish.tasks.inspect import show as grid

    del given["out"]
    made = grid(**given)
    with atomic_path(out) as temporary:
        made.save(temporary, format="PNG")
    print(out)
