"""Open an image: the one function that training, evaluation, prediction, pages and the server all read with.

A file's first bytes decide its kind, never its name; `image_files.py` tells it.

Whoever changes what can be opened, or its pixels, raises `_RULES` in `survey.py` and, for pixels, the one in
`evaluation/features.py`: the cache then forgets what it holds.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from relish.core.errors import ImageError
from relish.data.depth import Again, Unusable, Used, ValueRange, is_deep, is_deep_grey, stored
from relish.data.image_files import (
    CAMERA_RAW,
    HEAD_BYTES,
    copies_to_try,
    decoder_of,
    is_camera_raw,
    no_image_reason,
    unreadable_reason,
    wrong_pixels,
)

MAX_PIXELS = 120_000_000
"""The largest image that is decoded: above any camera in common use, and half a gigabyte once decoded."""

Result = TypeVar("Result")
Decode = Callable[[ImageFile, Again], Result]
"""What to make of an image of which nothing is decoded yet, given it and how to open its file once more."""
NO_MEMORY = "not enough memory to decode it"
"""The reason of an image that could be opened where there is more."""
ImageSource = Path | str | bytes | BinaryIO | Image.Image | npt.NDArray[np.generic]

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that undoes each value of the EXIF tag `Orientation`. Source: Exif 2.32, table 6."""
_ON_ITS_SIDE = range(5, 9)
"""Values of an image whose width becomes its height."""

_PILLOW = r"PIL\."


def open_image(
    source: ImageSource,
    *,
    name: str | None = None,
    min_side: int | None = None,
    value_range: ValueRange | None = None,
) -> Image.Image:
    """Open one image, the same way everywhere.

    Args:
        source: a path; the bytes of a file; an open binary file, read from its start and left open; a Pillow image,
            left as it is; or a uint8 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels RGB or RGBA.
        name: what to call it in an error; by default the path, or what kind of object was given.
        min_side: pixels that the shorter side must keep: a JPEG file may then be decoded at 1/2, 1/4 or 1/8 of its
            size, which takes about half the time and changes values slightly. None: full size.
        value_range: what is black and white in images deeper than 8 bits, the same for all images of a dataset; those
            of 8 bits are not touched by it. None: what the image's own file says, see `depth.Stored`.

    Returns:
        A new image in mode RGB, wholly decoded, that holds no file open. Of an animation, the first frame.

    Raises:
        ImageError: it is not an image, is cut short or damaged, has more than MAX_PIXELS, or cannot be read; or its
            values are on another scale than `value_range`, which was found and not given.
    """
    decode = partial(_decoded, min_side=min_side, value_range=value_range)
    with _named(name or _name_of(source)):
        return _from_any(source, decode, value_range)


