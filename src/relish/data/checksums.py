"""Checksums a user gives, and whether a file has them.

In:   the words behind `--sha1` and `--sha256`, and a file.
Out:  what differs, in words; empty where nothing does.
"""

import hashlib
import re
from pathlib import Path

from relish.core.errors import DataError

_NAMES = {"sha1": "SHA-1", "sha256": "SHA-256"}


def checksums(sha1: str | None, sha256: str | None) -> dict[str, str]:
    """The checksums that were given, as lower-case digits by algorithm.

    Raises:
        DataError: one of them cannot be a checksum of its kind.
    """
    given = {"sha1": (sha1, 40), "sha256": (sha256, 64)}
    wanted = {kind: text.strip().lower() for kind, (text, _) in given.items() if text is not None}
    for kind, text in wanted.items():
        digits = given[kind][1]
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
            raise DataError(f'--{kind} "{text}" is not a {_NAMES[kind]}: it needs {digits} digits from 0 to f.')
    return wanted


def mismatch(path: Path, wanted: dict[str, str]) -> str:
    """How a file differs from the checksums it should have, in words; empty where it does not.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for kind, expected in wanted.items():
                file.seek(0)
                got = hashlib.file_digest(file, kind).hexdigest()
                if got != expected:
                    return f"{_NAMES[kind]} expected {expected}, got {got}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    return ""
