"""Names that are safe on every file system, made from what a browser sends: of classes and of image files."""

import re
import unicodedata
from pathlib import PurePosixPath

from relish.core.errors import BadInput, one_line
from relish.data.dataset import class_name
from relish.data.image_files import is_image_name
from relish.data.layout import is_junk

LONGEST = 120
"""Bytes of a name in UTF-8; file systems allow 255, and a number or an ending may be added."""
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f]+')
"""What Windows or a path does not allow; control characters."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any ending. Source: Microsoft, Naming Files, Paths, and Namespaces."""


def safe_name(text: str) -> str:
    """The text as a name of a file or a folder on any system; empty where nothing of it can be one.

    Unicode's NFC, without signs that cannot be seen, with a hyphen for what is not allowed, no dot or blank at its
    edges, at most `LONGEST` bytes.
    """
    plain = class_name(text.encode("utf-8", "replace").decode())
    plain = "".join(
        letter for letter in plain if unicodedata.category(letter) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")
    )
    plain = " ".join(_FORBIDDEN.sub("-", plain).split()).strip(" .")
    plain = plain.encode()[:LONGEST].decode(errors="ignore").strip(" .")
    if _RESERVED.fullmatch(plain):
        plain = f"{plain}_"
    return "" if set(plain) <= {"-"} else plain


def safe_class(text: str) -> str:
    """The folder's name of a class.

    Raises:
        BadInput: nothing of it can be a name, or systems keep it for themselves.
    """
    name = safe_name(text)
    if not name:
        raise BadInput(f'"{one_line(text)[:80]}" cannot be the name of a class.', hint="Give it letters or digits.")
    if is_junk(name):
        raise BadInput(f'"{name}" is a name that operating systems use.', hint="Take another name.")
    return name


def safe_file(text: str, suffix: str) -> str:
    """An image file's name: the last part of a path of any system, with an ending that says it is an image.

    Args:
        text: as it was sent.
        suffix: such as ".jpg", where the name has none of an image.
    """
    path = PurePosixPath(text.replace("\\", "/"))
    own = path.suffix if is_image_name(path.name) else ""
    stem = safe_name(path.name[: len(path.name) - len(own)]) or "image"
    return f"{stem}{own or suffix}"


def parts_of(text: str) -> list[str]:
    """The names of the folders that a sent path names, from the outside in; `..` and empty ones say nothing."""
    parts = PurePosixPath(text.replace("\\", "/")).parts[:-1]
    return [name for part in parts if part not in ("/", "..", ".") and (name := safe_name(part)) and not is_junk(name)]
