"""A saved model: safetensors whose header says how to build the network, how to feed it and what its classes are.

Every value of a safetensors header is text; what is not a plain word is JSON. Tensors and keys are written in sorted
order, so that equal models are equal files. A wrong mean costs a few points of accuracy and raises no error, so a
`DataConfig` carries for each field who decided it, and prints that.
"""

import copy
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from torch import nn

from relish.core.errors import ModelError
from relish.core.io import atomic_path
from relish.data.dataset import class_name, first_few, is_utf8, spelt
from relish.models.head import exchange_head
from relish.models.registry import (
    LABEL_SETS,
    build_network,
    check_buildable,
    hollow_network,
    imagenet_labels,
    label_set_of,
)
from relish.models.weights import broken_file, check_fit, fill, is_safetensors, read_tensors, shapes_of

Interpolation = Literal["bilinear", "bicubic"]
Origin = Literal["user", "weights", "default"]

FIELDS = ("input_size", "mean", "std", "interpolation")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How images are fed to one network; by default as most published weights were trained, on ImageNet."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    """Channels (always 3), height and width in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each channel once it is scaled to [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Each channel is divided by it, after the mean."""
    interpolation: Interpolation = "bilinear"
    """The filter an image is resized with."""
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
        rows = {"input_size": list(self.input_size), "mean": list(self.mean), "std": list(self.std)}
        return {**rows, "interpolation": self.interpolation}

    def words(self) -> str:
        """One line for a printout: every field, and who decided it."""
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
    if not all(abs(n) <= sys.float_info.max for n in given):  # an integer may be too large for a float
        raise ModelError(f"{name} must be finite, got {given!r}.")
    first, second, third = (float(n) for n in given)
    return first, second, third


def _is_row(given: Any) -> bool:
    return isinstance(given, list | tuple) and len(given) == 3


FORMAT_VERSION = 1
_KINDS = {dict: "an object", list: "a list", int: "a whole number"}
_OURS = ("format_version", "library", "architecture", "model_args", "num_classes", "labels", "heads", *FIELDS)
OWN = "own"
"""The library of a network whose class is the user's own: relish cannot build it, so it has to be handed in."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What a file of weights must hold besides tensors for its network to be built and fed."""

    library: str
    """`timm`, `torchvision`, `gluon` or `own`."""
    architecture: str
    """The network's name in that library, without a tag; of an own one its class, such as `nets.Net`."""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the library's constructor, as JSON holds them."""
    num_classes: int
    """Outputs of the last layer; 0 of a network of timm's that is published without one, which gives features."""
    labels: tuple[str, ...] | None = None
    """One class name per output, in their order, each as `class_name` has it; None where nobody knows."""
    data_config: DataConfig = field(default_factory=DataConfig)
    """How images are fed to it."""
    heads: tuple[str, ...] = ()
    """Of an own network, the names of its output layers; a library's are found by its rules."""

    def __post_init__(self) -> None:
        if self.library != OWN:
            check_buildable(self.library, self.architecture, self.model_args, self.num_classes)
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(map(class_name, self.labels)))
        if self.labels is not None and len(self.labels) != self.num_classes:
            raise ModelError(f"labels names {len(self.labels)} classes, num_classes says {self.num_classes}.")

    @property
    def network_name(self) -> str:
        """Such as `timm/resnet18`."""
        return f"{self.library}/{self.architecture}"

    def build(self, seed: int = 0) -> nn.Module:
        """The network with random weights, in eval mode.

        Raises:
            ModelError: its class is the user's own.
        """
        return build_network(self.library, self.architecture, self.model_args, self.num_classes, seed=seed)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor that `build` would make, without taking the memory for it."""
        return _shapes(self.library, self.architecture, json.dumps(dict(self.model_args)), self.num_classes)

    def is_of(self, network: nn.Module) -> bool:
        """Whether the network still is the one described: the same layers, settings and shapes, whatever its values."""
        if self.library == OWN:
            return False
        built = hollow_network(self.library, self.architecture, self.model_args, self.num_classes)
        return str(built) == str(network) and shapes_of(built.state_dict()) == shapes_of(network.state_dict())


@lru_cache(64)
def _shapes(library: str, architecture: str, model_args: str, num_classes: int) -> Mapping[str, tuple[int, ...]]:
    """Kept, since building takes its time, and a run saves and loads one network several times."""
    return shapes_of(hollow_network(library, architecture, json.loads(model_args), num_classes).state_dict())


def save_model(path: Path, network: nn.Module, description: ModelDescription, extra: Mapping[str, str]) -> None:
    """Write a network with its description, atomically; equal models give equal bytes.

    Args:
        path: the file, `.safetensors` by custom.
        network: the network as `description` builds it, on any device; not a compiled or distributed wrapper.
        description: goes into the header.
        extra: further words for the header, under keys of their own.

    Raises:
        ModelError: the network is not the one described, or `extra` takes one of the header's own keys.
        WriteFailed: no space, no permission; what stood there before still stands.
    """
    _check_free(extra)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    if description.library != OWN:
        advice = "Describe the network that is saved."
        name = description.network_name
        check_fit(shapes_of(tensors), description.shapes(), "the network to save", name, advice=advice)
    # The library writes the header's words in an order that changes from call to call, so they are put in here. The
    # format: 8 bytes of length, that many bytes of JSON padded with spaces to a multiple of 8, then the tensors.
    content = safetensors.torch.save(dict(sorted(tensors.items())))
    end = 8 + int.from_bytes(content[:8], "little")
    words = dict(sorted({**_header_of(description), **extra}.items()))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header_bytes({"__metadata__": words, **json.loads(content[8:end])}))
        file.write(content[end:])


def rewrite_header(path: Path, extra: Mapping[str, str]) -> None:
    """Change further words of a saved model's header, atomically; the tensors stay as they are, byte for byte.

    Raises:
        ModelError: not a safetensors file, or `extra` takes one of the header's own keys.
        WriteFailed: no space, no permission; what stood there before still stands.
    """
    _check_free(extra)
    header = {**read_header(path), **extra}
    with path.open("rb") as old, atomic_path(path) as temporary, temporary.open("wb") as new:
        layout = json.loads(old.read(int.from_bytes(old.read(8), "little")))
        new.write(_header_bytes({**layout, "__metadata__": dict(sorted(header.items()))}))
        shutil.copyfileobj(old, new)


def read_header(path: Path) -> dict[str, str]:
    """The header's own words, without reading the tensors; empty where the file has none.

    Raises:
        ModelError: not a safetensors file, or cut short.
    """
    if not is_safetensors(path):
        return {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise broken_file(path, error) from error


def says_how_to_build(header: Mapping[str, str]) -> bool:
    """Whether a header names the network it belongs to."""
    return "architecture" in header


def parse_header(path: Path, header: Mapping[str, str]) -> tuple[ModelDescription, dict[str, str]]:
    """The description a header carries, and the words in it that are not ours.

    Raises:
        ModelError: a key is missing, is not the JSON it should be, or names what cannot be built.
    """
    try:
        _check_version(header)
        if "architecture" not in header or "num_classes" not in header:
            raise ModelError("the header must name at least architecture and num_classes.")
        model_args = _json(header, "model_args", dict, {})
        num_classes = _json(header, "num_classes", int, None)
        data = {name: _json(header, name, list, None) for name in ("input_size", "mean", "std")}
        description = ModelDescription(
            library=header.get("library", "timm"),
            architecture=header["architecture"],
            model_args=model_args,
            num_classes=num_classes,
            labels=_labels(header),
            heads=_words(header, "heads"),
            data_config=DataConfig.from_weights({**data, "interpolation": header.get("interpolation")}),
        )
    except ModelError as error:
        hint = error.hint or "The header describes how to build the network; save the file again."
        raise ModelError(f"{path}: {error.message}", hint=hint) from error
    return description, {key: value for key, value in header.items() if key not in _OURS}


def load_model(path: Path, network: nn.Module | None = None) -> tuple[nn.Module, ModelDescription, dict[str, str]]:
    """Build a network by a file's header alone, and fill it.

    Args:
        path: what `save_model` wrote.
        network: a new instance of the user's own class, where the file is of one; left as it is. Its output layer may
            have any number of outputs.

    Returns:
        The network in eval mode on the CPU, its description, and the header's further words.

    Raises:
        ModelError: no header, a header that cannot be used, tensors that are not of that network; an own class and no
            `network`, or a `network` and no own class.
    """
    header = read_header(path)
    if not says_how_to_build(header):
        raise ModelError(
            f"{path}: does not say which network it belongs to.",
            hint="Name it with --source, such as --source timm/resnet18.",
        )
    description, extra = parse_header(path, header)
    tensors = read_tensors(path)
    if description.library == OWN:
        built = _own_network(path, description, network)
    elif network is not None:
        raise ModelError(f"{path}: is a {description.network_name}, which relish builds itself.", hint="Omit network=.")
    else:
        # A header may ask for a network of any size; what it asks for is compared with the tensors the file really
        # has before any memory is taken.
        advice = "The file's header and its tensors contradict each other; save it again."
        check_fit(shapes_of(tensors), description.shapes(), str(path), description.network_name, advice=advice)
        built = description.build()
    fill(built, tensors, told=str(path), network_name=description.network_name)
    return built, description, extra


def _own_network(path: Path, description: ModelDescription, network: nn.Module | None) -> nn.Module:
    if network is None:
        raise ModelError(
            f"{path}: is a model of your own class {description.architecture}, which relish cannot build.",
            hint="Hand a new one in, in Python: relish.load(RUN, network=…), of any weights and outputs.",
        )
    built = copy.deepcopy(network).cpu().float()
    for name in description.heads:
        exchange_head(built, name, description.num_classes)
    return built.eval()


def _header_of(description: ModelDescription) -> dict[str, str]:
    header = {
        "format_version": str(FORMAT_VERSION),
        "library": description.library,
        "architecture": description.architecture,
        "model_args": json.dumps(dict(description.model_args), sort_keys=True),
        "num_classes": str(description.num_classes),
        **{
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in description.data_config.as_dict().items()
        },
    }
    if description.heads:
        header["heads"] = json.dumps(description.heads)
    if description.labels is not None:
        header["labels"] = label_set_of(description.labels) or json.dumps(description.labels, ensure_ascii=False)
    return header


def _header_bytes(layout: Mapping[str, Any]) -> bytes:
    text = json.dumps(layout, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _check_free(extra: Mapping[str, str]) -> None:
    taken = sorted(set(extra) & set(_OURS))
    if taken:
        raise ModelError(f"extra may not set {', '.join(taken)}: the header's own keys.")


def _check_version(header: Mapping[str, str]) -> None:
    version = _json(header, "format_version", int, FORMAT_VERSION)
    if version > FORMAT_VERSION:
        reason = f"was saved in format {version}; this relish reads up to {FORMAT_VERSION}."
        raise ModelError(reason, hint="Install a newer relish.")


def _labels(header: Mapping[str, str]) -> tuple[str, ...] | None:
    text = header.get("labels")
    if text is None:
        return None
    if text in LABEL_SETS:
        return imagenet_labels(text)
    labels = _words(header, "labels")
    if len(set(map(class_name, labels))) < len(set(labels)):
        spellings = [label for label in set(labels) if sum(class_name(label) == class_name(o) for o in set(labels)) > 1]
        raise ModelError(
            f"labels that differ in nothing that can be seen: {first_few([spelt(one) for one in sorted(spellings)])}.",
            hint="They are one class: train the model again.",
        )
    return labels


def _words(header: Mapping[str, str], key: str) -> tuple[str, ...]:
    words = _json(header, key, list, [])
    if not all(isinstance(word, str) and is_utf8(word) for word in words):
        what = "class names, or a word such as imagenet-1k" if key == "labels" else "names"
        raise ModelError(f"{key} must be a list of {what}.")
    return tuple(words)


def _json(header: Mapping[str, str], key: str, kind: type, default: Any) -> Any:
    if key not in header:
        return default
    try:
        value = json.loads(header[key])
    # Deep nesting runs out of stack before it runs out of text.
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{key} in the header is not JSON: {header[key][:60]!r}.") from error
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ModelError(f"{key} in the header must be {_KINDS[kind]} in JSON, got {header[key][:60]!r}.")
    return value
