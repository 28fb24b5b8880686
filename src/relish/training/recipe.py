"""A recipe: every setting of a training run in one frozen dataclass, and the losses it can ask for.

`method` says what runs: the loop, the probe alone, or the ladder, whose own numbers are in `budget.py`. Two runs with
equal recipes, seeds, images and weights are the same run.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from relish.core.errors import RecipeError, nearest
from relish.models.head import HeadInit, Unmatched
from relish.models.precision import AskedPrecision

Start = Literal["source", "random"]
LossReduction = Literal["sum", "mean"]
Schedule = Literal["constant", "cosine"]
Method = Literal["train", "probe", "ladder"]
OptimiserName = Literal["sgd", "adamw"]
BatchNorm = Literal["moving", "still"]
Decoding = Literal["whole", "scaled"]
BalanceName = Literal["none", "sampling", "weights", "logit"]


MOST = 1_000_000_000
"""Epochs, and images in a batch, at most: more than any training has, and a number that every library takes."""
SHORT: Mapping[str, str] = {"lr": "learning_rate"}
"""Other names of fields, as the command line has them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number of a training run; the defaults are the book's."""

    name: str = "book"
    """The named recipe this one began as."""
    method: Method = "train"
    """What a run does: `train`, the loop alone; `probe`, an output layer solved for on frozen features; `ladder`, the
    probe, fine-tuning from it, and mixtures of the two, each kept only where it is better on held-out images."""
    start: Start = "source"
    """Where the backbone's parameters come from: the source model, or random numbers."""
    head: HeadInit = "xavier"
    """How the new output layer begins: Xavier-uniform (-zero: with biases of zero), zeros, the source head's own rows,
    or as the library does it."""
    unmatched: Unmatched = "random"
    """With head=source: what a class without a source row starts from, random numbers or the source rows' mean."""
    freeze: str = "none"
    """What does not learn: `none`, `backbone`, `early`, the first third of the groups of layers or the first two,
    `half` of them, or N, the first N."""
    learning_rate: float | None = 5e-5
    """Base rate of every layer but the head, per loss as `loss` takes it (a sum, in the book); None, with method=ladder
    alone: the ladder chooses among its own (`budget.RATES`)."""
    head_multiplier: float = 10.0
    """The head's rate over the base rate, no unit."""
    layer_decay: float = 1.0
    """The rate of each group of layers over that of the next one towards the output, no unit, above 0 up to 1."""
    optimiser: OptimiserName = "sgd"
    """How a gradient becomes a step: `sgd`, or `adamw` (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    momentum: float = 0.0
    """With sgd: share of the last step kept in the next, no unit, 0 up to but not 1."""
    weight_decay: float = 1e-3
    """With sgd an L2 penalty on every parameter, biases and norms included, as `torch.optim.SGD` applies it; with adamw
    the share of each weight, but not of biases and norms, that is taken away per step and rate."""
    loss: LossReduction = "sum"
    """How the losses of a batch become one number; the step of a sum grows with the batch."""
    balance: BalanceName = "none"
    """What is done about classes of unequal size: nothing; `sampling`, small classes are shown as often as large ones;
    `weights`, their losses count for more; `logit`, the logarithm of each class's share is added to the logits in
    training. In a head that is solved for, sampling is weights, which is what it comes to."""
    schedule: Schedule = "constant"
    """The rate over the run: the same throughout, or down half a cosine to zero."""
    warmup: float = 0.0
    """Share of the steps over which the rates rise from nothing, no unit, 0 up to but not 1."""
    batch_norm: BatchNorm = "moving"
    """The running statistics of batch norm in layers that learn: `moving` with the batches, or `still`."""
    smallest_crop: float = 0.08
    """Random crops in training keep at least this share of an image's area, above 0 up to 1."""
    decoding: Decoding = "whole"
    """In training, JPEG files that are much larger than crops need are decoded `whole` or `scaled` down."""
    batch_size: int = 128
    """Images in a batch, over all processes; the last batch of an epoch may be smaller."""
    epochs: int | None = 5
    """Passes over the training images; None, with method=ladder alone: as many as suit their number."""
    image_size: int | None = None
    """Side of the square the network sees, in pixels; none: the source model's own."""

    precision: AskedPrecision = "f32"
    """What forward and backward passes compute in: f32, or whichever of f32 and bf16 a short trial finds faster."""
    deterministic: bool = False
    """Whether a GPU computes the same bits each time, as a processor does anyway; slower."""

    def __post_init__(self) -> None:
        rate = self.learning_rate
        given = rate is None if self.method == "ladder" else False
        _check(given or 0 < (rate or 0) < math.inf, "learning_rate", "above 0 and finite", rate)
        _check(0 < self.head_multiplier < math.inf, "head_multiplier", "above 0 and finite", self.head_multiplier)
        _check(0 < self.layer_decay <= 1, "layer_decay", "above 0 and at most 1", self.layer_decay)
        _check(0 <= self.warmup < 1, "warmup", "from 0 up to but not 1", self.warmup)
        _check(0 < self.smallest_crop <= 1, "smallest_crop", "above 0 and at most 1", self.smallest_crop)
        _check(0 <= self.momentum < 1, "momentum", "from 0 up to but not 1", self.momentum)
        _check(0 <= self.weight_decay < math.inf, "weight_decay", "0 or above and finite", self.weight_decay)
        _check(1 <= self.batch_size <= MOST, "batch_size", f"1 to {MOST:,}", self.batch_size)
        given = self.epochs is not None or self.method == "ladder"
        _check(given and 0 <= (self.epochs or 0) <= MOST, "epochs", f"0 to {MOST:,}", self.epochs)
        _check(self.image_size is None or 16 <= self.image_size <= 4096, "image_size", "16 to 4096", self.image_size)
        words = ("none", "backbone", "early", "half")
        frozen = self.freeze in words or (self.freeze.isascii() and self.freeze.isdigit() and len(self.freeze) < 10)
        _check(frozen, "freeze", "none, backbone, early, half or a number of layer groups", self.freeze)

    @property
    def rate(self) -> float:
        """`learning_rate`, where it is given."""
        if self.learning_rate is None:
            raise RecipeError("learning_rate must be given for the loop; only a ladder chooses it.")
        return self.learning_rate

    @property
    def passes(self) -> int:
        """`epochs`, where they are given."""
        if self.epochs is None:
            raise RecipeError("epochs must be given for the loop; only a ladder chooses them.")
        return self.epochs

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, in order, as plain values for YAML."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run: every field but the name."""
        return {key: value for key, value in self.as_dict().items() if key != "name"}

    def with_settings(self, settings: Mapping[str, Any]) -> "Recipe":
        """The same recipe with some fields changed; words such as "1e-4" are read as the field's type.

        Raises:
            RecipeError: an unknown key (the nearest is offered), or a value of the wrong type or range.
        """
        names = [SHORT.get(key, key) for key in settings]
        if twice := [name for name in names if names.count(name) > 1]:
            raise RecipeError(f"{twice[0]} is given twice.", hint=f"Omit one of {', '.join(settings)}.")
        settings = dict(zip(names, settings.values(), strict=True))
        known = [field.name for field in fields(self) if field.name != "name"]
        for key in settings:
            if key not in known:
                raise RecipeError(
                    f'recipe {self.name} has no "{key}".', hint=nearest(key, known) or f"It has: {', '.join(known)}."
                )
        wanted = {
            key: None if str(value).lower() == "none" and key in ("image_size", "epochs", "learning_rate") else value
            for key, value in settings.items()
        }
        return recipe_from_dict({**self.as_dict(), **wanted})


