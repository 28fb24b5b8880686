"""Name what a file is that is no picture, from its first bytes.

In:   the first bytes of a file.
Out:  a word or two for an error, such as `text file` or `HTML page`.
Not here: what pictures begin with, which decides on the decoder (`pictures.py`).

Downloads that failed leave web pages called .jpg, phones leave HEIC files, and Git leaves pointers; a user who is
told which knows what to do.
"""

import codecs

_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "PDF document"),
    (b"%!PS", "PostScript document"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"7z\xbc\xaf", "7z archive"),
    (b"Rar!", "RAR archive"),
    (b"8BPS", "Photoshop file"),
    (b"\0\0\1\0", "icon file"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000 file"),
    (b"\xff\x0a", "JPEG XL file"),
    (b"\0\0\0\x0cJXL ", "JPEG XL file"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF", "HDF5 file"),
    (b"SQLite format 3", "SQLite database"),
    (b"\x7fELF", "program"),
    (b"version https://git-lfs", "Git LFS pointer; `git lfs pull` brings the file itself"),
)


def kind_of(head: bytes, *, whole: bool) -> str:
    """What to call a file, such as `HTML page`, with what to do about it where that is short.

    Args:
        head: its first bytes; a few hundred are enough.
        whole: whether these are all of it; otherwise the last character may be cut.
    """
    if not head:
        return "empty file"
    for start, words in _OTHER_KINDS:
        if head.startswith(start):
            return words
    if head[4:8] == b"ftyp":
        return _iso_media(head[8:12])
    if not any(head):
        return "nothing but zero bytes"
    return _text_kind(head, whole) or "binary file of an unknown kind"


def _iso_media(brand: bytes) -> str:
    if brand in {b"heic", b"heix", b"mif1", b"msf1", b"hevc"}:
        return "HEIC file; convert it to JPEG or PNG"
    if brand in {b"avif", b"avis"}:
        return "AVIF file; convert it to JPEG or PNG"
    return "video"


def _text_kind(head: bytes, whole: bool) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text file"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, whole)
    except UnicodeDecodeError:
        return ""
    if any(ord(c) < 32 and c not in "\t\n\r\f" for c in text):
        return ""
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html", "<head")):
        return "HTML page"
    if "<svg" in start:
        return "SVG drawing; convert it to PNG"
    return "XML file" if start.startswith("<?xml") else "text file"
