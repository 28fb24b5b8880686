"""A pass through a network and back as one CUDA graph: a GPU is told of its kernels at once, not one by one.

With small batches telling takes longer than computing. A graph computes on the memory that it was captured with: images
and labels are copied into buffers of its own, and gradients are always at the same place. What it draws depends on the
seed and offset of the generator when it is replayed, as in an eager pass. The optimiser's step is no part of it, since
the learning rate changes from step to step.

Source: PyTorch's notes on CUDA graphs, "Whole-network capture".
"""

from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From images and labels to losses and logits, detached, by a pass forward and backward."""
WARM_UP = 3
"""Passes before a capture: libraries are loaded and kernels chosen in the first ones."""
WORTH = 50
"""Steps of a training, at least: a capture takes as long as some 20 eager steps."""


def on_cuda(work: Callable[[], T]) -> tuple[T, Callable[[], Any]]:
    """Capture some work: the tensors that it returns, and what computes them anew in place.

    Raises:
        Exception: the work cannot be captured, such as where it waits for the device; torch may raise anything.
    """
    side, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            work()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()
    return found, graph.replay


class Captured:
    """A pass over batches of one shape, captured."""

    def __init__(self, network: nn.Module, work: Pass, images: Tensor, labels: Tensor) -> None:
        """
        Args:
            network: in train mode on the device; its statistics and gradients are left as if nothing was computed.
            work: gives the network's parameters their gradients.
            images: (B, 3, S, S) of a first batch; on the device, as `labels`.
            labels: (B,) int64.

        Raises:
            Exception: as `on_cuda` does.
        """
        self._network, self._images, self._labels = network, images.clone(), labels.clone()
        self._parameters = [one for one in network.parameters() if one.requires_grad]
        self._places = self._places_now()
        before = [one.clone() for one in network.buffers()]

        def passed() -> tuple[Tensor, Tensor]:
            network.zero_grad()  # so that gradients are written, not added
            return work(self._images, self._labels)

        try:
            self._found, self._replay = on_cuda(passed)
            self._gradients = [one.grad for one in self._parameters]
        finally:
            network.zero_grad()
            for one, former in zip(network.buffers(), before, strict=True):
                one.copy_(former)

    def fits(self, images: Tensor) -> bool:
        """Whether these images can be computed: of the same shape, by a network that was not moved since."""
        same = images.shape == self._images.shape and images.dtype == self._images.dtype
        return same and self._places == self._places_now()

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Give the parameters their gradients; losses and logits hold until the next call.

        Args:
            images, labels: of the shapes that were captured.
            seed: of dropout and dropped paths.
        """
        self._images.copy_(images)
        self._labels.copy_(labels)
        torch.manual_seed(seed)
        self._replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient  # an eager pass in between had its own
        return self._found

    def _places_now(self) -> list[int]:
        return [one.data_ptr() for one in chain(self._network.parameters(), self._network.buffers())]
