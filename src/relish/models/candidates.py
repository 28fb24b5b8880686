"""Source models that are worth a try, a row each, and whether the weights of one are on this machine.

To have another one tried by default, add a row to `CANDIDATES`. Licences are those of timm's records. Accuracies on
ImageNet-1k are timm's own: `results/results-imagenet.csv` of huggingface/pytorch-image-models, for MobileNetV4 the
table in its README. The size beside one, in pixels, may be larger than the one that relish feeds.

Some networks are published without a classifier. DINOv2's accuracies are those of its authors' linear probes, on frozen
features at 224 pixels: the table in README.md of facebookresearch/dinov2. SigLIP 2 states none of its image tower, only
what captions name right without training (Tschannen et al. 2025, arXiv:2502.14786): another measure, so no figure here.
No network for other domains than photographs has a row: none was found whose licence and accuracy timm states.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from relish.core.progress import Progress
from relish.models.hub import default_description, kept_file, published_licence
from relish.models.registry import EMBEDDED, PACKAGED, hollow_network, parse_name
from relish.models.source import SourceModel, load_source

Use = Literal["processor", "middle", "best"]
FREE_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause"})
"""Those that forbid no use of a model, as timm's records spell them."""
WEIGHTS_ENDINGS = (".safetensors", ".pth", ".pt", ".params")
"""Of files of weights."""


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
    image_size: int | None = None
    """Side of the square that it is tried at, in pixels, where the user asks for none; None: as its weights say."""

    @property
    def options(self) -> str:
        """What has `fit` take it."""
        given = (("--source", self.source), ("--weights", self.weights))
        return shlex.join(word for option, value in given if value is not None for word in (option, value))

    def load(self, image_size: int | None, progress: Progress) -> tuple[SourceModel, int]:
        """The source model for images of the size asked for, else of the one that it is tried at; and that side.

        Raises:
            ModelError, DownloadFailed: as `load_source` does.
        """
        asked = image_size or self.image_size
        source = load_source(self.source, self.weights, progress=progress).at_size(asked)
        return source, asked or source.data_config.input_size[1]


def _row(
    name: str,
    family: str,
    use: Use,
    top1: float | None,
    side: int | None,
    parameters: float,
    licence: str = "apache-2.0",
    image_size: int | None = None,
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
        image_size=image_size,
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
    # At 518 pixels, which its last steps were trained at, an image has 1,369 patches and takes six times as long.
    _row("timm/vit_small_patch14_reg4_dinov2.lvd142m", "DINOv2", "middle", 80.9, 224, 22.06, image_size=224),
    _row("timm/vit_base_patch14_reg4_dinov2.lvd142m", "DINOv2", "best", 84.6, 224, 86.58, image_size=224),
    _row("timm/vit_base_patch16_siglip_224.v2_webli", "SigLIP 2", "best", None, None, 92.88),
    _row("timm/convnext_base.fb_in22k_ft_in1k", "ConvNeXt", "best", 86.274, 288, 88.59),
    _row("timm/vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", "ViT", "best", 86.174, 224, 86.57),
    _row("timm/caformer_b36.sail_in22k_ft_in1k", "CAFormer", "best", 87.422, 224, 98.75),
    _row("timm/eva02_base_patch14_448.mim_in22k_ft_in22k_in1k", "EVA-02", "best", 88.692, 448, 87.12, "mit"),
)
"""What is tried where nothing is named. The accuracy of packaged weights is that of timm's for the same network."""
ON_REQUEST = (_row("timm/vit_small_patch16_dinov3.lvd1689m", "DINOv3", "middle", None, None, 21.59, "dinov3-license"),)
"""Shown with its licence, and tried where the user names it: the licence forbids something."""


def restrictive(licence: str | None) -> bool:
    """Whether a licence is stated that may forbid some use, so that relish never takes such weights by itself."""
    return licence is not None and licence not in FREE_LICENCES


def candidate(text: str) -> Candidate:
    """The row of that name, or else what the user means: NAME, FILE, a run folder, or NAME=FILE."""
    known = {one.name: one for one in (*CANDIDATES, *ON_REQUEST)}
    if text in known:
        return known[text]
    name, equals, file = text.partition("=")
    if equals:
        return Candidate(name=text, source=name, weights=file)
    path = Path(text)
    if path.suffix in WEIGHTS_ENDINGS or path.is_file() or (path / "model.safetensors").is_file():
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