def recipe_from_dict(content: Mapping[str, Any]) -> Recipe:
    """The recipe that `as_dict` gave.

    Raises:
        RecipeError: a field is unknown, of the wrong type, or out of range.
    """
    known = [field.name for field in fields(Recipe)]
    for key in content:
        if key not in known:
            raise RecipeError(f'a recipe has no "{key}".', hint=nearest(str(key), known))
    try:
        return TypeAdapter(Recipe).validate_python(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(
            f"{'.'.join(map(str, first['loc'][:1]))}: {first['msg']}, got {_shown(first['input'])}."
        ) from None


def named_recipe(name: str) -> Recipe:
    """One of `RECIPES`.

    Raises:
        RecipeError: there is none of that name; the nearest is offered.
    """
    if name not in RECIPES:
        raise RecipeError(
            f'there is no recipe "{name}".',
            hint=" ".join(filter(None, [nearest(name, RECIPES), f"Recipes: {', '.join(RECIPES)}."])),
        )
    return RECIPES[name]


def parse_settings(words: list[str]) -> dict[str, str]:
    """`["epochs=3", "learning_rate=1e-4"]` as a mapping.

    Raises:
        RecipeError: a word without an equals sign, or one key twice.
    """
    settings: dict[str, str] = {}
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise RecipeError(f'--set {word}: not of the form "key=value".')
        if key in settings:
            raise RecipeError(f"--set {key} is given twice.")
        settings[key] = value
    return settings


def _check(fine: bool, name: str, need: str, got: object) -> None:
    if not fine:
        raise RecipeError(f"{name} must be {need}, got {_shown(got)}.")


def _shown(got: object) -> str:
    """A value in a sentence; Python refuses to write out integers of thousands of digits, and YAML reads them."""
    return (
        f"an integer of {got.bit_length()} bits" if isinstance(got, int) and got.bit_length() > 64 else f"{got!r:.80}"
    )


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        # Dive into Deep Learning, section 14.2, PyTorch tab.
        Recipe(),
        # The same section's comparison: one rate for all layers, nothing pretrained.
        Recipe(name="book-scratch", start="random", head="library", learning_rate=5e-4, head_multiplier=1.0),
        # Its MXNet tab: gradients are averaged over the batch, and the head's biases begin at zero.
        Recipe(name="book-mxnet", head="xavier-zero", learning_rate=0.01, loss="mean"),
        Recipe(
            name="book-mxnet-scratch",
            start="random",
            head="library",
            learning_rate=0.1,
            head_multiplier=1.0,
            loss="mean",
        ),
        # Its exercise 3: only the head learns.
        Recipe(name="frozen", freeze="backbone"),
        # Its exercise 4: the head begins with the source model's own rows.
        Recipe(name="source-head", head="source"),
        # The probe alone: nothing of the loop's numbers is read.
        Recipe(name="probe", method="probe", freeze="backbone"),
        # The ladder. The numbers are those of its fine-tuning, most of them measured (docs/ladder.md).
        Recipe(
            name="auto",
            method="ladder",
            freeze="early",
            learning_rate=None,
            head_multiplier=1.0,
            layer_decay=0.75,
            optimiser="adamw",
            weight_decay=1e-2,
            loss="mean",
            schedule="cosine",
            warmup=0.1,
            batch_norm="still",
            smallest_crop=0.35,
            decoding="scaled",
            precision="auto",
            batch_size=32,
            epochs=None,
        ),
        # Step 1. Rates of ImageNet training scaled to small batches: 0.1 for 256 images, linearly down with the
        # batch (Goyal et al. 2017, arXiv:1706.02677), momentum and decay as He et al. 2016 (arXiv:1512.03385).
        Recipe(
            name="pretrain",
            start="random",
            head="library",
            learning_rate=0.025,
            head_multiplier=1.0,
            momentum=0.9,
            weight_decay=1e-4,
            loss="mean",
            schedule="cosine",
            batch_size=64,
            epochs=30,
        ),
    )
}


Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Balance:
    """How a loss weighs its images; None changes nothing."""

    offsets: Tensor | None = None
    """(K,) float32, added to the logits in training and omitted afterwards: the logarithm of each class's share
    (Menon et al. 2021, arXiv:2007.07314, equation 10, with tau 1)."""
    weights: Tensor | None = None
    """(K,) float32: what the loss of an image of each class is multiplied by; 1 on average over the images."""

    def to(self, device: torch.device | str) -> "Balance":
        """The same on a device."""
        return Balance(*(None if part is None else part.to(device) for part in (self.offsets, self.weights)))

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(b, K) logits and (b,) labels to (b,) losses, in nats."""
        shifted = logits if self.offsets is None else logits + self.offsets
        found = torch.nn.functional.cross_entropy(shifted, labels, reduction="none")
        return found if self.weights is None else found * self.weights[labels]


def balance_of(name: BalanceName, labels: Labels, classes: int, *, sampled: bool = False) -> Balance:
    """What a recipe's `balance` asks for.

    Args:
        labels: (N,) int64, of the training images.
        sampled: whether images are sampled, so that `sampling` leaves nothing to be done here.
    """
    # A class without images counts as one with a single image: the logarithm of 0 is not finite.
    counts = torch.from_numpy(np.bincount(labels, minlength=classes).clip(1)).double()
    if name == "logit":
        return Balance(offsets=(counts / counts.sum()).log().float())
    if name == "weights" or (name == "sampling" and not sampled):
        met = len(np.unique(labels))
        return Balance(weights=(len(labels) / (met * counts)).float())
    return Balance()
