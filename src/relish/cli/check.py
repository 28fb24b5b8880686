"""`relish check DATA`: say what training would meet, and change nothing."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from typer import Option

from relish.cli import options as o


@o.app.command(
    short_help="Look pictures over: broken files, copies, doubtful labels.",
    epilog="example:  relish check photos/ --html check.html    then:  relish check photos/ --fix clean.csv",
)
def check(
    data: o.Data,
    html: Annotated[
        Path | None, Option(help="A page to write, with the pictures side by side.", show_default=False)
    ] = None,
    fix: Annotated[
        Path | None,
        Option(help="A cleaned table (.csv) to write, which fit takes; files stay as they are.", show_default=False),
    ] = None,
    relabel: Annotated[
        float | None,
        Option(
            help="With --fix: give training pictures the suggested class where the model is this sure, 0 to 1.",
            show_default="no label is changed",
        ),
    ] = None,
    source: o.Source = None,
    weights: o.Weights = None,
    sha1: o.Sha1 = None,
    sha256: o.Sha256 = None,
    split_names: o.SplitNames = None,
    root: o.Root = None,
    column_names: o.ColumnNames = None,
    zip_encoding: o.ZipEncoding = None,
    group_by: o.GroupBy = None,
    value_range: o.ValueRange = None,
    workers: o.Workers = None,
    device: o.Device = "auto",
    json: o.Json = False,
) -> None:
    """Look a dataset over before training on it: every finding is a suspicion, and nothing is changed."""
    given = o.arguments(locals()) | {"workers": workers or 0}
    from relish.tasks.check import check as look

    found = look(**given)
    print(jsonlib.dumps(found.as_json(), indent=1) if json else found)
