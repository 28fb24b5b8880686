"""Charts, grids, the page of predictions and tables: what they show, and that hostile names do no harm."""

import base64
import io
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.core.errors import DataError, WriteFailed
from relish.data.dataset import Dataset, Split
from relish.evaluation.metrics import CurvePoint, Proportion, SweepPoint, score
from relish.reporting.curves import COLOURS, draw_comparison, draw_curves, draw_sweep
from relish.reporting.grid import first_and_last, fitted, picture_grid
from relish.reporting.predictions_page import evenly_spaced, surest_mistakes, write_predictions_page
from relish.reporting.tables import text_table

CURVES = tuple(CurvePoint(k / 5, 1 / k, 1 - 0.5 / k, 1 - 0.4 / k if k % 5 == 0 else None) for k in range(1, 16))
HOSTILE = '<script>alert("$x^$")</script>'


def opened(file):
    with Image.open(file) as picture:
        return picture.convert("RGB")


def has_colour(picture, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(np.asarray(picture, dtype=int) - wanted).sum(axis=2) < 12).any())


def drawing(svg, part):
    """How many elements of an SVG have an id that begins so."""
    return len(re.findall(f'id="{part}', svg.read_text()))


# ---- curves ---------------------------------------------------------------------------------------------------------


def test_a_chart_is_a_png_and_an_svg_beside_each_other(tmp_path):
    png, svg = draw_curves(CURVES, tmp_path / "lr-1e-0.5", title="hotdog")
    assert [png.name, svg.name] == ["lr-1e-0.5.png", "lr-1e-0.5.svg"]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")  # noqa: S314 - our own file
    assert sorted(path.name for path in tmp_path.iterdir()) == [png.name, svg.name]


def test_a_curve_that_was_never_measured_is_not_drawn(tmp_path):
    whole = opened(draw_curves(CURVES, tmp_path / "whole", title="")[0])
    only_loss = tuple(CurvePoint(point.epoch, point.loss) for point in CURVES)
    partial = opened(draw_curves(only_loss, tmp_path / "partial", title="")[0])
    assert has_colour(whole, COLOURS[2])
    assert has_colour(whole, COLOURS[3])
    assert not has_colour(partial, COLOURS[2])
    assert not has_colour(partial, COLOURS[3])


@pytest.mark.parametrize(
    "curves",
    [
        (),
        (CurvePoint(0.2, 0.7, 0.5),),
        (CurvePoint(1.0, 0.7, 0.5, 0.6),),
        (CurvePoint(1.0, math.nan, 0.5), CurvePoint(2.0, math.inf, 0.5, 0.5)),
        (CurvePoint(1.0, 1e30, 0.5), CurvePoint(2.0, 1e-30, 0.5, 0.5)),
    ],
    ids=["none", "one point", "one epoch", "diverged", "enormous"],
)
def test_a_training_that_went_wrong_or_just_began_can_be_drawn(tmp_path, curves):
    for path in [*draw_curves(curves, tmp_path / "a", title="t"), *draw_comparison({"x": curves}, tmp_path / "b")]:
        assert path.stat().st_size > 1000


def test_the_same_curves_give_the_same_files(tmp_path):
    first, second = (draw_curves(CURVES, tmp_path / name, title="t") for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_style_of_the_users_changes_neither_our_charts_nor_is_it_changed(tmp_path):
    plain = draw_curves(CURVES, tmp_path / "a", title="t")[0].read_bytes()
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30.0}):
        before = dict(matplotlib.rcParams)
        assert draw_curves(CURVES, tmp_path / "b", title="t")[0].read_bytes() == plain
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["$\\frac{", "_hidden", "熱狗", "x" * 300, "a\nb"])
def test_any_name_can_stand_on_a_chart(tmp_path, name):
    rates = [SweepPoint(1e-3, Proportion(1, 2))]
    for png, _ in (
        draw_curves(CURVES, tmp_path / "a", title=name),
        draw_comparison({name: CURVES}, tmp_path / "b", title=name),
        draw_sweep({name: rates}, tmp_path / "c", title=name),
    ):
        assert opened(png).width < 1400


