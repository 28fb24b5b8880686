"""`relish decide RUN`: choose a threshold, or when to be unsure, without training again."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from typer import Argument

from relish.cli import options as o


@o.app.command(
    short_help="Choose when a model says a class, and when it is unsure.",
    epilog="example:  relish decide runs/photos-auto-1 --threshold precision=0.99 --unsure accuracy=0.98",
)
def decide(
    run: Annotated[Path, Argument(metavar="RUN", help="Run folder.")],
    threshold: o.NewThreshold = None,
    unsure: o.NewUnsure = None,
    json: o.Json = False,
) -> None:
    """Choose, on pictures that were held out in training, when a model says a class, and when it is unsure. With
    neither option, show how it decides now and what answering fewer pictures would gain."""
    from relish.reporting.text import change_text
    from relish.tasks.evaluate import decide as choose

    found = choose(run, threshold=threshold, unsure=unsure, progress=o.voice(json))
    if json:
        print(jsonlib.dumps(found.as_json(), indent=1))
    else:
        print(change_text(found.before, found.after, found.held, found.split))
