"""`relish report RUN`: one page about a run."""

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o


@o.app.command(
    short_help="Write one page about a run: how good, where it errs, why.",
    epilog="example:  relish report runs/photos-auto-1    then open runs/photos-auto-1/report.html",
)
def report(
    run: Annotated[Path, Argument(metavar="RUN", help="Run folder that is finished.")],
    out: Annotated[Path | None, Option(help="The page to write.", show_default="RUN/report.html")] = None,
    device: o.Device = "auto",
    quiet: o.Quiet = False,
) -> None:
    """Write one page about a run, which opens anywhere and needs nothing else."""
    from relish.tasks.report import report as write

    voice = o.voice(quiet)
    made = write(run, out, device=device, progress=voice)
    if made is None:
        return  # another process writes it
    print(made)
    voice.say(f"next    open it in a browser, then:  relish predict {shlex.quote(str(run))} PICTURE…")