def test_a_name_that_begins_with_an_underscore_is_still_in_the_legend(tmp_path):
    def entries(name):
        return drawing(draw_comparison({name: CURVES}, tmp_path / "c")[1], "text_")

    assert entries("_book") == entries("book")


def test_every_recipe_of_a_comparison_has_its_own_colour(tmp_path):
    png, _ = draw_comparison({f"recipe {k}": CURVES[k:] for k in range(4)}, tmp_path / "c")
    assert all(has_colour(opened(png), colour) for colour in COLOURS[:4])


def test_a_diverged_point_of_a_sweep_is_marked(tmp_path):
    points = [SweepPoint(1e-4, Proportion(80, 100)), SweepPoint(1e-3, Proportion(90, 100))]

    def words(points):
        return drawing(draw_sweep({"book": points}, tmp_path / "s")[1], "text_")

    assert words([*points, SweepPoint(2e-4, None)]) == words(points) + 1  # its entry in the legend


@pytest.mark.parametrize("done", [[], [Proportion(100, 100)], [Proportion(0, 100)]])
def test_a_sweep_at_the_edges_can_be_drawn(tmp_path, done):
    points = [SweepPoint(1.0, None), *(SweepPoint(0.1, accuracy) for accuracy in done)]
    assert draw_sweep({"book": points}, tmp_path / "s")[0].stat().st_size > 1000


def test_a_chart_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed, match="cannot write"):
        draw_curves(CURVES, tmp_path / "file" / "curves", title="t")


# ---- grids ----------------------------------------------------------------------------------------------------------


def plain(colour, size=(40, 30)):
    return Image.new("RGB", size, colour)


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
    grid = np.asarray(picture_grid(cells, scale=0.4)).reshape(-1, 3)
    assert set(colours) <= {tuple(pixel) for pixel in grid.tolist()}


def test_a_grid_without_pictures_is_a_white_picture():
    assert picture_grid([]).getpixel((0, 0)) == (255, 255, 255)


def test_captions_make_room_below_and_never_widen_a_grid():
    bare = picture_grid([[(plain("red"), ""), (plain("red"), "")]])
    said = picture_grid([[(plain("red"), "hotdog"), (plain("red"), "a name far longer than its cell is wide " * 9)]])
    assert said.width == bare.width
    assert said.height > bare.height


@pytest.mark.parametrize("words", ["", " ", "\n\t\0", "熱狗 🌭", "x" * 5000, "a-" * 400, "\u202egod"])
def test_any_words_can_be_a_caption(words):
    assert picture_grid([[(plain("red"), words)]]).width == picture_grid([[(plain("red"), "a")]]).width


@pytest.fixture
def folder(tmp_path) -> Dataset:
    """Two classes; every picture has a colour of its own: red 0…4 for hotdog, blue 0…4 for not-hotdog."""
    paths = []
    for name, channel in (("hotdog", 0), ("not-hotdog", 2)):
        (tmp_path / name).mkdir()
        for k in range(5):
            paths.append(tmp_path / name / f"{k}.png")
            plain(tuple(100 + 30 * k if c == channel else 0 for c in range(3))).save(paths[-1])
    split = Split(tuple(paths), np.repeat([0, 1], 5))
    return Dataset("hotdog", "x", tmp_path, ("hotdog", "not-hotdog"), {"test": split})


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


# ---- the page of predictions ----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def answers(seed=0):
    return np.random.default_rng(seed).dirichlet([1, 1], 10).astype(np.float32)


