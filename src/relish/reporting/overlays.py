"""A heat map over the picture it is of.

In:   a picture as the network sees it, a map from `evaluation/explain.py`.
Out:  a Pillow picture: grey where the answer does not rest, warm and bright where it does.

The picture is grey beneath, so that no colour of its own can be taken for heat; the colours grow lighter with the heat
(Matplotlib's `inferno`), so that they can be read without telling red from green.
"""

from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

STRONGEST = 0.65
"""How much of the picture the greatest heat covers, 0 to 1."""


def overlay(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating[Any]]) -> Image.Image:
    """Lay a map over a picture.

    Args:
        pixels: (S, S, 3) uint8.
        heat: (S, S) from 0 to 1.

    Returns:
        RGB, S × S.
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)[..., None] / 255  # (S, S, 1)
    colours = matplotlib.colormaps["inferno"](np.asarray(heat, dtype=np.float64))[..., :3]  # (S, S, 3)
    cover = STRONGEST * np.clip(heat, 0, 1)[..., None]
    return Image.fromarray(np.round(255 * (grey * (1 - cover) + colours * cover)).astype(np.uint8))
