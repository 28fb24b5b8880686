"""Rows of numbers kept on disk under the hash of what they were computed from, so that they are computed once.

In:   a folder of its own, the length of a row, and rows with their keys.
Out:  the rows of any keys that are there, read through a memory map.
Not here: what a row means (`evaluation/features.py`).

Two files that only grow: the rows, and for each a 32-byte key with the checksum of its row. Rows reach the disk before
their keys, under a lock, so a kill at any moment leaves rows without a key, which the next writer writes over. A row
whose checksum is wrong counts as missing.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from relish.core.errors import WriteFailed

Rows = npt.NDArray[np.float32]

_RECORD = np.dtype([("key", "V32"), ("crc", "<u4")])


class RowStore:
    """Float32 rows of one length by 64-digit hexadecimal keys; several processes may use one folder at once."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self._rows, self._keys = folder / "rows.f32", folder / "keys.bin"

    def read(self, keys: Iterable[str]) -> Iterator[tuple[str, Rows]]:
        """The rows that are kept and whole, with their keys: (width,) float32 each, mapped from the disk.

        A folder that is not there, or cannot be read, holds nothing.
        """
        try:
            known, rows = self._open()
        except OSError:
            return
        places = {key: place for place, key in enumerate(known["key"].tolist())}
        for key in keys:
            place = places.get(bytes.fromhex(key))
            if place is not None and zlib.crc32(rows[place]) == known["crc"][place]:
                yield key, rows[place]

    def add(self, rows: Mapping[str, Rows]) -> None:
        """Keep further rows, (width,) float32 each.

        Raises:
            WriteFailed: the disk is full or the folder cannot be written to; what was kept before still is.
        """
        if not rows:
            return
        block = np.stack([np.asarray(row, dtype="<f4") for row in rows.values()])
        records = [(bytes.fromhex(key), zlib.crc32(row)) for key, row in zip(rows, block, strict=True)]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                count = self._count()
                _write_at(self._rows, count * self.width * 4, block.tobytes())
                _write_at(self._keys, count * _RECORD.itemsize, np.array(records, dtype=_RECORD).tobytes())
        except (OSError, NotImplementedError) as error:  # the latter where a file system knows no locks
            reason = getattr(error, "strerror", None) or "it cannot be locked"
            raise WriteFailed(
                f"{self.folder}: cannot write ({reason}).",
                hint="Free some space, or name another cache folder in RELISH_HOME, then again.",
            ) from error

    def _count(self) -> int:
        sizes = [path.stat().st_size if path.exists() else 0 for path in (self._rows, self._keys)]
        return min(sizes[0] // (self.width * 4), sizes[1] // _RECORD.itemsize)

    def _open(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.float32]]:
        count = self._count()
        if not count:
            return np.zeros(0, dtype=_RECORD), np.zeros((0, self.width), dtype="<f4")
        known = np.fromfile(self._keys, dtype=_RECORD, count=count)
        return known, np.memmap(self._rows, dtype="<f4", mode="r", shape=(count, self.width))


def _write_at(path: Path, offset: int, content: bytes) -> None:
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.seek(offset)
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
