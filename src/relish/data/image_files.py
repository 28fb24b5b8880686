"""Image files before they are decoded: what a file is by its first bytes, and copies of it without what Pillow refuses.

First bytes decide what a file is, never its name. A file that is no image has words for its kind (`text file`, `HTML
page`): failed downloads leave web pages called .jpg, phones HEIC files, Git pointers, and each needs another remedy.

Pillow refuses an image for its metadata: a PNG with a long text or with a wrong checksum of one, a JPEG with a
malformed segment, a JPEG whose last two bytes are missing. Its limits are settings of the whole process, which belong
to the user, so relish leaves them alone and decodes a copy of the file that has nothing but what decides pixels.
"""

import codecs
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
"""Lower-case endings of files that count as images unopened: whatever is in them, it is said of an image."""

HEAD_BYTES = 512
"""First bytes of a file that tell its kind."""

HEIF_INSTALLED = find_spec("pillow_heif") is not None
"""Whether HEIC files can be read: the extra `heif` is installed."""

CAMERA_RAW = "camera raw file; develop it to JPEG or TIFF"

_PNG = b"\x89PNG\r\n\x1a\n"
_IOS = b"CgBI"
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_DECODERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (_PNG, PngImageFile),
    *((start, GifImageFile) for start in (b"GIF87a", b"GIF89a")),
    *((start, TiffImageFile) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((start, Jpeg2KImageFile) for start in (_JP2, b"\xff\x4f\xff\x51")),
)

_BMP_HEADERS = frozenset([12, 40, 52, 56, 64, 108, 124])
"""Sizes of a BMP's second header; its two letters alone would take a text on BMW for an image."""
_PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+\d+(?:\s|#[^\r\n]*[\r\n])+\d")
"""PBM, PGM or PPM: a letter and a digit would be too little. Source: the manual pages pbm(5), pgm(5) and ppm(5)."""
_HEIC = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"])
_AVIF = frozenset([b"avif", b"avis"])


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_image_head(head: bytes) -> bool:
    """Whether first bytes are an image's, one included that cannot be decoded here, such as a camera's raw file."""
    return decoder_of(head) is not None or _unread_image(head) != ""


def kind_of_file(path: Path) -> str:
    """Why a regular file is no image, such as `text file`; empty where its first bytes are an image's."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError) as error:
        return unreadable_reason(error)
    return "" if is_image_head(head) else kind_of(head).partition(";")[0]


def no_image_reason(head: bytes) -> str:
    """Why a file that begins like this cannot be opened."""
    if words := _unread_image(head):
        return f"a picture that is not read: {words}"
    return f"not a picture: {kind_of(head)}"


def unreadable_reason(error: OSError | ValueError) -> str:
    """The reason to give for a file that the system cannot read."""
    words = getattr(error, "strerror", None) or str(error)
    return f"cannot be read ({words[:1].lower()}{words[1:]})"


def decoder_of(head: bytes) -> type[ImageFile] | None:
    """Pillow's class for the format that first bytes belong to; None where there is none, or it is not installed."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImageFile
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return BmpImageFile
    if _PNM.match(head):
        return PpmImageFile
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        return AvifImageFile if brands & _AVIF else _heif() if brands & _HEIC else None
    if head[8:10] == b"CR" or head[12:16] == _IOS:  # Canon's raw file begins like a TIFF, an app's picture like a PNG
        return None
    return next((decoder for start, decoder in _DECODERS if head.startswith(start)), None)


def _brands(head: bytes) -> set[bytes]:
    """What an ISO media file says it is: its own brand, and those that it is compatible with (ISO 14496-12, 4.3)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[i : i + 4] for i in range(16, end, 4))}


@cache
def _heif() -> type[ImageFile] | None:
    """pillow-heif's class, where it is installed; it is not entered in Pillow's own list, which is the user's."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    decoder: type[ImageFile] = HeifImageFile
    return decoder


def is_camera_raw(file: BinaryIO) -> bool:
    """Whether a TIFF is a camera's raw file: Pillow would read the small preview in it as if it were the image.

    Sources: Adobe's DNG specification 1.7 (tag 50706, photometric interpretations 32803 and 34892); TIFF 6.0 and
    TIFF/EP (tag 254, a reduced version of another image of the file, which tag 330 leads to).
    """
    try:
        file.seek(0)
        start = file.read(8)
        tags = ImageFileDirectory_v2(start + (file.read(8) if start[2] == 43 else b""))
        file.seek(tags.next)
        tags.load(file)
        reduced = bool(int(tags.get(254, 0)) & 1) and 330 in tags
        return reduced or 50706 in tags or tags.get(262) in (32803, 34892)
    except Exception:  # damaged: whoever decodes it says so
        return False


# ---- copies without what Pillow refuses -----------------------------------------------------------------------------


def wrong_pixels(file: BinaryIO) -> bool:
    """Whether a PNG has a wrong checksum of its pixels, which Pillow does not compare."""
    return any(name == b"IDAT" and not right for name, _, right in _png_chunks(file))


def copies_to_try(file: BinaryIO, decoder: type[ImageFile], error: Exception) -> Iterator[list[bytes]]:
    """Copies of a file that Pillow refuses with this error, without what has no part in the pixels.

    Yields:
        Copies that show the image if all of one list give the same pixels.
    """
    if decoder is PngImageFile:
        yield [_plain_png(file)]
    elif decoder is JpegImageFile:
        file.seek(0)
        content = file.read()
        if "truncated" in str(error).lower():
            yield from _ended_jpegs(content)
        else:
            yield from ([_plain_jpeg(content, keep_exif=keep)] for keep in (True, False))


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes, bool]]:
    """Name, content, and whether the checksum is right, of each whole chunk (PNG, third edition, section 5.3)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(len(_PNG))
    while len(start := file.read(8)) == 8:
        content = file.read(min(int.from_bytes(start[:4], "big"), size))  # a damaged length must not ask for 4 GiB
        checksum = file.read(4)
        if len(checksum) < 4:
            return
        yield start[4:], content, zlib.crc32(content, zlib.crc32(start[4:])) == int.from_bytes(checksum, "big")
        if start[4:] == b"IEND":
            return


def _plain_png(file: BinaryIO) -> bytes:
    """Critical chunks, transparency, and Exif where it is whole, since it may say which way is up."""
    parts = [_PNG]
    for name, content, right in _png_chunks(file):
        critical = not name[0] & 0x20
        if critical or name == b"tRNS" or (name == b"eXIf" and right):
            checksum = zlib.crc32(content, zlib.crc32(name)) ^ (not right)  # a wrong one stays wrong
            parts += [len(content).to_bytes(4, "big"), name, content, checksum.to_bytes(4, "big")]
    return b"".join(parts)


def _jpeg_header(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each segment before the first scan, and 0 with all that follows (ITU T.81, annex B)."""
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] not in (b"\xda", b"\xff", b""):
        end = place + 2 + max(2, int.from_bytes(content[place + 2 : place + 4], "big"))
        yield content[place + 1], content[place:end]
        place = end
    yield 0, content[place:]


