"""`relish compare DATA`: several recipes on the same pictures."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from typer import Option

from relish.cli import options as o


@o.app.command(
    short_help="Train several recipes on the same pictures.",
    epilog="example:  relish compare photos/ --recipes book,frozen --seeds 3",
)
def compare(
    data: o.Data,
    recipes: Annotated[str, Option(help="Names of recipes; each is tested against the first.")] = (
        "book,book-scratch,frozen,source-head"
    ),
    seeds: Annotated[int, Option(help="Runs of each recipe.")] = 1,
    source: o.Source = None,
    weights: o.Weights = None,
    settings: o.Settings = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    image_size: o.ImageSize = None,
    mapping: o.Mappings = None,
    val_split: o.ValSplit = None,
    split_names: o.SplitNames = None,
    root: o.Root = None,
    column_names: o.ColumnNames = None,
    zip_encoding: o.ZipEncoding = None,
    group_by: o.GroupBy = None,
    value_range: o.ValueRange = None,
    workers: o.Workers = None,
    device: o.Device = "auto",
    runs: o.Runs = Path("runs"),
    json: o.Json = False,
) -> None:
    """Train several recipes on the same pictures: one table with paired tests, one chart. Finished runs are kept."""
    given = o.arguments(locals())
    from relish.tasks.compare import compare as run

    found = run(**given)
    if found is None:
        return  # another process prints
    print(jsonlib.dumps(found.as_json(), indent=1) if json else "\n".join([found.table(), *found.sentences()]))
    given["progress"].say(f"wrote   {found.folder}: compare.txt, study.json, curves.svg")
