"""`relish card RUN`: write the model card again, with a licence."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o


@o.app.command(
    short_help="Write the model card of a run again, with a licence.",
    epilog="example:  relish card runs/photos-auto-1 --license apache-2.0",
)
def card(
    run: Annotated[Path, Argument(metavar="RUN", help="Run folder.")],
    license: Annotated[
        str | None,
        Option(
            help="Of the model, as the Hugging Face Hub names it: mit, apache-2.0, other.", show_default="as before"
        ),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Also where the card was changed by hand.")] = False,
) -> None:
    """Write the model card of a finished run again: README.md, made of what was measured. A run writes it at its
    end; the licence is for you to name."""
    from relish.tasks.save import card as write

    print(write(run, licence=license, overwrite=overwrite))
