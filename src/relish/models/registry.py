"""The networks that can be built by name (torchvision's, timm's and Gluon's) and ImageNet's class names; no weights.

Building never touches the global random state, so that loading a model cannot change what a run draws next. A row
number alone proves nothing: lists of classes in other orders are about, so names travel with weights.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from relish.core.errors import ModelError, nearest
from relish.models.gluon.networks import SPECS, build_gluon

Library = Literal["timm", "torchvision", "gluon"]
LIBRARIES: tuple[Library, ...] = ("torchvision", "timm", "gluon")
_BARE: tuple[Library, ...] = ("torchvision", "timm")
"""Where a name without a library is looked for."""
EMBEDDED = "embedded"
"""The source model taken where none is named."""
PACKAGED = (EMBEDDED, "lite0", "lite1", "lite2")
"""Names of source models whose weights are Python packages; `relish.models.source` knows which."""

# Arguments that would fetch or open something, or change what the network is, rather than how it is built.
_REFUSED_ARGUMENTS = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "file", "url"}
    | {"hf_hub_id", "scriptable", "exportable", "no_jit", "features_only", "weights", "weights_backbone"}
    | {"progress", "num_classes", "kwargs"}
)


@dataclass(frozen=True)
class ZooName:
    """A network of one library, with the tag of the weights where the name has one."""

    library: Library
    architecture: str
    tag: str | None = None

    def __str__(self) -> str:
        return f"{self.library}/{self.architecture}" + (f".{self.tag}" if self.tag else "")


def parse_name(text: str) -> ZooName:
    """Read `[torchvision/|timm/]NAME[.TAG]` or `gluon/NAME`; a bare name is torchvision's where it has it, else timm's.

    Raises:
        ModelError: no such library knows the name; the nearest name is offered.
    """
    prefix, slash, rest = text.partition("/")
    if slash and prefix not in LIBRARIES:
        raise ModelError(
            f'source "{text}": "{prefix}/" is not a library relish knows.',
            hint="Write torchvision/NAME, timm/NAME, gluon/NAME, NAME, embedded or lite2; a file of weights goes to "
            "--weights FILE.",
        )
    if prefix == "gluon" and rest in architectures("gluon"):
        return ZooName("gluon", rest)  # a dot in such a name is a width, not a tag
    architecture, _, tag = (rest if slash else text).partition(".")
    libraries: tuple[Library, ...] = (cast(Library, prefix),) if slash else _BARE
    for library in libraries:
        if architecture in architectures(library):
            return ZooName(library, architecture, tag or None)
    if not slash and text in architectures("gluon"):
        raise ModelError(f'source "{text}": is one of Gluon\'s networks.', hint=f"Write --source gluon/{text}.")
    architecture = rest if prefix == "gluon" else architecture
    known = [*PACKAGED, *(name for library in libraries for name in sorted(architectures(library)))]
    raise ModelError(
        f'source "{text}": {" and ".join(libraries)} {"know" if len(libraries) > 1 else "knows"} no network '
        f'"{architecture}".',
        hint=f"{nearest(architecture, known)} Every name: relish models".strip(),
    )


@cache
def architectures(library: str) -> frozenset[str]:
    """Every classifier the library can build."""
    if library == "timm":
        import timm

        return frozenset(timm.list_models())
    if library == "gluon":
        return frozenset(SPECS)
    import torchvision

    models: Any = torchvision.models
    return frozenset(models.list_models(module=models))


def build_network(
    library: str, architecture: str, model_args: Mapping[str, Any], num_classes: int, *, seed: int = 0
) -> nn.Module:
    """A network with random weights as its library initialises them, in eval mode, on the CPU, float32.

    Args:
        library: `timm`, `torchvision` or `gluon`.
        architecture: the name in that library, without a tag.
        model_args: further arguments of the library's own constructor, as JSON can hold them.
        num_classes: outputs of the last layer; 0, which timm alone takes, is a network without one, of features.
        seed: of the initial weights; the global random state is left as it was.

    Raises:
        ModelError: unknown name, an argument the constructor does not take or that relish does not pass on.
    """
    check_buildable(library, architecture, model_args, num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _construct(library, architecture, model_args, num_classes)


def hollow_network(library: str, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
    """What `build_network` would make, without taking the memory for its tensors where the constructor allows that."""
    check_buildable(library, architecture, model_args, num_classes)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return _construct(library, architecture, model_args, num_classes)
    except ModelError:
        # A few constructors, torchvision's RegNets among them, compute their widths with tensors that must hold data.
        return build_network(library, architecture, model_args, num_classes)


def check_buildable(library: str, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> None:
    """Refuse what could not be built, or would do more than build.

    Raises:
        ModelError: which argument, and why.
    """
    if library not in LIBRARIES:
        raise ModelError(
            f'library "{library}" is unknown.', hint="relish builds networks of torchvision, timm and Gluon."
        )
    if architecture not in architectures(library):
        offer = nearest(architecture, sorted(architectures(library)))
        raise ModelError(f'{library} knows no architecture "{architecture}".', hint=offer)
    refused = sorted(_REFUSED_ARGUMENTS & set(model_args))
    if refused:
        raise ModelError(f"model_args may not set {', '.join(refused)}.", hint="They say how a network is built, only.")
    fewest = 0 if library == "timm" else 1
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or not fewest <= num_classes <= 1_000_000:
        raise ModelError(f"num_classes must be a whole number from 1 to 1000000, got {num_classes!r}.")


def _construct(library: str, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # Their notes to developers (renamed functions, changed defaults) are nothing a user could act on.
            warnings.simplefilter("ignore")
            if library == "timm":
                import timm

                network = timm.create_model(architecture, pretrained=False, num_classes=num_classes, **model_args)
                pad_quickly(network)
            elif library == "gluon":
                network = build_gluon(architecture, model_args, num_classes)
            else:
                import torchvision

                models: Any = torchvision.models
                network = models.get_model(architecture, weights=None, num_classes=num_classes, **model_args)
    except ModelError:
        raise
    except Exception as error:  # the constructors are the libraries' own and check little
        raise ModelError(
            f"{library}/{architecture} cannot be built with {json.dumps(dict(model_args), default=repr)}: "
            f"{(str(error).splitlines() or [type(error).__name__])[0][:200]}"
        ) from error
    return network.eval()


# ---- the padding of TensorFlow's networks, without a pass over memory -----------------------------------------------


def pad_quickly(network: nn.Module) -> None:
    """Let timm's `Conv2dSame` pad without writing what it pads twice: the same numbers, sooner.

    Where a stride meets an even side, TensorFlow pads behind an image and not before it, which no convolution of
    PyTorch's does by itself. `torch.nn.functional.pad` writes zeros everywhere, and the image over most of them.
    """
    timms, ours = _convolutions()
    for module in network.modules():
        if type(module) is timms:
            module.__class__ = ours


@cache
def _convolutions() -> tuple[type[nn.Conv2d], type[nn.Conv2d]]:
    """timm's, and the same with another way to pad."""
    layers: Any = import_module("timm.layers")

    class Conv2dSameQuickly(layers.Conv2dSame):  # type: ignore[misc]
        def forward(self, images: Tensor) -> Tensor:
            plain = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
            on_processor = images.device.type == "cpu"  # elsewhere one call costs less than four
            if plain or not (on_processor and images.is_contiguous(memory_format=torch.channels_last)):
                found: Tensor = super().forward(images)
                return found
            sides = layers.padding.pad_same_arg(images.shape[-2:], self.kernel_size, self.stride, self.dilation)
            padded = _Padded.apply(images, *sides) if any(sides) else images
            return nn.functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    return layers.Conv2dSame, Conv2dSameQuickly


