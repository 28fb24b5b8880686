"""`relish sweep DATA --vary lr=1e-5..1e-1`: accuracy against a number of the recipe."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from typer import Option

from relish.cli import options as o


@o.app.command(
    short_help="Train at several values of a number, such as the rate.",
    epilog="example:  relish sweep photos/ --vary lr=1e-5..1e-2 --points 4 --recipes book,book-scratch",
)
def sweep(
    data: o.Data,
    vary: Annotated[str, Option(help="A number of the recipe: lr=1e-5..1e-1, or epochs=1,2,5.")],
    points: Annotated[int, Option(help="Values of a range, evenly spaced on a log scale.")] = 7,
    recipes: Annotated[str, Option(help="Names of recipes.")] = "book",
    source: o.Source = None,
    weights: o.Weights = None,
    settings: o.Settings = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    image_size: o.ImageSize = None,
    mapping: o.Mappings = None,
    val_split: Annotated[float, Option(help="Share of the training pictures held back.")] = 0.2,
    split_names: o.SplitNames = None,
    root: o.Root = None,
    column_names: o.ColumnNames = None,
    zip_encoding: o.ZipEncoding = None,
    group_by: o.GroupBy = None,
    value_range: o.ValueRange = None,
    workers: o.Workers = None,
    seed: Annotated[int, Option(help="Of every random draw.", min=0)] = 0,
    device: o.Device = "auto",
    runs: o.Runs = Path("runs"),
    json: o.Json = False,
) -> None:
    """Train at several values, score on validation data, test the best of each recipe once. Finished runs are kept."""
    given = o.arguments(locals())
    from relish.tasks.sweep import sweep as run

    found = run(**given)
    if found is None:
        return  # another process prints
    print(jsonlib.dumps(found.as_json(), indent=1) if json else "\n".join(found.lines()))
    given["progress"].say(f"wrote   {found.folder}: sweep.txt, study.json, sweep.svg")
