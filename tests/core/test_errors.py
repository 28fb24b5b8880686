"""What errors look like: names from strangers' folders do nothing to a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relish.core.errors import LONGEST_LINE, DataError, ImageError, one_line, visible


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[2J", "a\\x1b[2J"),
        ("a\x07\x08\r", "a\\x07\\x08\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("\udcff", "\\udcff"),
        ("größe 日本 ‏"[:-1], "größe 日本 "),
        ("👩\u200d🔬 می\u200cخواهم", "👩\u200d🔬 می\u200cخواهم"),
    ],
)
def test_what_steers_a_screen_is_an_escape_and_the_rest_is_itself(name, shown):
    assert visible(name) == shown


@given(st.text())
def test_a_name_on_one_line_can_be_printed_on_one(name):
    assert len(one_line(name).splitlines()) <= 1
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in one_line(name))
    one_line(name).encode()


def test_a_file_name_adds_no_line_to_an_error():
    error = DataError("a.jpg\nerror: b\x1b[1A: is missing.\n  found: 3", hint="Get it\nagain.")
    assert str(error) == "a.jpg\\nerror: b\\x1b[1A: is missing.\n  found: 3\n  Get it\\nagain."


def test_a_line_of_any_length_keeps_its_ends():
    shown = str(DataError(f"pets.csv: {'x' * 100_000} is no split.", hint="Name it."))
    assert shown.startswith("pets.csv: xxx")
    assert shown.endswith("xxx is no split.\n  Name it.")
    assert max(map(len, shown.split("\n"))) == LONGEST_LINE


def test_the_reason_of_an_image_is_one_line():
    assert ImageError("a.png", "damaged (\x1b[2J\n  x)").reason == "damaged (\\x1b[2J\\n  x)"
