"""`relish pretrain DATA`: step 1, a source model of one's own."""

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o


@o.app.command(
    short_help="Train a source model from random weights.",
    epilog="example:  relish pretrain things/    then:  relish fit photos/ --weights runs/things-pretrain-1",
)
def pretrain(
    data: Annotated[str | None, Argument(metavar="DATA", help="Folder, archive, address or table of pictures.")] = None,
    source: Annotated[str, Option(help="Whose design to train, from random weights.")] = "torchvision/resnet18",
    settings: o.Settings = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    image_size: o.ImageSize = None,
    val_split: o.ValSplit = None,
    split_names: o.SplitNames = None,
    root: o.Root = None,
    column_names: o.ColumnNames = None,
    zip_encoding: o.ZipEncoding = None,
    group_by: o.GroupBy = None,
    value_range: o.ValueRange = None,
    workers: o.Workers = None,
    seed: o.Seed = None,
    device: o.Device = "auto",
    out: Annotated[Path | None, Option(help="The run folder to make.", show_default="runs/DATA-pretrain-N")] = None,
    resume: Annotated[Path | None, Option(help="A run folder to resume.", show_default=False)] = None,
    quiet: o.Quiet = False,
) -> None:
    """Train a source model from random weights, to fine-tune later."""
    given = o.arguments(locals())
    from relish.tasks.fit import pretrain as run

    made = run(**given)
    given["progress"].say(f"next    relish fit DATA --weights {shlex.quote(str(made.path))}")