def written(folder, tmp_path, probabilities=None, classes=None, **more) -> Page:
    chosen = answers() if probabilities is None else probabilities
    dataset = Dataset(folder.name, "x", folder.root, classes or folder.classes, folder.splits)
    write_predictions_page(tmp_path / "page.html", dataset, folder.splits["test"], chosen, title="A run", **more)
    return Page(tmp_path / "page.html")


def test_the_page_states_the_accuracy_of_every_picture_not_of_those_shown(folder, tmp_path):
    page = written(folder, tmp_path, mistakes=0, sample=1)
    top1 = score(answers(), folder.splits["test"].labels, folder.classes).top1
    assert f"{top1.correct} of 10" in page.text
    assert f"{100 * top1.value:.1f}%" in page.text
    assert f"95% interval {100 * top1.interval[0]:.1f}–{100 * top1.interval[1]:.1f}%" in page.text
    assert len(page.all("img")) == 1


def test_the_page_needs_nothing_but_itself(folder, tmp_path):
    page = written(folder, tmp_path)
    assert not [tag for tag, _ in page.tags if tag in {"script", "link", "a", "iframe", "object"}]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert "http" not in re.sub("http-equiv", "", (tmp_path / "page.html").read_text())


def test_every_picture_on_the_page_is_described_and_marked_in_words(folder, tmp_path):
    page = written(folder, tmp_path, mistakes=0)
    right = int((answers().argmax(1) == folder.splits["test"].labels).sum())
    assert all(" taken for " in image["alt"] for image in page.all("img"))
    assert (page.text.count("✓ right"), page.text.count("✗ wrong")) == (right, 10 - right)


def test_the_pictures_on_the_page_are_those_of_the_split(folder, tmp_path):
    source = written(folder, tmp_path, mistakes=0).all("img")[0]["src"]
    shown = opened(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert shown.size == (40, 30)
    assert np.abs(np.subtract(shown.getpixel((20, 15)), (100, 0, 0))).max() < 6


def test_hostile_class_names_stay_words(folder, tmp_path):
    page = written(folder, tmp_path, classes=(HOSTILE, '" onerror="alert(1)'))
    assert not page.all("script")
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert HOSTILE in page.text


def test_a_perfect_run_has_no_mistakes_to_show(folder, tmp_path):
    page = written(folder, tmp_path, np.eye(2)[folder.splits["test"].labels])
    assert "None: every picture was given its true class." in page.text
    assert "✗" not in page.text


def test_a_probability_is_never_rounded_to_certainty(folder, tmp_path):
    nearly = np.where(np.eye(2)[1 - folder.splits["test"].labels] > 0, 0.9999, 0.0001)
    page = written(folder, tmp_path, nearly)
    assert ">99%" in page.text
    assert "<1%" in page.text
    assert page.text.count(">99%") + page.text.count("<1%") == 4 * 10  # each is wrong, and shown twice


def test_mistakes_come_surest_first():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    assert surest_mistakes(probabilities, np.array([1, 0, 1, 0])) == [0, 3, 1]


@given(st.integers(0, 5000), st.integers(0, 100))
def test_the_sample_is_even_and_has_no_picture_twice(count, most):
    shown = evenly_spaced(count, most)
    assert len(set(shown)) == len(shown) == min(count, most)
    assert all(0 <= position < count for position in shown)
    gaps = {b - a for a, b in pairwise(shown)}
    assert not gaps or max(gaps) - min(gaps) <= 1


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_a_table_sets_numbers_to_the_right_and_takes_words_literally():
    lines = text_table(["recipe", "accuracy"], [["[red]book[/red]", "0.94"], ["x", "0.9412"]], right=[1]).splitlines()
    assert "[red]book[/red]" in lines[2]
    assert len({len(lines[2]), len(lines[3])}) == 1


def test_a_wide_table_is_neither_wrapped_nor_cut():
    long = ["x" * 300, "y" * 200]
    assert text_table(["a", "b"], [long]).count("\n") == 2
    assert all(word in text_table(["a", "b"], [long]) for word in long)