def _plain_jpeg(content: bytes, *, keep_exif: bool) -> bytes:
    """No comments and no application segments but Adobe's, which says how colours are stored, and Exif's."""
    parts = [content[:2]]
    for marker, segment in _jpeg_header(content):
        exif = marker == 0xE1 and segment[4:10] == b"Exif\0\0" and keep_exif
        adobe = marker == 0xEE and len(segment) >= 16
        if exif or adobe or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(segment)
    return b"".join(parts)


def _filler(byte: int, first: int) -> bytes:
    """To end a scan with: bits, then restart markers with the same bits behind each, for whole intervals that lack."""
    bits = bytes([byte]) * 64
    return bits + b"".join(b"\xff" + bytes([0xD0 + (first + place) % 8]) + bits for place in range(8))


_FILLERS = (b"", *map(_filler, (0xAA, 0x55, 0xFE, 0xC3, 0x11, 0x7F, 0xE0, 0x80), range(8)))
"""Without one, libjpeg reads zeros; so it does for invalid codes, and where the first marker is one of the two behind
the one that it waits for. With three others, 10 of 17,000 files cut at random gave a wrong image; with eight, none of
36,000."""
_MARKER = re.compile(rb"\xff([^\0\xd0-\xd7\xff])")
"""What ends a scan, with the marker's code: none of the bytes and restarts of the scan itself."""


def _ended_jpegs(content: bytes) -> Iterator[list[bytes]]:
    """A JPEG without its end marker, ended in several ways: equal pixels mean that no part of them is missing.

    Not where a whole scan is missing, which leaves no trace.
    """
    if _has_all_scans(content):
        yield [content.rstrip(b"\xff") + filler + b"\xff\xd9" for filler in _FILLERS]


def _has_all_scans(content: bytes) -> bool:
    """Whether the scans bring each coefficient of each component to its last bit (ITU T.81, sections B.2.3, G.1.1)."""
    *header, (_, rest) = _jpeg_header(content)
    frames = [segment for marker, segment in header if marker in (0xC0, 0xC1, 0xC2)]
    missing = {(component, k) for frame in frames[:1] for component in frame[10::3] for k in range(64)}
    for scan in _scans(rest):
        behind = 1 + 2 * scan[0]
        band = scan[behind : behind + 3]  # its first and last coefficient, and two numbers of bits
        if len(band) == 3 and not band[2] & 15:
            missing -= {(component, k) for component in scan[1:behind:2] for k in range(band[0], band[1] + 1)}
    return bool(frames) and not missing


