"""What to type to make a run again.

In:   what was asked for, and the recipe, as the run folder keeps them.
Out:  a command line.

It is built from what the run did, not from what was typed: a run from Python or from a sweep is made again too, and
`--set` names just what differs from the recipe of that name.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from relish.core.errors import RecipeError
from relish.training.recipe import named_recipe

_NOT_TYPED = ("data", "identity", "judge", "mapping", "strict", "budget")
"""Of a request: what is no option of that name and value."""


def fit_command(request: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """The `relish fit` of a run.

    Args:
        request: of `request.json`.
        recipe: of `recipe.yaml`.
    """
    words = ["relish", "fit", str(request["data"]), "--recipe", str(recipe["name"])]
    for key in changed_fields(recipe):
        words += ["--set", f"{key}={recipe[key]}"]
    for key, value in request.items():
        if key not in _NOT_TYPED and value not in (None, 0, ""):
            words += [f"--{key.replace('_', '-')}", str(value)]
    for name, row in request.get("mapping", {}).items():
        words += ["--map", f"{name}={row}"]
    if request.get("budget"):
        words += ["--budget", f"{request['budget']:g}s"]
    return shlex.join(words + (["--strict"] if request.get("strict") else []))


def changed_fields(recipe: Mapping[str, Any]) -> list[str]:
    """The fields that differ from the recipe of that name; none where there is no such recipe any more."""
    try:
        usual = named_recipe(str(recipe["name"])).as_dict()
    except RecipeError:
        return []
    return [key for key, value in recipe.items() if key != "name" and value is not None and usual.get(key) != value]
