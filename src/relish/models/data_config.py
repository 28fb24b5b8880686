"""What a network wants its pictures to look like: size, mean, std, interpolation, and who said so.

In:   what the user asked for, what came with the weights, or nothing.
Out:  a `DataConfig` whose `origin` names, field by field, which of the three won.
Not here: the transforms made from it (`data/transforms.py`).

A wrong mean costs a few points of accuracy and raises no error, so the origin is carried along and printed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from relish.core.errors import ModelError

Interpolation = Literal["bilinear", "bicubic"]
Origin = Literal["user", "weights", "default"]

_DEFAULTS: Mapping[str, Any] = {
    "input_size": (3, 224, 224),
    # The statistics of the ImageNet training pictures, which most published weights were trained with.
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bilinear",
}
FIELDS = tuple(_DEFAULTS)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How pictures are fed to one network."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    """Channels (always 3), height and width in pixels."""
    mean: tuple[float, float, float] = _DEFAULTS["mean"]
    """Subtracted from each channel once it is scaled to [0, 1]."""
    std: tuple[float, float, float] = _DEFAULTS["std"]
    """Each channel is divided by it, after the mean."""
    interpolation: Interpolation = "bilinear"
    """How a picture is resized."""
    origin: Mapping[str, Origin] = field(default_factory=lambda: dict.fromkeys(FIELDS, "default"), compare=False)
    """For each field above: did the user, the weights or the default decide it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", _sizes(self.input_size))
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if not all(value > 0 for value in self.std):
            raise ModelError(f"std must be above 0 for every channel, got {self.std}.")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ModelError(f'interpolation must be "bilinear" or "bicubic", got {self.interpolation!r}.')

    @classmethod
    def from_weights(cls, given: Mapping[str, Any]) -> "DataConfig":
        """The fields that came with the weights, defaults for the others; unknown keys are left alone.

        Raises:
            ModelError: a field has the wrong type, length or range.
        """
        mine = {name: given[name] for name in FIELDS if given.get(name) is not None}
        origin: dict[str, Origin] = {name: "weights" if name in mine else "default" for name in FIELDS}
        return cls(**mine, origin=origin)

    def with_user(self, **changes: Any) -> "DataConfig":
        """The same with what the user asked for, such as `input_size=(3, 160, 160)`; None changes nothing."""
        asked = {name: value for name, value in changes.items() if value is not None}
        origin: dict[str, Origin] = {**self.origin, **dict.fromkeys(asked, "user")}
        return replace(self, **asked, origin=origin)

    def as_dict(self) -> dict[str, Any]:
        """The four fields as JSON holds them, without their origin."""
        return {
            "input_size": list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
        }

    def words(self) -> str:
        """One line for a printout, which says who decided what."""
        height, width = self.input_size[1:]
        deciders = sorted(set(self.origin.values()))
        if len(deciders) == 1:
            who = _WHO[deciders[0]]
        else:
            who = ", ".join(f"{name.replace('input_', '')} {_WHO[self.origin[name]]}" for name in FIELDS)
        return f"{height} × {width}, mean {_row(self.mean)}, std {_row(self.std)}, {self.interpolation} ({who})"


_WHO: Mapping[str, str] = {"user": "as you asked", "weights": "from the weights", "default": "by default"}


def _row(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{value:g}" for value in values)


def _sizes(given: Any) -> tuple[int, int, int]:
    if not _is_row(given) or not all(isinstance(n, int) and not isinstance(n, bool) for n in given):
        raise ModelError(f"input_size must be three whole numbers (channels, height, width), got {given!r}.")
    channels, height, width = given
    if channels != 3:
        raise ModelError(f"input_size says {channels} channels; relish feeds RGB pictures, which have 3.")
    if not (1 <= height <= 8192 and 1 <= width <= 8192):
        raise ModelError(f"input_size must have a height and width of 1 to 8192 pixels, got {height} × {width}.")
    return channels, height, width


def _numbers(name: str, given: Any) -> tuple[float, float, float]:
    if not _is_row(given) or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in given):
        raise ModelError(f"{name} must be three numbers, one per channel, got {given!r}.")
    if not all(math.isfinite(n) for n in given):
        raise ModelError(f"{name} must be finite, got {given!r}.")
    first, second, third = (float(n) for n in given)
    return first, second, third


def _is_row(given: Any) -> bool:
    return isinstance(given, list | tuple) and len(given) == 3