class _Padded(torch.autograd.Function):
    """(B, C, H, W) in channels-last layout, with zeros around it."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        batch, channels, height, width = images.shape
        shape = (batch, channels, height + top + bottom, width + left + right)
        padded = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
        ctx.inside = (..., slice(top, top + height), slice(left, left + width))
        for border in (slice(0, top), slice(top + height, None)):
            padded[:, :, border].zero_()
        for border in (slice(0, left), slice(left + width, None)):
            padded[..., border].zero_()
        padded[ctx.inside] = images
        return padded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient[ctx.inside], None, None, None, None


LABEL_SETS = frozenset(
    {"imagenet-1k", "imagenet-12k", "imagenet-21k-goog", "imagenet-21k-miil", "imagenet-22k", "imagenet-22k-ms"}
)
"""The words that may stand for a list in `labels` of a weights header."""


@cache
def imagenet_labels(label_set: str = "imagenet-1k", *, detailed: bool = False) -> tuple[str, ...]:
    """The label of every output row: its WordNet lemmas, joined by commas (`hotdog, hot dog, red hot`).

    With `detailed` its definition follows, which tells the two cranes apart.
    """
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo(label_set).label_descriptions(detailed=detailed))


def label_set_of(labels: tuple[str, ...] | None) -> str | None:
    """The word for these labels where they are exactly one of ImageNet's lists, else None."""
    from timm.data.imagenet_info import infer_imagenet_subset

    # No two of the lists are of the same length.
    label_set: str | None = infer_imagenet_subset({"num_classes": len(labels)}) if labels else None
    return label_set if label_set and imagenet_labels(label_set) == labels else None


def names_of_rows(labels: tuple[str, ...]) -> list[list[str]]:
    """For each row, every single name it goes by; only ImageNet's labels are split at their commas."""
    if label_set_of(labels):
        return [label.split(", ") for label in labels]
    return [[label] for label in labels]
