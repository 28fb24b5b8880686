"""`relish models [QUERY]`: which source models there are, and what fine-tuning does to one."""

import json as jsonlib
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o


@o.app.command(
    short_help="List source models, or look into one.",
    epilog="example:  relish models resnet    or:  relish models resnet18 --weights none",
)
def models(
    query: Annotated[
        str, Argument(metavar="QUERY", help="Part of a name, or the whole name of one.", show_default=False)
    ] = "",
    weights: o.Weights = None,
    classes: Annotated[int, Option(help="Classes of the target model in the figure.", min=1)] = 2,
    json: o.Json = False,
) -> None:
    """List source models; of one named in full, show what is copied, what is new, and how it is fed."""
    from relish.tasks.inspect import find_models, model_figure

    figure = model_figure(query, weights, classes) if query or weights else None
    if figure is not None:
        print(jsonlib.dumps(figure) if json else "\n".join(figure))
        return
    found = find_models(query)
    if json:
        print(jsonlib.dumps([{"name": m.name, "tags": list(m.tags), "parameters": m.parameters} for m in found]))
        return
    for listed in found:
        size = f"{listed.parameters / 1e6:7.1f} M" if listed.parameters else " " * 9
        print(f"{listed.name:44} {size}  {', '.join(listed.tags[:3])}{', …' if len(listed.tags) > 3 else ''}".rstrip())
    o.voice().say(f"{len(found)} models. Name one in full to see what fine-tuning does to it.")
