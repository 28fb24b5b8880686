"""A chart as SVG: marks stand where their values are, and any name can stand on it."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relish.core.errors import WriteFailed
from relish.reporting.plots import reliability_diagram
from relish.reporting.svg import LEGEND_CELLS, Chart, Key, even_axis, log_axis, write_svg

HOSTILE = '<script>alert("$x^$")</script>'


def chart(**more):
    return Chart("c", **{"title": "t", "summary": "s", **more}, x=even_axis("x", 0, 1), y=even_axis("y", 0, 1))


def texts(path):
    return [text.text for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314


def points_of(line):
    return [tuple(map(float, pair.split())) for pair in re.split("[ML]", line.path)[1:]]


@given(st.floats(0, 0.95), st.integers(2, 8))
def test_the_ticks_of_an_axis_are_round_and_inside(low, most):
    axis = even_axis("", low, 1.0, most=most)
    assert 1 <= len(axis.ticks) <= most + 1
    assert all(low - 1e-9 <= value <= 1 + 1e-9 for value, _ in axis.ticks)
    assert all(float(label) == pytest.approx(value, abs=1e-9) for value, label in axis.ticks)


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=8))
def test_every_value_lies_on_its_logarithmic_axis(rates):
    axis = log_axis("", rates)
    assert axis.ticks
    assert all(0 <= axis.fraction(rate) <= 1 for rate in rates)


def test_an_axis_within_a_decade_has_more_than_one_tick():
    assert [label for _, label in log_axis("", [37, 66]).ticks] == ["50", "100"]


def test_marks_stand_where_their_values_are():
    bins = [{"low": 0.8, "high": 1.0, "count": 4, "confidence": 0.9, "accuracy": 0.5}]
    chart = reliability_diagram(bins, before=[(0.25, 0.75)])
    (bar,), (dot,) = chart.bars, chart.dots
    assert bar.height == pytest.approx(0.5 * (chart.frame["bottom"] - chart.frame["top"]), abs=0.2)
    assert bar.x == pytest.approx(chart.at_x(0.8), abs=0.1)
    assert dot.x - chart.frame["left"] == pytest.approx(0.25 * (chart.frame["right"] - chart.frame["left"]), abs=0.2)
    assert chart.frame["bottom"] - dot.y == pytest.approx(1.5 * bar.height, abs=0.3)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-5, 5)), min_size=2, max_size=9))
def test_no_part_of_a_line_lies_outside_the_frame_and_none_within_it_is_lost(points):
    drawn, frame = chart(), chart().frame
    drawn.add_line(points, "c1")
    ends = [end for line in drawn.lines for end in points_of(line)]
    assert all(frame["top"] - 0.1 <= y <= frame["bottom"] + 0.1 for _, y in ends)
    inside = [(drawn.at_x(x), drawn.at_y(y)) for x, y in points if 0 <= y <= 1]
    assert all(any(abs(x - a) + abs(y - b) < 0.3 for a, b in ends) for x, y in inside)


def test_a_line_that_leaves_the_frame_and_comes_back_is_drawn_in_two_parts():
    drawn = chart()
    drawn.add_line([(0, 0.5), (0.25, 1.5), (0.75, 1.5), (1, 0.5)], "c1")
    assert drawn.lines[0].path.count("M") == 2


def test_a_file_holds_title_axes_legend_and_what_the_pointer_shows(tmp_path):
    drawn = chart(title="A title", note="a note")
    drawn.add_dot((0.5, 0.5), "c2", "a tooltip", marker="square")
    drawn.keys.append(Key("a label", "c2", marker="square"))
    path = write_svg(drawn, tmp_path / "lr-1e-0.5.svg")
    assert {"A title", "a note", "a label", "x", "y"} <= set(texts(path))
    assert "<title>a tooltip</title>" in path.read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["lr-1e-0.5.svg"]


def test_a_file_asks_for_nothing_and_uses_no_variables(tmp_path):
    """Programs that are no browser know neither."""
    text = write_svg(chart(), tmp_path / "c.svg").read_text()
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "var(" not in text


def test_the_same_chart_gives_the_same_file(tmp_path):
    first, second = (write_svg(chart(), tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("name", ["$\\frac{", "_hidden", "熱狗", "x" * 300, "a\nb", HOSTILE])
def test_any_name_can_stand_on_a_chart(tmp_path, name):
    drawn = chart(title=name, summary=name)
    drawn.keys.append(Key(name, "c1"))
    path = write_svg(drawn, tmp_path / "c.svg")
    root = ElementTree.parse(path).getroot()  # noqa: S314 - our own file
    assert float(root.get("width")) < 1400
    label = texts(path)[-1]
    assert label == " ".join(name.split()) or (label.endswith("…") and len(label) <= LEGEND_CELLS)


def test_a_chart_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed, match="cannot write"):
        write_svg(chart(), tmp_path / "file" / "curves.svg")
