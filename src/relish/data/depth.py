"""Images deeper than 8 bits: the values that their files store, and the one scale on which a dataset is read.

A 16-bit file may hold 10, 12 or 16 bits, a floating-point file values to 1 or to 255, and no file says which. Guessed
image by image, two images of one dataset come out on different scales, and a network takes that for a difference of
classes. So the range is found once, in all deep images of a dataset together, is kept with the model, and is used
wherever the model sees an image. Images of 8 bits are not touched by any of this.
"""

import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin
from PIL.ImageFile import ImageFile

from relish.core.errors import DataError

Values = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

AskedRange = str | Sequence[float] | None
"""The values of black and white as a user gives them, `0..4095` or two numbers; None where they are to be found."""
WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0, 2.0**31 - 1, 2.0**32 - 1)
"""The usual values of white: of 8, 10, 12, 14, 16, 31 and 32 bits; of floating-point images 1 as well."""
OVERSHOOT = 0.1
"""Share of white by which floating-point values may lie beyond black or white, as resampling leaves them."""
NARROW = 1 / 8
"""Where the values of a dataset span less than this share of black to white, they are read at the span they use."""
DIM = 1 / 16
"""An image whose values end at this share of the dataset's largest, or below, is on its scale nearly black."""
DIM_SHARE, FULL_SHARE = 0.05, 0.01
"""From these shares on images disagree: of dim images, and of images that end exactly at a smaller usual white."""


class Unusable(Exception):
    """Why a file gives no image in 8 bits; `open_image` adds its name."""


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The stored values that are read as black and as white; what lies beyond is cut off."""

    low: float
    high: float
    given: bool = False
    """Whether the user chose it. Otherwise an image far beyond it is refused: it is on another scale."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(
                f"--value-range {self.option}: black has to lie below white, and both to be finite.",
                hint="Such as 0..4095.",
            )

    @property
    def option(self) -> str:
        """As `--value-range` takes it, such as `0..4095`."""
        return f"{_plain(self.low)}..{_plain(self.high)}"

    @property
    def words(self) -> str:
        """Such as `0 to 4,095`."""
        return _span(self)


def value_range_of(given: str | Sequence[float]) -> ValueRange:
    """The range that a user gives: `0..4095`, or two numbers.

    Raises:
        DataError: neither, or black does not lie below white.
    """
    bounds = re.split(r"\.\.(?=[-+.\d])", given.strip(), maxsplit=1) if isinstance(given, str) else list(given)
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise DataError(
            f"--value-range {given}: not of the form LOW..HIGH, the values of black and white.", hint="Such as 0..4095."
        ) from None
    return ValueRange(low, high, given=True)


def range_to_take(given: AskedRange) -> ValueRange | Literal["found"]:
    """The range that was asked for, for `survey`; "found" where none was.

    Raises:
        DataError: as `value_range_of`.
    """
    return "found" if given is None else value_range_of(given)


def range_option(given: AskedRange) -> str | None:
    """The range that was asked for, as a request keeps it.

    Raises:
        DataError: as `value_range_of`.
    """
    return None if given is None else value_range_of(given).option


class Used(NamedTuple):
    """The values that one image, or several together, store."""

    low: float
    high: float
    floating: bool
    """Whether they are floating-point numbers."""


