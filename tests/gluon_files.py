"""Write Gluon `.params` files without MXNet, in every version of the format; tests need them, relish does not."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from relish.models.gluon.loading import own_names
from relish.models.gluon.networks import build_gluon
from relish.models.gluon.params import LIST_MAGIC, V1, V2, V3

TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7}


def array_bytes(values: np.ndarray, version: int, *, storage: int = 0) -> bytes:
    """One array; `version` is 0 to 3."""
    if version == 0:
        head = struct.pack(f"<I{values.ndim}I", values.ndim, *values.shape)
    else:
        head = struct.pack("<I", (V1, V2, V3)[version - 1]) + (struct.pack("<i", storage) if version > 1 else b"")
        head += struct.pack(f"<i{values.ndim}q", values.ndim, *values.shape)
    return head + struct.pack("<iii", 1, 0, TYPES[values.dtype.name]) + values.tobytes()


def list_bytes(arrays: Sequence[bytes], names: Sequence[bytes]) -> bytes:
    """A whole file of arrays and names."""
    told = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    return b"".join([struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays)), *arrays, struct.pack("<Q", len(names)), told])


def params_bytes(tensors: Mapping[str, np.ndarray], version: int = 2) -> bytes:
    """A whole file of named arrays."""
    return list_bytes([array_bytes(value, version) for value in tensors.values()], [n.encode() for n in tensors])


def write_gluon(path: Path, architecture: str, classes: int = 1000, *, seed: int = 0, **model_args) -> Path:
    """A file of random weights, as `save_parameters` would write it."""
    import torch

    torch.manual_seed(seed)
    network = build_gluon(architecture, model_args, classes)
    tensors = network.state_dict()
    places = own_names(network, counted=False)
    arrays = {theirs: tensors[own].numpy() if own else np.full(3, 2.5, np.float32) for theirs, own in places.items()}
    path.write_bytes(params_bytes(arrays))
    return path
