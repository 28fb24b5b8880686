"""What pages share: images inside them, and numbers that say what the command line says."""

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from PIL import Image

from relish.evaluation.metrics import Proportion
from relish.reporting.page import embed, percent, percent_interval, render, whole_percent
from tests.reporting.conftest import plain


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 400))
def test_an_embedded_image_fits_its_square_and_is_never_enlarged(width, height, side):
    embedded = embed(plain("red", (width, height)), side)
    with Image.open(io.BytesIO(base64.b64decode(embedded.address.partition(",")[2]))) as image:
        assert image.size == (embedded.width, embedded.height)
    assert embedded.width <= min(width, side)
    assert embedded.height <= min(height, side)


def test_a_name_turns_no_text_of_a_page_and_ends_no_svg():
    name = "<b>\u202egnp\x1b[31m\x00.jpg"
    card = {"name": name, "image": embed(plain("red", (3, 2))), "predicted": name, "predicted_probability": 1.0}
    card |= {"truth": "dog", "truth_probability": 0.0, "right": False, "unknown": False}
    sections = [{"heading": "Mistakes", "text": "", "cards": [card]}]
    page = render("predictions.html", title=name, top1=Proportion(1, 2), split_name="test", sections=sections)
    assert "&lt;b&gt;\\u202egnp\\x1b[31m\\x00.jpg" in page
    assert not {"\u202e", "\x1b", "\x00"} & set(page)


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_a_page_rounds_as_the_command_line_does(counts):
    found = Proportion(*counts)
    assert f"{float(percent(found.value)[:-1]) / 100:.3f}" == f"{found.value:.3f}"
    low, high = (float(end) / 100 for end in percent_interval(found.interval)[:-1].split("–"))
    if found.few:
        low, high = found.interval
        assert found.sentence().startswith(f"between {low:.2f} and {high:.2f} (")
    else:
        assert f"{low:.3f}–{high:.3f}" in found.sentence()


@given(st.floats(0, 1))
def test_only_certainty_is_rounded_to_certainty(probability):
    assert (whole_percent(probability) == "100%") == (probability == 1)
    assert (whole_percent(probability) == "0%") == (probability == 0)


def test_a_value_that_a_template_asks_for_and_does_not_get_is_an_error():
    with pytest.raises(UndefinedError):
        render("predictions.html")