def _plain(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and float(value).is_integer() else repr(float(value))


def _span(values: "Used | ValueRange") -> str:
    ends = (values.low, values.high)
    return " to ".join(f"{int(end):,}" if float(end).is_integer() else f"{end:.4g}" for end in ends)


# ---- one scale for a dataset ----------------------------------------------------------------------------------------


def found_range(used: Sequence[Used]) -> ValueRange:
    """The scale of a dataset, by the values that all its deep images use together.

    The smallest usual white that holds them is white, and 0 is black: 16-bit files whose largest value is 3,900 are
    read as 12 bits. Where there is none, or the values span less than `NARROW` of it, they are read at the span they
    use, such as -1,024 to 3,071.

    Args:
        used: of at least one image.
    """
    whole = _together(used)
    white = _usual_white(whole)
    if white is not None and whole.high - whole.low >= NARROW * white:
        return ValueRange(0.0, white)
    if whole.low == whole.high:  # one colour in all of them
        return ValueRange(min(0.0, whole.low), white if white is not None else max(1.0, whole.high))
    return ValueRange(whole.low, whole.high)


def disagreement(used: Mapping[str, Used]) -> DataError | None:
    """Why the deep images of a dataset cannot share one scale; None where they can.

    Images of one value each have no say. Floating-point images and others agree where their white is the same. Of one
    kind, images disagree where `DIM_SHARE` of them would be nearly black on the scale of the others, or where
    `FULL_SHARE` of them end exactly at a usual white of fewer bits, as 10-bit photographs beside 12-bit ones do.

    Args:
        used: by the image's name.
    """
    varied = {name: one for name, one in used.items() if one.high > one.low}
    kinds = [{name: one for name, one in varied.items() if one.floating == floating} for floating in (False, True)]
    if all(kinds) and len({_usual_white(_together(kind.values())) for kind in kinds}) > 1:
        return _disagree(*kinds)
    largest = max((one.high for one in varied.values()), default=0.0)
    white = (_usual_white(_together(varied.values())) if varied else None) or 0.0
    dim = [one.high for one in varied.values() if 0 < one.high <= DIM * largest]
    full = [one.high for one in varied.values() if one.high in WHITES and one.high < white]
    for ends, share in ((dim, DIM_SHARE), (full, FULL_SHARE)):
        if len(ends) >= max(2, share * len(varied)):
            fewer = {name: one for name, one in varied.items() if one.high <= max(ends)}
            return _disagree(fewer, {name: one for name, one in varied.items() if name not in fewer})
    return None


def _disagree(some: Mapping[str, Used], others: Mapping[str, Used]) -> DataError:
    first, second = (_group_words(group) for group in (some, others))
    both = found_range([*some.values(), *others.values()])
    return DataError(
        f"the pictures deeper than 8 bits are not on one scale: {first}; {second}.",
        hint="Save them alike; 8 bits are enough. Where they are on one scale all the same, say which: "
        f"--value-range {both.option}.",
    )


def _group_words(group: Mapping[str, Used]) -> str:
    verb = "uses" if len(group) == 1 else "use"
    return f"{len(group):,} of them {verb} {_span(_together(group.values()))}, such as {next(iter(group))}"


def range_sentence(value_range: ValueRange, used: Sequence[Used], images: int) -> str:
    """What is read as black to white, by whose choice, and what for.

    Args:
        used: of the deep images, at least one.
        images: of the dataset, those of 8 bits included.
    """
    whole = _together(used)
    if value_range.given:
        why = "as you asked"
    elif value_range.low == 0 and value_range.high in WHITES:
        why = f"{math.ceil(math.log2(value_range.high))} bits"
    else:
        why = "floating point" if value_range.high == 1 else "what they use"
    beyond = whole.low < value_range.low or whole.high > value_range.high
    return (
        f"{value_range.words} is black to white ({why}) in {len(used):,} of {images:,} pictures, which are deeper than "
        f"8 bits and use {_span(whole)}{'; what lies beyond is cut off' if beyond else ''}"
    )


def _together(used: Iterable[Used]) -> Used:
    lows, highs, floating = zip(*used, strict=True)
    return Used(min(lows), max(highs), any(floating))


def _usual_white(used: Used, usual: Sequence[float] = WHITES) -> float | None:
    """The smallest usual white that holds these values from 0 on; None where there is none."""
    spare, whites = (OVERSHOOT, (1.0, *usual)) if used.floating else (0.0, usual)
    return next((w for w in whites if -spare * w <= used.low and used.high <= (1 + spare) * w), None)


# ---- an image's values ----------------------------------------------------------------------------------------------


_DEEP_RAW = re.compile(r"(RGB|RGBA|RGBX|LA);16[BLN]")
"""Pillow's names of the 16-bit colours that it decodes to the high byte of each value alone."""
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""The byte order in which Pillow takes the other byte of each value for the high one."""
_STRIP = 2**20
"""Pixels that are scaled at a time: floating-point copies of a large image would take gigabytes."""
_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339
_II, _MM = b"II", b"MM"
_GREY_TIFFS = {
    (_II, 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (_MM, 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (_MM, 1, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (_MM, 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (_II, 0, (1,), 1, (32,), ()): ("I", "I;32"),
    (_MM, 0, (1,), 1, (32,), ()): ("I", "I;32B"),
    (_MM, 1, (1,), 1, (32,), ()): ("I", "I;32B"),
    (_II, 1, (3,), 1, (64,), ()): ("F", "F;64F"),
    (_MM, 1, (3,), 1, (64,), ()): ("F", "F;64BF"),
}
"""Greys that Pillow can decode and does not look for, by its own key: byte order, photometric tag (0: white is 0),
sample format, fill order, bits, extra samples."""
for _key, _modes in _GREY_TIFFS.items():
    TiffImagePlugin.OPEN_INFO.setdefault(_key, _modes)

Again = Callable[[], ImageFile]
"""Opens the same file once more, nothing of it decoded."""


def is_deep(image: Image.Image) -> bool:
    """Whether an image's file holds more than 8 bits a channel, by its header; nothing is decoded."""
    return is_deep_grey(image) or _DEEP_RAW.fullmatch(_raw_mode(image)) is not None or _is_planar(image)


def is_deep_grey(image: Image.Image) -> bool:
    """Whether an image is of grey values deeper than 8 bits, the only deep ones that Pillow can hold."""
    return image.mode in {"I", "F"} or image.mode.startswith("I;16")


def stored(image: Image.Image, again: Again | None) -> "Stored":
    """The values of a deep image, decoded.

    Args:
        image: `is_deep`; a file's is not decoded yet.
        again: None for grey values that are in no file.

    Raises:
        Unusable: its channels lie one after the other.
    """
    raw, inverted = _raw_mode(image), _tag(image, _PHOTOMETRIC) == 0
    if again is None or is_deep_grey(image):
        image.load()
        unsigned = image.mode == "I" and _tag(image, _SAMPLE_FORMAT, otherwise=1) == 1
        # Of a PPM, Pillow has brought the values there from their own largest one.
        is_16 = image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I")
        white = (4095.0 if raw == "I;12" else 65535.0) if is_16 else None
        return Stored((image,), None, white, inverted, unsigned)
    if _is_planar(image):
        raise Unusable("16 bits a channel, and the channels one after the other (planar); save it interleaved")
    other = again()
    if raw.startswith("LA"):
        _decode_as(other, "RGBA")  # the four bytes of a pixel, as they lie in the file
        high, low, alpha, _ = other.split()
        return Stored((high, low), alpha)
    _decode_as(other, raw[:-1] + _OTHER_BYTE[raw[-1]])
    image.load()
    return Stored((image, other), image.getchannel("A") if image.mode == "RGBA" else None)


@dataclass(frozen=True, eq=False)
class Stored:
    """An image's values as its file stores them."""

    images: tuple[Image.Image, ...]
    """One of grey values; or two of 8 bits, the high and the low byte of each value."""
    alpha: Image.Image | None
    white: float | None = 65535.0
    """The largest value that its file can hold; None where that says nothing, as of 32 bits."""
    inverted: bool = False
    """Whether small values are white, as the photometric tag MinIsWhite of a TIFF says."""
    unsigned: bool = False
    """Whether 32-bit values are to be read without a sign."""

    def used(self) -> Used:
        """The smallest and the largest value.

        Raises:
            Unusable: one of them is no finite number.
        """
        low, high, floating = math.inf, -math.inf, False
        for _, values in self._strips():
            floating = values.dtype.kind == "f"
            if floating and not np.isfinite(values).all():
                raise Unusable("grey values that are no finite numbers do not say which is white")
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        return Used(low, high, floating)

    def image(self, value_range: ValueRange | None) -> Image.Image:
        """In 8 bits, mode L, LA, RGB or RGBA; transparency by a colour is white.

        Args:
            value_range: what is black and white; None goes by what the file itself says.

        Raises:
            Unusable: without a range, which value is white; or the values lie far beyond a range that was found.
        """
        used = self.used()
        scale = value_range or self._own_range(used)
        if not scale.given:
            _refuse_another_scale(used, scale)
        width, height = self.images[0].size
        colour = len(self.images) == 2 and self.images[0].mode != "L"
        pixels = np.empty((height, width, 3) if colour else (height, width), dtype=np.uint8)
        key = self.images[0].info.get("transparency")
        for top, values in self._strips():
            part = eight_bits(values, scale)
            part = 255 - part if self.inverted else part
            if isinstance(key, int | tuple):
                part[(values == key).all(axis=2) if colour else values == key] = 255
            pixels[top : top + len(part)] = part
        made = Image.fromarray(pixels)
        if self.alpha is not None:
            made.putalpha(self.alpha)
        return made

    def _strips(self) -> Iterator[tuple[int, Values]]:
        """Row and values of each strip: (H, W) or (H, W, 3)."""
        width, height = self.images[0].size
        rows = max(1, _STRIP // width)
        for top in range(0, height, rows):
            parts = [np.asarray(image.crop((0, top, width, min(height, top + rows)))) for image in self.images]
            if len(parts) == 2:
                values = parts[0].astype(np.uint16) << 8 | parts[1]
                yield top, values[..., :3] if values.ndim == 3 else values
            else:
                yield top, parts[0].view(np.uint32) if self.unsigned else parts[0]

    def _own_range(self, used: Used) -> ValueRange:
        """Of an image without a dataset: all that its file can hold, else the smallest white that holds its values."""
        if self.white is not None:
            return ValueRange(0.0, self.white)
        white = _usual_white(used, (1.0, 255.0, 65535.0))
        if white == 1 or (white and not (used.floating and used.high < NARROW * white)):
            return ValueRange(0.0, white)
        raise Unusable(f"grey values from {_span(used)} do not say which is white; save it with 8 or 16 bits")


def eight_bits(values: Values, value_range: ValueRange) -> Pixels:
    """Stored values of any shape as uint8, 0 for `low` and below, 255 for `high` and above."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _table(value_range)[values]
    return _scaled(values, value_range)


@lru_cache(maxsize=8)
def _table(value_range: ValueRange) -> Pixels:
    """(65536,) uint8: what each 16-bit value becomes."""
    return _scaled(np.arange(65536), value_range)


def _scaled(values: Values, value_range: ValueRange) -> Pixels:
    scaled = (values.astype(np.float64) - value_range.low) * (255.0 / (value_range.high - value_range.low))
    return np.asarray(np.rint(scaled.clip(0, 255)), dtype=np.uint8)


def _refuse_another_scale(used: Used, found: ValueRange) -> None:
    span = found.high - found.low
    far = used.high > found.high + span or used.low < found.low - span
    dark = used.floating and found.high >= WHITES[0] and 0 < used.high <= 1 + OVERSHOOT
    if far or dark:
        raise Unusable(
            f"its values, {_span(used)}, are on another scale than {found.words}, on which the other pictures are read"
        )


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name of how the file holds a pixel; empty where nothing is left to decode."""
    tile = getattr(image, "tile", None)
    if not tile:
        return ""
    first = _first(tile[0][3])
    return first if isinstance(first, str) else ""


def _first(value: object) -> object:
    return value[0] if isinstance(value, tuple) and value else value


def _decode_as(image: Image.Image, raw_mode: str) -> None:
    """Decode a file's image, with another name of how the file holds a pixel; as wide as the own one."""
    assert isinstance(image, ImageFile)  # noqa: S101 - whoever has a raw mode is one
    image.tile = [
        part._replace(args=(raw_mode, *part.args[1:]) if isinstance(part.args, tuple) else raw_mode)
        for part in image.tile
    ]
    image.load()


def _is_planar(image: Image.Image) -> bool:
    """Whether a TIFF holds 16-bit channels one after the other, of which Pillow decodes only the high bytes, if any."""
    return image.mode not in {"L", "P", "1"} and _tag(image, _PLANAR) == 2 and _tag(image, _BITS) == 16


def _tag(image: Image.Image, number: int, otherwise: int | None = None) -> int | None:
    """The first value of a TIFF's tag; `otherwise` where it has none, None where the image is no TIFF."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    value = _first(image.tag_v2.get(number, otherwise))
    return value if isinstance(value, int) else None
