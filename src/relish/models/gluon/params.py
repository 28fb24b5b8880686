"""Read a Gluon `.params` file without MXNet: a list of dense arrays and their names.

The layout, little-endian throughout (MXNet 1.9.1, src/ndarray/ndarray.cc, `NDArray::Save` and `NDArray::Load`):

    u64 0x112, u64 reserved
    u64 number of arrays, then each array:
        u32 magic: V1, V2 or V3; in the oldest files (V0) the number of dimensions stands there instead
        V2, V3: i32 storage, 0 is dense
        shape: i32 dimensions, i64 each (V0: u32 each)
        i32 device, i32 its number, i32 type, then the values
    u64 number of names, then each name: u64 length, UTF-8

A file may claim anything, so nothing is allocated before the bytes it is for have been seen in the file. Values are
taken as they are, NaN included, as from any other file of weights.
"""

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relish.core.errors import ModelError
from relish.models.weights import read_bytes

LIST_MAGIC = 0x112
_MAGIC = struct.pack("<Q", LIST_MAGIC)
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
"""Of one array: whole-number shapes of 64 bits; a storage type too; shapes as numpy means them."""
MOST_DIMENSIONS = 32
"""As in numpy. A larger number is damage."""

_TYPES: Mapping[int, str] = {0: "<f4", 1: "<f8", 2: "<f2"}
_OTHER_TYPES: Mapping[int, str] = {
    3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool", 8: "int16", 9: "uint16", 10: "uint32", 11: "uint64",
    12: "bfloat16",
}  # fmt: skip
_DEVICES = (1, 2, 3, 5, 6)
"""A processor, a GPU, and memory pinned or shared between them; wherever an array was, its values are in the file."""
_SAVE_AGAIN = "It may have been cut short or damaged: fetch or save it again."


def is_params(path: Path) -> bool:
    """Whether the file is Gluon's by its first bytes, or means to be by its name.

    Raises:
        ModelError: the file is missing, is a folder or may not be read.
    """
    return read_bytes(path, 8) == _MAGIC or path.suffix == ".params"


def read_params(path: Path) -> dict[str, Tensor]:
    """The arrays of a file by name, in its order; halves and doubles become float32.

    Raises:
        ModelError: the file cannot be read, is damaged, or holds anything but dense arrays of fractions with a name
            each.
    """
    return parse_params(read_bytes(path), str(path))


def parse_params(content: bytes, told: str) -> dict[str, Tensor]:
    """The same from the bytes of a file, which errors call `told`.

    Raises:
        ModelError: as in `read_params`.
    """
    reader = _Reader(content, told)
    if not content.startswith(_MAGIC):
        raise _another_format(content, told)
    reader.numbers("QQ")
    arrays = [_array(reader) for _ in range(reader.count("arrays", smallest=8))]
    names = [_name(reader) for _ in range(reader.count("names", smallest=8))]
    if reader.left:
        raise ModelError(f"{told}: {reader.left} bytes follow the last name.", hint=_SAVE_AGAIN)
    if len(names) != len(arrays):
        raise ModelError(
            f"{told}: holds {len(arrays)} arrays and {len(names)} names.",
            hint="Save it from the network: net.save_parameters(FILE).",
        )
    name, times = max(Counter(names).items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise ModelError(f"{told}: holds {name[:80]!r} {times} times.", hint=_SAVE_AGAIN)
    if not arrays:
        raise ModelError(f"{told}: holds no arrays.", hint="Save it from the network: net.save_parameters(FILE).")
    return dict(zip(names, arrays, strict=True))


@dataclass
class _Reader:
    """The bytes of a file and how far they have been read."""

    content: bytes
    told: str
    at: int = 0

    @property
    def left(self) -> int:
        return len(self.content) - self.at

    def numbers(self, kinds: str) -> tuple[Any, ...]:
        """Some numbers, in the letters of `struct`."""
        return struct.unpack(f"<{kinds}", self.take(struct.calcsize(f"<{kinds}")))

    def number(self, kind: str) -> int:
        return int(self.numbers(kind)[0])

    def take(self, size: int) -> memoryview:
        """The next bytes, without copying them."""
        if size > self.left:
            raise ModelError(f"{self.told}: ends after {len(self.content)} bytes, too early.", hint=_SAVE_AGAIN)
        self.at += size
        return memoryview(self.content)[self.at - size : self.at]

    def count(self, what: str, smallest: int) -> int:
        """How many of something follow, which the rest of the file must have room for."""
        claimed = self.number("Q")
        if claimed > self.left // smallest:
            raise ModelError(f"{self.told}: claims to hold {claimed} {what}, too many for its size.", hint=_SAVE_AGAIN)
        return claimed


def _array(reader: _Reader) -> Tensor:
    magic = reader.number("I")
    if magic in (V2, V3) and (storage := reader.number("i")) != 0:
        raise ModelError(
            f"{reader.told}: holds an array that is not dense (storage {storage}).",
            hint="Networks for pictures have dense arrays only; save it again after array.tostype('default').",
        )
    shape = _shape(reader, magic)
    device, _, kind = reader.numbers("iii")
    if device not in _DEVICES:
        raise ModelError(f"{reader.told}: an array is of device {device}, which there is not.", hint=_SAVE_AGAIN)
    if kind not in _TYPES:
        what = f"of type {_OTHER_TYPES[kind]}" if kind in _OTHER_TYPES else f"of type {kind}, which there is not"
        raise ModelError(
            f"{reader.told}: holds an array {what}.", hint="relish reads float32, float16 and float64: net.cast them."
        )
    form = np.dtype(_TYPES[kind])
    # Whole numbers of Python: the product of a hostile shape grows, it does not wrap around.
    values = np.frombuffer(reader.take(form.itemsize * math.prod(shape)), dtype=form)
    # A copy, so that no tensor keeps the whole file in memory; a double too large for float32 becomes infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def _shape(reader: _Reader, magic: int) -> tuple[int, ...]:
    dimensions, letter = (reader.number("i"), "q") if magic in (V1, V2, V3) else (magic, "I")
    lowest = 0 if magic == V3 else 1
    hint = "It may be damaged, or hold parameters that were never initialised."
    if not lowest <= dimensions <= MOST_DIMENSIONS:
        claim = f"an array of {dimensions} dimensions, where {lowest} to {MOST_DIMENSIONS} can be."
        raise ModelError(f"{reader.told}: {claim}", hint=hint)
    shape = reader.numbers(letter * dimensions)
    if any(length < 1 for length in shape):
        raise ModelError(f"{reader.told}: an array of the shape {'×'.join(map(str, shape))}.", hint=hint)
    return shape


def _name(reader: _Reader) -> str:
    length = reader.number("Q")
    try:
        return bytes(reader.take(length)).decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{reader.told}: the name of an array is not UTF-8.", hint=_SAVE_AGAIN) from error


def _another_format(content: bytes, told: str) -> ModelError:
    hint = "Give a file that net.save_parameters, net.export or mx.nd.save wrote."
    if content[:4] == b"PK\x03\x04":
        return ModelError(
            f"{told}: is a zip archive, as MXNet 2 saves parameters, not a .params file of MXNet 1.",
            hint="Save it from MXNet 1, or convert it to safetensors with a header.",
        )
    return ModelError(f"{told}: is not a Gluon .params file.", hint=hint)
