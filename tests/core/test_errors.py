"""What errors look like: names from strangers' folders do nothing to a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relish.core.errors import DataError, one_line, visible


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
