"""What can be a source model: every classifier of torchvision, timm and Gluon, with the tags of published weights.

In:   a word to look for, or nothing.
Out:  names to give to `--source`.
Not here: building or fetching any of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from relish.models.embedded import ARCHITECTURE
from relish.models.gluon.specs import SPECS
from relish.models.source import EMBEDDED
from relish.models.zoo import architectures


@dataclass(frozen=True)
class Listed:
    """One name for `--source`."""

    name: str
    """`embedded`, `torchvision/NAME`, `timm/NAME` or `gluon/NAME`."""
    tags: tuple[str, ...]
    """Its published weights, the default first; NAME.TAG asks for another. Empty where there are only random ones."""
    parameters: int | None
    """How many it learns, where that is known without building it."""


def list_models(query: str = "") -> list[Listed]:
    """Every name that contains the query or has a tag that does, case aside: embedded, then each library's."""
    wanted = query.casefold()
    return [listed for listed in _all() if wanted in " ".join([listed.name, *listed.tags]).casefold()]


def _all() -> Iterator[Listed]:
    yield Listed(EMBEDDED, (f"timm/{ARCHITECTURE}, packaged",), 4_652_008)
    yield from (_torchvision(name) for name in sorted(architectures("torchvision")))
    yield from (_timm(name) for name in sorted(architectures("timm")))
    yield from (Listed(f"gluon/{name}", (), spec.parameters) for name, spec in SPECS.items())


def _torchvision(name: str) -> Listed:
    import torchvision

    models: Any = torchvision.models
    weights = models.get_model_weights(name)
    if not len(weights):
        return Listed(f"torchvision/{name}", (), None)
    default = weights.DEFAULT.name
    others = tuple(tag for tag in weights.__members__ if tag not in (default, "DEFAULT"))
    return Listed(f"torchvision/{name}", (default, *others), int(weights.DEFAULT.meta["num_params"]))


def _timm(name: str) -> Listed:
    from timm.models import get_arch_pretrained_cfgs

    tags = [full.partition(".")[2] for full, record in get_arch_pretrained_cfgs(name).items() if record.has_weights]
    return Listed(f"timm/{name}", tuple(filter(None, tags)), None)
