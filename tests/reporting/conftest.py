"""What tests of several pages stand on."""

import numpy as np
import pytest
from PIL import Image

from relish.data.dataset import Dataset, Split


def plain(colour, size=(40, 30)):
    """An image of one colour."""
    return Image.new("RGB", size, colour)


@pytest.fixture
def folder(tmp_path) -> Dataset:
    """Two classes; every image has a colour of its own: red 0…4 for hotdog, blue 0…4 for not-hotdog."""
    paths = []
    for name, channel in (("hotdog", 0), ("not-hotdog", 2)):
        (tmp_path / name).mkdir()
        for k in range(5):
            paths.append(tmp_path / name / f"{k}.png")
            plain(tuple(100 + 30 * k if c == channel else 0 for c in range(3))).save(paths[-1])
    split = Split(tuple(paths), np.repeat([0, 1], 5))
    return Dataset("hotdog", "x", tmp_path, ("hotdog", "not-hotdog"), {"test": split})
