"""A job's time is counted over all of its starts, whenever it is killed."""

import time

import pytest

from relish.core import runtime as stopwatch
from relish.core.runtime import elapsed_before, keep_elapsed
from tests.processes import wait_until


def test_time_goes_on_from_start_to_start(tmp_path, monkeypatch):
    monkeypatch.setattr(stopwatch, "_SECONDS_BETWEEN_WRITES", 0.01)
    file = tmp_path / "stopwatch.json"
    assert elapsed_before(file) == 0
    for start in (1, 2):
        began = time.monotonic() - elapsed_before(file)
        with keep_elapsed(file, began):
            wait_until(lambda: elapsed_before(file) >= 0.1 * start)  # noqa: B023 - what a kill right now would leave
            least = time.monotonic() - began
        wait_until(lambda: elapsed_before(file) >= least)  # noqa: B023 - the last write may come a moment later
        assert elapsed_before(file) <= time.monotonic() - began


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"seconds": "long"}', b'{"seconds": -5}', b"\xff"])
def test_a_damaged_file_says_nothing(tmp_path, content):
    file = tmp_path / "stopwatch.json"
    file.write_bytes(content)
    assert elapsed_before(file) == 0
