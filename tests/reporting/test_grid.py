"""The book's grid: what it shows, and that any caption can stand under an image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.core.errors import DataError
from relish.reporting.grid import first_and_last, fitted, image_grid
from tests.reporting.conftest import plain


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_a_picture_keeps_its_proportions_to_the_pixel(width, height, side):
    fit = fitted(Image.new("L", (width, height)), side)
    assert max(fit.size) == side
    assert abs(fit.width - side * width / max(width, height)) <= 1
    assert abs(fit.height - side * height / max(width, height)) <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (2, 8), (3, 5), (4, 1)])
def test_a_grid_of_any_rows_and_columns_shows_every_picture(shape):
    rows, columns = shape
    colours = [(10 * k + 5, 200 - 5 * k, 100) for k in range(rows * columns)]
    cells = [[(plain(colours[r * columns + c]), "") for c in range(columns)] for r in range(rows)]
    grid = np.asarray(image_grid(cells, scale=0.4)).reshape(-1, 3)
    assert set(colours) <= {tuple(pixel) for pixel in grid.tolist()}


def test_a_grid_without_pictures_is_a_white_picture():
    assert image_grid([]).getpixel((0, 0)) == (255, 255, 255)


def test_captions_make_room_below_and_never_widen_a_grid():
    bare = image_grid([[(plain("red"), ""), (plain("red"), "")]])
    said = image_grid([[(plain("red"), "hotdog"), (plain("red"), "a name far longer than its cell is wide " * 9)]])
    assert said.width == bare.width
    assert said.height > bare.height


@pytest.mark.parametrize("words", ["", " ", "\n\t\0", "熱狗 🌭", "x" * 5000, "a-" * 400, "\u202egod"])
def test_any_words_can_be_a_caption(words):
    assert image_grid([[(plain("red"), words)]]).width == image_grid([[(plain("red"), "a")]]).width


def colours_of_row(grid, row, rows, columns):
    """The colour in the middle of each cell's picture."""
    side, gap = 140, 8
    step = (grid.height - gap) / rows
    return [
        grid.getpixel((gap + c * (side + gap) + side // 2, int(gap + row * step + side - 40))) for c in range(columns)
    ]


def test_the_first_of_one_class_stand_over_the_last_of_another_last_first(folder):
    grid = first_and_last(folder.splits["test"], folder.classes, columns=3)
    assert colours_of_row(grid, 0, 2, 3) == [(100, 0, 0), (130, 0, 0), (160, 0, 0)]
    assert colours_of_row(grid, 1, 2, 3) == [(0, 0, 220), (0, 0, 190), (0, 0, 160)]


def test_the_classes_of_a_grid_can_be_chosen(folder):
    grid = first_and_last(folder.splits["test"], folder.classes, first="not-hotdog", last="hotdog", columns=1)
    assert colours_of_row(grid, 0, 2, 1) == [(0, 0, 100)]
    assert colours_of_row(grid, 1, 2, 1) == [(220, 0, 0)]


def test_a_class_with_fewer_pictures_than_cells_shows_those_it_has(folder):
    grid = first_and_last(folder.splits["test"], folder.classes, columns=4, rows=4)
    assert colours_of_row(grid, 1, 4, 2) == [(220, 0, 0), (255, 255, 255)]


def test_a_class_that_is_not_there_is_an_error_that_offers_the_nearest(folder):
    with pytest.raises(DataError, match='no class "hotdgo"') as error:
        first_and_last(folder.splits["test"], folder.classes, first="hotdgo")
    assert 'did you mean "hotdog"?' in str(error.value)


@pytest.mark.parametrize("letters", ["hotdog", "żółć", "хот-дог", "καλημέρα", "phở", "हॉट"])
def test_captions_of_several_scripts_are_drawn_letter_by_letter(letters):
    """A font without a script draws the same box for each of its letters."""
    drawn = {image_grid([[(plain("red"), letter)]]).tobytes() for letter in letters}
    assert len(drawn) == len(set(letters))
