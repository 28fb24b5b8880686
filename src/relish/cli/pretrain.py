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
    lr: o.LearningRate = None,
    image_size: o.ImageSize = None,
    val_split: o.ValSplit = None,
    workers: o.Workers = None,
    seed: o.Seed = None,
    device: o.Device = "auto",
    out: Annotated[Path | None, Option(help="The run folder to make.", show_default="runs/DATA-pretrain-N")] = None,
    resume: Annotated[Path | None, Option(help="A run folder to resume.", show_default=False)] = None,
    quiet: o.Quiet = False,
) -> None:
    """Train a source model from random weights, to fine-tune later."""
    from relish.tasks.fit import pretrain as run

    progress = o.voice(quiet)
    made = run(
        data,
        source=source,
        settings=o.recipe_settings(
            settings, epochs=epochs, batch_size=batch_size, learning_rate=lr, image_size=image_size
        ),
        seed=seed,
        val_split=val_split,
        workers=workers,
        device=device,
        out=out,
        resume=resume,
        progress=progress,
    )
    progress.say(f"next    relish fit DATA --weights {shlex.quote(str(made.path))}")
