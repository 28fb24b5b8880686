"""`relish sources DATA`: which source model suits these pictures."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from typer import Option

from relish.cli import options as o


@o.app.command(
    short_help="Try several source models on some of the pictures.",
    epilog="example:  relish sources photos/ --candidates embedded,timm/resnet50.a1_in1k",
)
def sources(
    data: o.Data,
    candidates: o.Candidates = None,
    yes: o.Yes = False,
    image_size: o.ImageSize = None,
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
    """Try source models on at most 1,000 training pictures: accuracy, size and time of each, the best first."""
    given = o.with_consent(o.arguments(locals()), asks=not json)
    from relish.tasks.sources import sources as run

    found = run(**given)
    if found is None:
        return  # another process prints
    print(jsonlib.dumps(found.as_json(), indent=1) if json else "\n".join(found.lines()))
    given["progress"].say(f"wrote   {found.folder}: sources.txt, study.json, sources.svg")