def _from_any(source: object, decode: Decode[Image.Image], value_range: ValueRange | None) -> Image.Image:
    match source:
        case Path() | str():
            return _from_path(Path(source), decode)
        case bytes() | bytearray() | memoryview():
            return _from_file(BytesIO(source), decode)
        case Image.Image():
            return _from_pillow(source, value_range)
        case np.ndarray():
            return _decoded(_from_array(source))
        case _ if hasattr(source, "read"):
            return _from_file(_seekable(source), decode)
        case _:
            noun = type(source).__name__
            raise Unusable(f"a picture cannot be made from {'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Whatever keeps a file or an object from being an image becomes an `ImageError` of this name."""
    try:
        yield
    except Unusable as error:
        raise ImageError(name, str(error)) from error
    except MemoryError as error:
        raise ImageError(name, NO_MEMORY) from error


def _name_of(source: object) -> str:
    match source:
        case Path() | str():
            return str(source)
        case bytes():
            return "picture from bytes"
        case Image.Image():
            return "picture"
        case np.ndarray():
            return "picture from an array"
        case _:
            named = getattr(source, "name", None)
            return named if isinstance(named, str) and named else "picture from a file object"


def mode_and_depth(content: bytes) -> tuple[str, bool]:
    """Pillow's mode of an image as its file holds it, such as `L`, `P` or `CMYK`; whether it is deeper than 8 bits.

    Only the header is read. Of what `open_image` cannot open: an empty mode.

    Args:
        content: the bytes of a file.
    """
    return _by_header(content, lambda image: (image.mode, is_deep(image))) or ("", False)


def used_values(content: bytes, *, name: str) -> Used:
    """The smallest and the largest value that an image deeper than 8 bits stores.

    Args:
        content: the bytes of a file of which `mode_and_depth` says that it is deep.

    Raises:
        ImageError: as `open_image` does.
    """

    def used(image: ImageFile, again: Again) -> Used:
        _check_size(image)
        return stored(image, again).used()

    with _named(name):
        return _from_file(BytesIO(content), used)


def has_more_frames(content: bytes) -> bool:
    """Whether a file holds more than the image that `open_image` gives: pages of a TIFF, frames of an animation.

    Args:
        content: the bytes of a file that `open_image` opens.
    """
    is_jpeg = decoder_of(content[:HEAD_BYTES]) is JpegImageFile  # behind it, a telephone keeps a preview
    return not is_jpeg and bool(_by_header(content, lambda image: getattr(image, "is_animated", False)))


def size_from_header(source: Path | str | bytes) -> tuple[int, int] | None:
    """Width and height by a file's header, nothing decoded; None where `open_image` would raise.

    Args:
        source: a path, or the bytes of a file.
    """
    return _by_header(source, lambda image: image.size)


def jpeg_sizes(content: bytes, min_side: int | None = None) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Height and width of a plain JPEG file: as `open_image` gives it, and wholly decoded; None for any other file.

    Plain is what every decoder sees alike: grey, or colours as luma and chroma; the orientation, if any, in Exif data.

    Args:
        content: the bytes of a file.
        min_side: see `open_image`.
    """

    def sizes(image: ImageFile) -> tuple[tuple[int, int], tuple[int, int]] | None:
        if not isinstance(image, JpegImageFile):
            return None
        turn, (width, height) = _orientation(image), image.size
        rgb = image.info.get("adobe_transform") == 0 or [layer[0] for layer in image.layer] == [*b"RGB"]
        if not (image.mode == "L" or (image.mode == "RGB" and not rgb)) or (turn != 1 and "exif" not in image.info):
            return None
        if min_side is not None:
            image.draft(image.mode, (min_side, min_side))
        whole, opened = (height, width), (image.height, image.width)
        return (opened[::-1], whole[::-1]) if turn in _ON_ITS_SIDE else (opened, whole)

    return _by_header(content, sizes)


def _by_header(source: Path | str | bytes, read: Callable[[ImageFile], Result]) -> Result | None:
    """What `read` finds in a file's header, nothing decoded; None where the file is damaged, or no image."""
    _silence_pillow()
    try:
        with BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            decoder = decoder_of(file.read(HEAD_BYTES))
            if decoder is None:
                return None
            with _header(file, decoder) as image:
                return read(image)
    except Exception:  # as in `_from_file`: whatever a damaged byte leads to
        return None


def _header(file: BinaryIO, decoder: type[ImageFile]) -> ImageFile:
    """The image with its header read, nothing decoded."""
    try:
        return _from_start(decoder, file)
    except Exception as error:
        for copies in copies_to_try(file, decoder, error):
            with suppress(Exception):
                return decoder(BytesIO(copies[0]))
        raise


def _from_pillow(image: Image.Image, value_range: ValueRange | None) -> Image.Image:
    try:
        return _decoded(image, _reopening(image), value_range=value_range)
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # as in `_from_file`: it may not be decoded yet
        raise Unusable(_damage(error)) from error


# ---- files ----------------------------------------------------------------------------------------------------------


def _from_path(path: Path, decode: Decode[Result]) -> Result:
    try:
        if path.is_dir():
            raise Unusable("not a picture: it is a folder")
        with path.open("rb") as file:
            return _from_file(_seekable(file), decode)
    except FileNotFoundError as error:
        raise Unusable("there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Unusable(unreadable_reason(error)) from error


def _seekable(file: object) -> BinaryIO:
    # Pipes and sockets cannot go back to the start, and decoders need to.
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable():
        return file  # type: ignore[return-value]
    content = file.read()  # type: ignore[attr-defined]
    if not isinstance(content, bytes):
        raise Unusable("the file object gives text; open it in binary mode")
    return BytesIO(content)


def _from_file(file: BinaryIO, decode: Decode[Result]) -> Result:
    file.seek(0)
    head: object = file.read(HEAD_BYTES)
    if not isinstance(head, bytes):
        raise Unusable("the file object gives text; open it in binary mode")
    decoder = decoder_of(head)
    if decoder is None:
        raise Unusable(no_image_reason(head))
    if decoder is TiffImageFile and is_camera_raw(file):
        raise Unusable(f"a picture that is not read: {CAMERA_RAW}")
    if decoder is PngImageFile and wrong_pixels(file):
        raise Unusable("damaged: the checksum of its pixels is wrong")
    _silence_pillow()
    try:
        return _attempt(file, decoder, decode)
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever a damaged byte leads to, from SyntaxError to KeyError
        for copies in copies_to_try(file, decoder, error):
            if (result := _agreed(copies, decoder, decode)) is not None:
                return result
        raise Unusable(_damage(error)) from error


def _attempt(file: BinaryIO, decoder: type[ImageFile], decode: Decode[Result]) -> Result:
    again = partial(_from_start, decoder, file)
    with again() as image:
        return decode(image, again)


def _agreed(copies: Sequence[bytes], decoder: type[ImageFile], decode: Decode[Result]) -> Result | None:
    """What all these copies of a file give; None where one gives nothing, or something else."""
    first: Result | None = None
    for copy in copies:
        try:
            result = _attempt(BytesIO(copy), decoder, decode)
        except (Unusable, MemoryError):
            raise
        except Exception:  # as in `_from_file`
            return None
        if first is not None and result != first:
            return None
        first = result
    return first


def _from_start(decoder: type[ImageFile], file: BinaryIO) -> ImageFile:
    file.seek(0)
    return decoder(file)


def _reopening(image: Image.Image) -> Again | None:
    """How to open the file of a Pillow image again, while nothing of its first frame is decoded."""
    if not isinstance(image, ImageFile) or not image.tile or image.fp is None or image.tell():
        return None
    return partial(_from_start, type(image), image.fp)  # type: ignore[arg-type]


def _damage(error: Exception) -> str:
    words = str(error).strip()
    if words == "unknown pixel mode":
        return "a kind of TIFF that is not read; save it with 8 or 16 bits a channel, or as PNG"
    if "truncated" in words.lower() or isinstance(error, EOFError):
        return "cut short: the end of the file is missing"
    return f"damaged or cut short ({words})" if words else "damaged or cut short"


def _silence_pillow() -> None:
    # Pillow warns of odd metadata in images that decode well. Restoring the filters afterwards, as
    # `catch_warnings` does, is not safe among threads: two of them can leave every warning of the process silenced.
    if not warnings.filters or getattr(warnings.filters[0][3], "pattern", None) != _PILLOW:
        warnings.filterwarnings("ignore", category=UserWarning, module=_PILLOW)


# ---- from whatever was decoded to RGB -------------------------------------------------------------------------------


def _decoded(
    image: Image.Image,
    again: Again | None = None,
    *,
    min_side: int | None = None,
    value_range: ValueRange | None = None,
) -> Image.Image:
    """Decode, turn upright and convert to RGB; the size limit is checked first, since the header tells the size.

    Raises:
        Unusable: it has too many pixels, or none, or its values cannot be brought to 8 bits.
        Exception: it is damaged.
    """
    _check_size(image)
    if min_side is not None and isinstance(image, JpegImageFile):
        image.draft(image.mode, (min_side, min_side))
    if is_deep(image) if again else is_deep_grey(image):
        rgb = _rgb(stored(image, again).image(value_range))
    else:
        image.load()
        rgb = _rgb(image)
    # After decoding: Pillow turns TIFF images itself while it decodes them, and then drops the tag.
    turn = _UPRIGHT.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Unusable(f"{width:,} x {height:,} pixels; the limit is {MAX_PIXELS / 1e6:.0f} million")
    if width * height == 0:
        raise Unusable("it has no pixels")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata says nothing about the pixels
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """A new image in RGB, transparency over white, from one of 8 bits a channel, which is left as it is."""
    mode = image.mode
    if mode == "La":
        return _rgb(image.convert("LA"))
    if mode in {"LA", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _from_array(array: npt.NDArray[np.generic]) -> Image.Image:
    if array.dtype != np.uint8:
        hint = "multiply values of 0 to 1 by 255 and round" if array.dtype.kind == "f" else "bring values to 0 to 255"
        raise Unusable(f"an array must be uint8, this one is {array.dtype}; {hint}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in {3, 4}):
        first = array.ndim == 3 and array.shape[0] in {1, 3, 4}
        hint = "; channels come last: array.transpose(1, 2, 0)" if first else ""
        raise Unusable(f"an array must be (H, W) or (H, W, 3), this one is {array.shape}{hint}")
    if array.size == 0:
        raise Unusable("it has no pixels")
    return Image.fromarray(np.ascontiguousarray(array))
