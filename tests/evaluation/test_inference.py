"""How many pictures at once: as memory allows, and the same answers."""

import numpy as np
import pytest
import torch
from torch import nn

from relish.core.errors import Failed
from relish.core.runtime import free_memory
from relish.evaluation import inference
from relish.evaluation.inference import BATCH_SIZE, batch_that_fits, forward_in_parts, largest_activation


def ask(images):
    return images.float().mean(dim=(2, 3)).numpy()


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 64])
def test_a_device_that_runs_out_is_asked_for_less_until_it_has_room(room):
    images, tried = torch.arange(11 * 12, dtype=torch.uint8).reshape(11, 3, 2, 2), []

    def small(some):
        tried.append(len(some))
        if len(some) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ask(some)

    rows, size = forward_in_parts(images, small, 8)
    assert np.array_equal(rows, ask(images))
    assert size <= max(room, 1) or room >= 8
    tried.clear()
    forward_in_parts(images, small, size)
    assert max(tried) <= room, "what was learned is kept"


def test_no_room_for_one_picture_is_told():
    def none(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(Failed, match="too little memory for one picture"):
        forward_in_parts(torch.zeros(4, 3, 2, 2), none, 4)


def test_the_largest_step_is_what_goes_in_and_comes_out_of_a_module():
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    image = torch.zeros(1, 3, 10, 10)
    widest = 4 * 16 * 100  # the ReLU, float32
    assert largest_activation(network, image, lambda x: network(x).detach().numpy()) == 2 * widest
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(("free", "wanted"), [(10**12, BATCH_SIZE), (6 * 3 * 12_800, 9), (100, 1), (0, 1)])
def test_a_batch_is_cut_to_the_memory_there_is(monkeypatch, free, wanted):
    network = nn.ReLU()
    images = torch.zeros(4, 16, 10, 10)  # 6,400 bytes in, as many out
    monkeypatch.setattr(inference, "free_memory", lambda: free)
    monkeypatch.setattr(inference, "MEMORY_FRACTION", 0.5)
    monkeypatch.setattr(inference, "PEAK_RATIO", 1.0)
    with torch.inference_mode():
        assert batch_that_fits(network, images, lambda x: network(x).numpy()) == wanted


def test_free_memory_is_a_number_of_bytes_that_this_machine_could_have():
    assert free_memory() > 2**20