def _scans(content: bytes) -> Iterator[bytes]:
    """The header of each scan, behind its length."""
    place = 0
    while found := _MARKER.search(content, place):
        start = found.end() + 2
        place = max(start, found.end() + int.from_bytes(content[found.end() : start], "big"))
        if found[1] == b"\xda" and (scan := content[start:place]):
            yield scan


# ---- naming what is no image ----------------------------------------------------------------------------------------


_UNREAD_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"8BPS", "Photoshop file; save it as PNG or JPEG"),
    (b"gimp xcf", "GIMP file; export it as PNG or JPEG"),
    *((start, "JPEG XL file; convert it to PNG or JPEG") for start in (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    *((start, CAMERA_RAW) for start in (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")),
    (b"II\x1a\0\0\0HEAPCCDR", CAMERA_RAW),
)
"""Images that nothing here decodes: a folder's index takes them for images, so that each is named."""

_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "PDF document"),
    *((start, "PostScript document") for start in (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"7z\xbc\xaf", "7z archive"),
    (b"Rar!", "RAR archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard archive"),
    (b"\0\0\1\0", "icon file"),
    *((start, "PAM or PFM file; convert it to PNG") for start in (b"P7\n", b"PF\n", b"Pf\n")),
    (b"v/1\x01", "OpenEXR file; convert it to PNG"),
    (b"SIMPLE  =", "FITS file; convert it to PNG"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF", "HDF5 file"),
    (b"PAR1", "Parquet file"),
    (b"ARROW1", "Arrow file"),
    (b"SQLite format 3", "SQLite database"),
    (b"\x7fELF", "program"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"\xd0\xcf\x11\xe0", "old Office document"),
    (b"version https://git-lfs", "Git LFS pointer; `git lfs pull` brings the file itself"),
    (b"/annex/objects/", "git-annex pointer; `git annex get` brings the file itself"),
)


def kind_of(head: bytes) -> str:
    """What to call a file, such as `HTML page`, with what to do about it where that is short.

    Args:
        head: its first `HEAD_BYTES`, or all there are.
    """
    if not head:
        return "empty file"
    if words := _unread_image(head):
        return words
    if words := _words_of(head, _OTHER_KINDS):
        return words
    if head[4:8] == b"ftyp":
        return "video"
    if head[:4] == b"RIFF":
        return "sound" if head[8:12] == b"WAVE" else "video"
    if head[128:132] == b"DICM":
        return "DICOM file; convert it to PNG"
    if not any(head):
        return "nothing but zero bytes"
    return _text_kind(head) or "binary file of an unknown kind"


def other_kind(path: Path) -> str:
    """What a file is that was taken for a model, such as `HTML page`; empty for what a model may look like.

    Args:
        path: a file that could not be read as a model.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return ""
    kind = kind_of(head)
    return "" if head.startswith((b"PK", b"\x80")) or kind.startswith("binary file") else kind


def _words_of(head: bytes, kinds: Iterable[tuple[bytes, str]]) -> str:
    return next((words for start, words in kinds if head.startswith(start)), "")


def _unread_image(head: bytes) -> str:
    """What to call an image that cannot be decoded here, with the remedy; empty for anything else."""
    if words := _words_of(head, _UNREAD_IMAGES):
        return words
    if head.startswith(_PNG) and head[12:16] == _IOS:
        return "PNG as it is packed into an iPhone's app; take the one it was made from"
    brands = _brands(head) if head[4:8] == b"ftyp" else set()
    if b"crx " in brands or (head[8:10] == b"CR" and head[:2] in (b"II", b"MM")):
        return CAMERA_RAW
    if brands & _HEIC and not brands & _AVIF:
        return 'HEIC file; reading it takes  pip install "relish-vision[heif]"  or convert it to JPEG or PNG'
    return ""


def _text_kind(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text file"
    try:
        # Of a longer file, the last character may be cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        return ""
    if any(ord(c) < 32 and c not in "\t\n\r\f" for c in text):
        return ""
    text = text.lstrip().lower()
    if text.startswith("<") and "<html" in text:
        return "HTML page"
    if "<svg" in text:
        return "SVG drawing; convert it to PNG"
    return next((words for starts, words in _TEXTS if text.startswith(starts)), "text file")


_TEXTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<!doctype html", "<html", "<head", "<body"), "HTML page"),
    (("data:image/", "/9j/", "ivborw0kggo"), "picture in base64; decode it into a file"),
    (('{"', "{\n", "{ ", "[{", '["'), "JSON file"),
    (("<?xml",), "XML file"),
)
"""What a text is by its start, in lower case."""
