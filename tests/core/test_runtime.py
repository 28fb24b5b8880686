"""A job's time is counted over all of its starts, whenever it is killed; and what computes the same bits each time."""

import time

import pytest
import torch

from relish.core import runtime as stopwatch
from relish.core.errors import RecipeError
from relish.core.runtime import deterministic, elapsed_before, keep_elapsed, to_device
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


def test_torch_computes_alike_each_time_where_wanted_and_only_then():
    for wanted in (True, False):
        with deterministic(wanted):
            assert torch.are_deterministic_algorithms_enabled() is wanted
        assert not torch.are_deterministic_algorithms_enabled()


def test_what_torch_cannot_compute_alike_is_named():
    words = "adaptive_max_pool2d_backward_cuda does not have a deterministic implementation, but you set"
    with pytest.raises(RecipeError, match="adaptive_max_pool2d_backward_cuda cannot be") as told, deterministic(True):
        raise RuntimeError(words)
    assert told.value.hint == "Omit --deterministic."
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="another"), deterministic(True):
        raise RuntimeError("another")


@pytest.mark.cuda
def test_depthwise_weights_are_channels_first_on_a_gpu_wherever_they_were_before():
    """cuDNN takes a weight for channels last by its strides, and one channel counts as contiguous in both layouts."""
    network = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.Conv2d(8, 4, 1))
    for device in ("cpu", "cuda"):
        to_device(network, device)
    assert network[0].weight.stride() == (9, 9, 3, 1)
    assert network[1].weight.stride() == (8, 1, 1, 1)
    assert network(torch.zeros(2, 8, 9, 9, device="cuda")).is_contiguous()
    plain = torch.nn.Conv2d(8, 4, 3)
    to_device(plain, "cuda")
    assert plain.weight.is_contiguous(memory_format=torch.channels_last)
