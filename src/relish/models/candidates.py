"""Source models that are worth a try, a row each, and whether the weights of one are on this machine.

To have another one tried by default, add a row to `CANDIDATES`. Licences are those of timm's records. Accuracies on
ImageNet-1k are timm's own: `results/results-imagenet.csv` of huggingface/pytorch-image-models, for MobileNetV4 the
table in its README. The size beside one, in pixels, may be larger than the one that relish feeds.

Networks that are published without a classifier (DINOv2, SigLIP's image tower) have no row: relish cannot take them.
Neither has a network for other domains than photographs: none was found whose licence and accuracy timm states.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from relish.models.hub import default_description, kept_file, published_licence
from relish.models.registry import EMBEDDED, PACKAGED, hollow_network, parse_name

Use = Literal["processor", "middle", "best"]
_ENDINGS = (".safetensors", ".pth", ".pt", ".params")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A source model to try."""

    name: str
    """As `--source` takes it; a file of weights, or NAME=FILE, where the user gave one."""
    source: str | None = None
    weights: str | None = None
    """Both as `load_source` takes them."""
    family: str = ""
    use: Use | None = None
    """Where it is meant to be the best choice: on a processor, on a GPU or for few images, or whatever it takes."""
    top1: float | None = None
    """Percent of ImageNet-1k's validation images; None where relish does not know it, as below."""
    top1_side: int | None = None
    """Of these images, in pixels."""
    parameters: float | None = None
    """Millions, with a head of 1,000 classes."""
    licence: str | None = None
    """As its publisher names it."""

    @property
    def options(self) -> str:
        """What has `fit` take it."""
        given = (("--source", self.source), ("--weights", self.weights))
        return shlex.join(word for option, value in given if value is not None for word in (option, value))


def _row(
    name: str, family: str, use: Use, top1: float, side: int, parameters: float, licence: str = "apache-2.0"
) -> Candidate:
    return Candidate(
        name=name,
        source=name,
        family=family,
        use=use,
        top1=top1,
        top1_side=side,
        parameters=parameters,
        licence=licence,
    )


CANDIDATES = (
    _row(EMBEDDED, "EfficientNet-Lite", "processor", 74.830, 224, 4.65),
    _row("lite2", "EfficientNet-Lite", "processor", 77.464, 260, 6.09),
    _row("timm/mobilenetv4_conv_small.e2400_r224_in1k", "MobileNetV4", "processor", 73.756, 224, 3.77),
    _row("timm/mobilenetv4_conv_medium.e500_r224_in1k", "MobileNetV4", "processor", 79.094, 224, 9.72),
    _row("timm/efficientnet_b0.ra_in1k", "EfficientNet", "processor", 77.694, 224, 5.29),
    _row("timm/resnet50.a1_in1k", "ResNet", "middle", 81.214, 288, 25.56),
    _row("timm/convnext_tiny.in12k_ft_in1k", "ConvNeXt", "middle", 84.450, 288, 28.59),
    _row("timm/caformer_s18.sail_in22k_ft_in1k", "CAFormer", "middle", 84.076, 224, 26.34),
    _row("timm/convnext_base.fb_in22k_ft_in1k", "ConvNeXt", "best", 86.274, 288, 88.59),
    _row("timm/vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", "ViT", "best", 86.174, 224, 86.57),
    _row("timm/caformer_b36.sail_in22k_ft_in1k", "CAFormer", "best", 87.422, 224, 98.75),
    _row("timm/eva02_base_patch14_448.mim_in22k_ft_in22k_in1k", "EVA-02", "best", 88.692, 448, 87.12, "mit"),
)
"""What is tried where nothing is named. The accuracy of packaged weights is that of timm's for the same network."""


def candidate(text: str) -> Candidate:
    """The row of that name, or else what the user means: NAME, FILE, a run folder, or NAME=FILE."""
    known = {one.name: one for one in CANDIDATES}
    if text in known:
        return known[text]
    name, equals, file = text.partition("=")
    if equals:
        return Candidate(name=text, source=name, weights=file)
    path = Path(text)
    if path.suffix in _ENDINGS or path.is_file() or (path / "model.safetensors").is_file():
        return Candidate(name=text, weights=text)
    return Candidate(name=text, source=text)


def licence_of(one: Candidate) -> str | None:
    """Of its published weights; None where they are a file of the user's own, or nobody states it."""
    if one.licence is not None or one.weights is not None or one.source is None:
        return one.licence
    if one.source in PACKAGED:
        return "apache-2.0"
    return published_licence(parse_name(one.source))


def megabytes_to_fetch(one: Candidate) -> float | None:
    """About how much a hub would have to send; None where the weights are on this machine, or can never be fetched.

    Raises:
        ModelError: there is no such network, or none that relish can take.
    """
    if one.weights is not None or one.source in (None, *PACKAGED):
        return None
    name = parse_name(one.source)
    if name.library == "gluon" or kept_file(name) is not None:
        return None
    if one.parameters is not None:
        return 4 * one.parameters
    known = default_description(name)
    network = hollow_network(known.library, known.architecture, known.model_args, known.num_classes)
    return 4e-6 * sum(parameter.numel() for parameter in network.parameters())
