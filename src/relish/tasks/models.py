"""`models`: which source models there are, and the book's figure of one.

In:   part of a name, or a whole one.
Out:  a list, or lines of text.
"""

import shlex
from pathlib import Path

from relish.core.errors import ModelError, nearest
from relish.models.catalogue import Listed, list_models
from relish.models.describe import describe, describe_source
from relish.models.source import load_source
from relish.models.target import make_target
from relish.training.optimiser import learning_rates
from relish.training.recipe import named_recipe


def find_models(query: str) -> list[Listed]:
    """Every source model whose name holds the query.

    Raises:
        ModelError: there is none; the nearest name is offered.
    """
    found = list_models(query)
    if not found:
        if Path(query).exists():
            raise ModelError(
                f'"{query}" is no name of a source model, but there is such a file.',
                hint=f"To see what is in it: relish models --weights {shlex.quote(query)}",
            )
        names = [listed.name.partition("/")[2] or listed.name for listed in list_models()]
        raise ModelError(f'there is no source model like "{query}".', hint=nearest(query, names))
    return found


def model_figure(name: str, weights: str | Path | None, classes: int) -> list[str] | None:
    """What a source model is and what the book's fine-tuning makes of it; None where `name` is only part of a name.

    Without weights the design is shown with random ones: nothing is downloaded to draw a figure.

    Raises:
        ModelError: the weights do not fit.
    """
    # A bare name is never Gluon's.
    exact = {n for listed in list_models() for n in (listed.name, listed.name.removeprefix("gluon/").partition("/")[2])}
    if name not in exact and weights is None:
        return None
    packaged = name in ("", "embedded") or weights is not None
    source = load_source(name or None, weights if packaged else "none")
    target = make_target(source, [f"class {number}" for number in range(classes)], seed=0)
    return [*describe_source(source), "", *describe(target, learning_rates(named_recipe("book")))]
