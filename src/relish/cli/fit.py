"""`relish fit DATA`: fine-tune a source model on labelled pictures."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o


@o.app.command(
    short_help="Fine-tune a source model on labelled pictures.",
    epilog="example:  relish fit photos/ --epochs 3    then:  relish predict runs/photos-auto-1 new.jpg",
)
def fit(
    data: Annotated[
        str | None,
        Argument(metavar="DATA", help="Folder, archive, address or table of pictures, or a name such as hotdog."),
    ] = None,
    source: Annotated[
        str | None,
        Option(
            help="Source model: embedded, lite2, torchvision/NAME, timm/NAME, gluon/NAME or NAME; auto tries several.",
            show_default="embedded",
        ),
    ] = None,
    weights: o.Weights = None,
    candidates: o.Candidates = None,
    max_megabytes: Annotated[
        float | None, Option(help="With --source auto: of the exported file, at most.", show_default=False)
    ] = None,
    max_milliseconds: Annotated[
        float | None,
        Option(help="With --source auto: to predict a picture on this machine, at most.", show_default=False),
    ] = None,
    yes: o.Yes = False,
    recipe: Annotated[
        str | None,
        Option(
            help="auto, probe, book, book-scratch, frozen, source-head, book-mxnet, book-mxnet-scratch.",
            show_default="auto",
        ),
    ] = None,
    budget: Annotated[
        str | None, Option(help="How long recipe auto may take: 90s, 2m, 1h.", show_default="as long as it helps")
    ] = None,
    target_accuracy: Annotated[
        float | None,
        Option(help="Recipe auto ends at the first rung that reaches it on held-out pictures.", show_default=False),
    ] = None,
    threshold: o.Threshold = None,
    unsure: o.Unsure = None,
    unknown: o.Unknown = None,
    settings: o.Settings = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    image_size: o.ImageSize = None,
    freeze: o.Freeze = None,
    head: o.HeadInit = None,
    deterministic: o.Deterministic = None,
    mapping: o.Mappings = None,
    val_split: o.ValSplit = None,
    sha1: o.Sha1 = None,
    sha256: o.Sha256 = None,
    split_names: o.SplitNames = None,
    root: o.Root = None,
    column_names: o.ColumnNames = None,
    zip_encoding: o.ZipEncoding = None,
    group_by: o.GroupBy = None,
    strict: o.Strict = False,
    value_range: o.ValueRange = None,
    track: Annotated[
        str | None, Option(help="Tell a tracker of the run's figures: tensorboard, wandb, …", show_default=False)
    ] = None,
    workers: o.Workers = None,
    seed: o.Seed = None,
    device: o.Device = "auto",
    out: Annotated[Path | None, Option(help="The run folder to make.", show_default="runs/DATA-RECIPE-N")] = None,
    resume: Annotated[Path | None, Option(help="A run folder to resume.", show_default=False)] = None,
    quiet: o.Quiet = False,
) -> None:
    """Fine-tune a source model on labelled pictures, into a run folder."""
    given = o.with_consent(o.arguments(locals()))
    from relish.tasks.fit import fit as run

    run(**given)
