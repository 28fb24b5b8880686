"""A job's time is counted over all of its starts, whenever it is killed."""

import time

import pytest

from relish.core import runtime as stopwatch
from relish.core.runtime import elapsed_before, keep_elapsed


def test_time_goes_on_from_start_to_start(tmp_path, monkeypatch):
    monkeypatch.setattr(stopwatch, "_SECONDS_BETWEEN_WRITES", 0.01)
    file = tmp_path / "stopwatch.json"
    assert elapsed_before(file) == 0
    for start in (1, 2):
        began = time.monotonic() - elapsed_before(file)
        with keep_elapsed(file, began):
            until = time.monotonic() + 30
            while elapsed_before(file) < 0.1 * start:  # what a kill right now would leave
                assert time.monotonic() < until
                time.sleep(0.01)
        assert elapsed_before(file) == pytest.approx(time.monotonic() - began, abs=0.5)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"seconds": "long"}', b'{"seconds": -5}', b"\xff"])
def test_a_damaged_file_says_nothing(tmp_path, content):
    file = tmp_path / "stopwatch.json"
    file.write_bytes(content)
    assert elapsed_before(file) == 0
