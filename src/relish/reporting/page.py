"""What every page shares: the template engine, images inside a page, shares written as percent.

Templates lie in `templates/`. Every value put into one is escaped, for HTML and where it would turn the direction of
text or end an SVG file: class and file names come from strangers' folders.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from relish.core.errors import visible

SIDE = 320
"""Longest side of an embedded image in pixels: sharp on a phone, and some 20 kB each."""


@dataclass(frozen=True)
class Embedded:
    """A JPEG as text, so that a page needs no other file."""

    address: str
    """Such as `data:image/jpeg;base64,…`; empty where the image cannot be shown."""
    width: int
    """In pixels, as `height`."""
    height: int


def embed(image: Image.Image, side: int = SIDE, quality: int = 85) -> Embedded:
    """Encode an RGB image, made smaller to fit a square of `side` pixels, with JPEG's `quality`, 1 to 95."""
    small = image.copy()
    small.thumbnail((side, side))
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=quality)
    text = base64.b64encode(encoded.getvalue()).decode()
    return Embedded(f"data:image/jpeg;base64,{text}", small.width, small.height)


def whole_percent(probability: float) -> str:
    """Whole percent, except that neither certainty nor impossibility is claimed by rounding."""
    if 0.995 <= probability < 1:
        return ">99%"
    return "<1%" if 0 < probability <= 0.005 else f"{probability:.0%}"


def percent(share: float) -> str:
    """One digit, rounded as `Proportion.sentence` rounds, so that page and command line say the same."""
    return f"{100 * float(f'{share:.3f}'):.1f}%"


def percent_interval(interval: tuple[float, float] | list[float]) -> str:
    """Such as `88.8–92.8%`."""
    low, high = interval
    return f"{percent(low)[:-1]}–{percent(high)}"


def render(template: str, **values: Any) -> str:
    """Fill in a file of `templates/`; a value that it asks for and does not get is an error."""
    return _ENGINE.get_template(template).render(**values)


def _shown(value: Any) -> Any:
    """A value of a template; what another template has made is left as it is."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_ENGINE = Environment(
    loader=PackageLoader("relish.reporting"),
    autoescape=True,
    finalize=_shown,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENGINE.filters |= {"percent": percent, "whole_percent": whole_percent, "percent_interval": percent_interval}
