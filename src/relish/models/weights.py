"""Read a file of weights into named tensors, and copy them into a network; nothing in a file is ever run.

Reads `.safetensors`, and `.pth`/`.pt` state dicts of torchvision or timm. A pickle can run code when it is read, so
`.pth` files go through torch's reader for plain tensors only. Floating-point tensors become float32.
"""

import argparse
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from relish.core.errors import ModelError
from relish.core.runtime import raise_if_no_memory
from relish.data.image_files import other_kind

Tensors = dict[str, Tensor]

_WRAPPERS = frozenset(["module", "_orig_mod", "model", "net", "network"])
"""What DataParallel, `torch.compile`, Lightning and people's own classes put before every name."""
_SHOWN = 4
"""Names listed for each kind of mismatch; the rest is counted."""


def read_tensors(path: Path) -> Tensors:
    """The tensors of a file, by name; halves, bfloat16 and doubles become float32.

    Raises:
        ModelError: the file cannot be read, is cut short, or holds something other than named tensors.
    """
    tensors = _read_safetensors(path) if is_safetensors(path) else _read_pickle(path)
    if not tensors:
        raise ModelError(f"{path}: holds no tensors.", hint="Give a file that holds a network's state dict.")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def is_safetensors(path: Path) -> bool:
    """Whether the file is safetensors by its content: a length, then JSON.

    Raises:
        ModelError: the file is missing, is a folder or may not be read.
    """
    return read_bytes(path, 9)[8:] == b"{" or path.suffix == ".safetensors"


def read_bytes(path: Path, count: int = -1) -> bytes:
    """So many bytes from a file's start, or all there are; -1 reads the whole file.

    Raises:
        ModelError: the file is missing, is a folder or may not be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the weights ({error.strerror or error}).") from error


def _read_safetensors(path: Path) -> Tensors:
    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise_if_no_memory(error, f"to load {path}")
        raise broken_file(path, error) from error


def broken_file(path: Path, error: BaseException) -> ModelError:
    """The error for a safetensors file that cannot be read."""
    if kind := other_kind(path):
        return _no_weights(path, kind)
    reason = (str(error).splitlines() or ["unreadable"])[0][:120]
    return ModelError(
        f"{path}: is not a whole safetensors file ({reason}).",
        hint="It may have been cut short: fetch or save it again.",
    )


def _no_weights(path: Path, kind: str) -> ModelError:
    return ModelError(f"{path}: holds no weights ({kind}).", hint="Get the file of weights itself.")


def _read_pickle(path: Path) -> Tensors:
    try:
        # timm's own checkpoints hold the arguments of their training: a Namespace only keeps values, and runs nothing.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            # torch warns of what it refuses just below.
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    # What a damaged archive raises depends on where the damage is.
    except Exception as error:
        raise_if_no_memory(error, f"to load {path}")
        if kind := other_kind(path):
            raise _no_weights(path, kind) from error
        if isinstance(error, pickle.UnpicklingError):
            raise ModelError(
                f"{path}: holds pickled Python objects, which could run code when read, or is cut short.",
                hint="Save only the tensors, torch.save(model.state_dict(), FILE), or better as safetensors.",
            ) from error
        raise ModelError(
            f"{path}: is not a file of weights that torch can read ({type(error).__name__}).",
            hint="Give safetensors, or a state dict saved by torch.save; it may have been cut short.",
        ) from error
    return _state_dict_in(path, found)


def _state_dict_in(path: Path, found: Any) -> Tensors:
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: holds a {type(found).__name__}, not a dictionary of named tensors.")
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        raise ModelError(
            f"{path}: holds more than tensors, such as {', '.join(others[:_SHOWN])}.",
            hint='Save the state dict alone, or under the key "state_dict" or "model".',
        )
    return {str(name): value for name, value in found.items()}


def unwrapped(tensors: Tensors) -> Tensors:
    """The tensors without what a wrapper put before every name, such as `_orig_mod.module.`."""
    while tensors and len(first := {name.partition(".")[0] for name in tensors}) == 1 and first <= _WRAPPERS:
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    return tensors


def check_finite(tensors: Mapping[str, Tensor], told: str) -> None:
    """Refuse weights that hold NaN or infinity, which no learning rate mends.

    Args:
        told: what to call the tensors in an error, such as the file's path.

    Raises:
        ModelError: some do; the first tensors are named.
    """
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise ModelError(
            f"{told}: {_told('NaN or infinity in', bad, str)}.",
            hint="The training that it comes from went astray: take an earlier checkpoint.",
        )


def fill(network: nn.Module, tensors: Mapping[str, Tensor], *, told: str, network_name: str) -> None:
    """Copy tensors into the network they belong to, all or none.

    Args:
        network: changed in place only where everything fits.
        tensors: by name; batch-norm counters may be missing, everything else must be there.
        told: what to call the tensors in an error, such as the file's path.
        network_name: what to call the network.

    Raises:
        ModelError: names missing, unexpected, of another shape or not of real numbers, a few of each with their counts.
    """
    current: Any = network.state_dict()
    wanted = shapes_of(current)
    fitted: Any = OrderedDict(_renamed(tensors, wanted))
    check_fit(shapes_of(fitted), wanted, told, network_name)
    other = [name for name, one in fitted.items() if _loses(one, current[name])]
    if other:
        listed = _told(
            "no real numbers", other, lambda name: f"{name} {str(fitted[name].dtype).removeprefix('torch.')}"
        )
        raise ModelError(f"{told}: these weights are not of {network_name}.", hint=f"{listed}\n  Save them as float32.")
    # Some networks (MNASNet) ask for their format's version, which safetensors has no place for. Names and shapes have
    # just been found to be of this version.
    fitted._metadata = current._metadata
    network.load_state_dict(fitted, strict=False)


def _loses(given: Tensor, wanted: Tensor) -> bool:
    """Whether a copy would lose something: complex numbers their imaginary part, quantised ones their scale."""
    return given.is_complex() or (wanted.is_floating_point() and not given.is_floating_point())


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_fit(
    given: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    told: str,
    network_name: str,
    *,
    advice: str = "Name the network they belong to with --source.",
) -> None:
    """Compare names and shapes; `advice` is what to do where they differ.

    Raises:
        ModelError: as in `fill`.
    """
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in wanted]
    misshapen = [name for name in given if name in wanted and tuple(given[name]) != tuple(wanted[name])]
    if not (missing or unexpected or misshapen):
        return
    lines = [
        _told("missing", missing, str),
        _told("unexpected", unexpected, str),
        _told("another shape", misshapen, lambda name: f"{name} {_shape(given[name])}, not {_shape(wanted[name])}"),
    ]
    raise ModelError(
        f"{told}: these weights are not of {network_name}.", hint="\n  ".join([*filter(None, lines), advice])
    )


def _told(kind: str, names: list[str], words: Callable[[str], str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{kind} {len(names)}: {', '.join(words(name) for name in names[:_SHOWN])}{more}"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _renamed(tensors: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> Tensors:
    """Undo two old habits of published files: dotted DenseNet names, and auxiliary outputs that only training used."""
    renamed = {}
    for name, tensor in tensors.items():
        undotted = re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", name)
        if name in wanted or undotted not in wanted:
            undotted = name
        if undotted in wanted or not re.match(r"(aux[12]|AuxLogits)\.", undotted):
            renamed[undotted] = tensor
    return renamed
