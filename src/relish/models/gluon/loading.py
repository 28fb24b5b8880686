"""A Gluon file as a network: read, recognised, checked and filled.

In:   a `.params` file, and the network it is said to be of, if anyone said so.
Out:  the network with its tensors, and what a file of them says about itself.
Not here: other files of weights (`weight_files.py`), names given to `--source` (`zoo.py`).

A head of 1000 outputs is taken to be in the order of ImageNet's classes. That is a claim, not a fact: another order is
about for these very networks, so rows are proved on pictures before anything rests on them (`evaluation/rows.py`).
"""

from pathlib import Path

import torch
from torch import nn

from relish.core.errors import ModelError
from relish.models.data_config import DataConfig
from relish.models.gluon.names import plain_names, renamed
from relish.models.gluon.params import read_params
from relish.models.gluon.recognise import Recognised, recognise
from relish.models.header import ModelDescription
from relish.models.imagenet import imagenet_labels
from relish.models.weight_files import check_fit, fill


def gluon_description(architecture: str) -> ModelDescription:
    """What Gluon's published weights of this name are like: a thousand classes, ImageNet's mean and std, 224 px.

    Source: MXNet 1.9.1, gluon/model_zoo/vision/__init__.py, which gives the mean and std.
    """
    return _description(Recognised(architecture, {}, 1000))


def load_params(path: Path, architecture: str | None = None) -> tuple[nn.Module, ModelDescription]:
    """Build the network a Gluon file is of, and fill it.

    Args:
        path: a `.params` file.
        architecture: the network it must be of; None takes what its tensors say.

    Raises:
        ModelError: the file cannot be read, is of no network that relish knows, or of another than asked for.
    """
    tensors = plain_names(read_params(path), str(path))
    found = recognise(tensors, str(path))
    name = f"gluon/{found.architecture}"
    if architecture not in (None, found.architecture):
        raise ModelError(
            f"{path}: is a {name}, not --source gluon/{architecture}.",
            hint="Leave --source away: names and shapes say which network it is.",
        )
    description = _description(found)
    with torch.device("meta"):
        hollow = description.build()
    fitting = renamed(tensors, hollow)
    wanted = {key: tuple(tensor.shape) for key, tensor in hollow.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in fitting.items()}
    # Before any memory is taken for the network.
    check_fit(given, wanted, str(path), name, advice="It may be another version of that network, or damaged.")
    network = description.build()
    fill(network, fitting, told=str(path), network_name=name)
    return network, description


def _description(found: Recognised) -> ModelDescription:
    return ModelDescription(
        library="gluon",
        architecture=found.architecture,
        model_args=found.model_args,
        num_classes=found.num_classes,
        labels=imagenet_labels() if found.num_classes == 1000 else None,
        data_config=DataConfig.from_weights(DataConfig().as_dict()),
    )
