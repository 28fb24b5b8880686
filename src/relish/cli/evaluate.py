"""`relish evaluate RUN DATA`: how good a model is on labelled pictures."""

import json as jsonlib
from typing import Annotated

from typer import Option

from relish.cli import options as o


@o.app.command(
    short_help="Judge a model on labelled pictures.",
    epilog="example:  relish evaluate runs/photos-auto-1 photos/ --split test",
)
def evaluate(
    run: o.RunOrFile,
    data: o.Data,
    split: Annotated[
        str | None,
        Option(help="train, validation or test.", show_default="test where there is one, else every picture"),
    ] = None,
    split_names: o.SplitNames = None,
    root: o.Root = None,
    column_names: o.ColumnNames = None,
    zip_encoding: o.ZipEncoding = None,
    group_by: o.GroupBy = None,
    by: Annotated[
        list[str] | None,
        Option(metavar="COLUMN", help="Show accuracy by a column of the table, such as camera, or by group."),
    ] = None,
    workers: o.Workers = None,
    device: o.Device = "auto",
    json: o.Json = False,
) -> None:
    """Judge a model on labelled pictures: accuracy with its interval, what its probabilities are worth, every class."""
    given = o.arguments(locals()) | {"workers": workers or 0, "by": by or ()}
    from relish.reporting.text import evaluation_text
    from relish.tasks.evaluate import evaluate as judge

    found = judge(**given)
    if found is None:
        return  # another process prints
    print(jsonlib.dumps(found.as_json(), indent=1) if json else evaluation_text(found))
