"""A token is asked for wherever others can reach the server, and one that can be guessed is refused."""

import pytest

from relish.core.errors import BadInput
from relish.server.middleware import is_loopback, valid_token


@pytest.mark.parametrize("token", ["", "short", "with a blank in the middle", "ungültig-weil-nicht-ascii"])
def test_a_token_that_is_short_or_fits_no_header_is_refused_and_never_repeated(token):
    with pytest.raises(BadInput) as error:
        valid_token(token, "127.0.0.1")
    assert not token or token not in str(error.value)


def test_a_token_loses_the_blanks_around_it():
    assert valid_token(" 0123456789abcdef\n", "example") == "0123456789abcdef"


def test_only_a_server_for_this_computer_needs_no_token():
    assert valid_token(None, "::1") is None
    with pytest.raises(BadInput, match="needs a token"):
        valid_token(None, "0.0.0.0")  # noqa: S104 - what is refused


def test_loopback_is_known_by_name_and_address():
    assert all(map(is_loopback, ("127.9.9.9", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "::", "example", "")))
