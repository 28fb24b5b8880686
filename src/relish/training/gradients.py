"""A step's pass as the device can compute it: a batch at once, in parts, or by a CUDA graph; and sums kept on it.

What a pass computes is the loop's business, and is the same whichever way it is launched.
"""

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from relish.core.context import RunContext
from relish.core.errors import TooLittleMemory
from relish.core.runtime import in_smaller_parts, is_out_of_memory
from relish.data.loader import Batch
from relish.models.captured import Captured
from relish.training.checkpoint import TrainingState

CountedPass = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Forward and backward: from (b, 3, S, S) images, (b,) labels and how many images the whole batch has, over all
processes, to (b,) losses and (b, K) logits, detached. Gradients of parts of a batch add up to those of the batch."""


class Gradients:
    """One pass through the network and back: of a batch at once or, where memory lacks, in parts.

    On a GPU full batches are computed by a CUDA graph; a smaller last one, and what cannot be captured, is not.

    A batch has no parts where it makes a difference: to norms that use its statistics, to a loss of the user's own, to
    processes that add up their gradients.
    """

    def __init__(
        self, run: RunContext, network: nn.Module, work: CountedPass, *, batch_size: int, full: int, divisible: bool,
        capture: bool, release: Callable[[], bool],
    ) -> None:  # fmt: skip
        """
        Args:
            network: whose parameters get gradients from `work`.
            batch_size: as the recipe has it, for what is said where memory lacks.
            full: images of a full batch, which alone are captured.
            divisible: whether loss and processes allow a batch to have parts.
            capture: whether full batches are captured.
            release: frees memory of the device that training can do without; whether there was any.
        """
        self.run, self.network, self.work = run, network, work
        self.batch_size, self.full, self.divisible = batch_size, full, divisible
        self._capture, self._release = capture, release
        self._captured: Captured | None = None
        self._size = sys.maxsize
        """Images that there was memory for."""

    def __call__(self, batch: Batch, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Give the parameters their gradients.

        Args:
            batch: b images, this process's share; of padding where the batch has too few images for all processes.
            count: images in the whole batch, over all processes.
            seed: of dropout.

        Returns:
            (b,) losses, 0 for padding, and (b, K) logits.

        Raises:
            TooLittleMemory: parameters and running statistics are as they were.
        """
        if self._capture and (replayed := self._replayed(batch, count, seed)):
            return replayed
        network = self.network
        by_batch = _norms_by_batch(network)
        statistics = [one.clone() for one in network.buffers()] if by_batch else []

        def restored() -> None:
            network.zero_grad()
            for one, before in zip(network.buffers(), statistics, strict=False):
                one.copy_(before)

        divisible = self.divisible and not by_batch
        size = min(self._size, len(batch.labels)) if divisible else len(batch.labels)

        def passed(size: int) -> tuple[Tensor, Tensor]:
            network.zero_grad()
            torch.manual_seed(seed)
            parts = (slice(start, start + size) for start in range(0, len(batch.labels), size))
            found = [self.work(batch.images[part], batch.labels[part], count) for part in parts]
            losses, logits = zip(*found, strict=True)
            return torch.cat(losses), torch.cat(logits)

        def with_room(size: int) -> tuple[Tensor, Tensor]:
            try:
                return passed(size)
            except Exception as error:
                if not (is_out_of_memory(error) and self._release()):
                    raise
            restored()
            return passed(size)

        try:
            found, fitting = in_smaller_parts(with_room, size, smallest=1 if divisible else size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            if fitting < size:
                self._size = fitting
                self.run.progress.warn(
                    f"{self.run.device}: memory is short, so batches are computed in parts of {fitting} pictures; "
                    "each step is the same."
                )
            return found
        restored()
        raise self._too_little_memory(1 if divisible else self.batch_size, batch.images.shape[-1])

    def _replayed(self, batch: Batch, count: int, seed: int) -> tuple[Tensor, Tensor] | None:
        """As `__call__`, by the graph of full batches; None for another batch, or where none can be captured."""
        images, labels = batch.images, batch.labels
        if len(labels) != self.full:
            return None
        if self._captured is None or not self._captured.fits(images):
            self._captured = None  # and its memory
            try:
                self._captured = Captured(
                    self.network, lambda some, theirs: self.work(some, theirs, count), images, labels
                )
            except Exception as error:  # whatever a network does that a graph cannot hold
                if is_out_of_memory(error) and self._release():
                    return None  # this batch is no graph, the next one may be
                self._capture, reason = False, (str(error).splitlines() or [type(error).__name__])[0]
                self.run.record(event="eager", epoch=0, batch=0, reason=reason)
                self.run.progress.say(f"graph   none, so each step is launched kernel by kernel: {reason}")
                return None
        return self._captured(images, labels, seed)

    def _too_little_memory(self, count: int, pixels: int) -> TooLittleMemory:
        what = "one picture" if count == 1 else f"batches of {count} pictures"
        # A loss and processes that allow parts leave norms that use a batch's statistics.
        larger = f"half the --batch-size,{' --set batch_norm=still, which computes a batch in parts,' * self.divisible}"
        return TooLittleMemory(
            f"{self.run.device}: too little memory for {what} of {pixels} pixels.",
            hint=f"Fit again with {'a' if count == 1 else f'{larger} or a'} smaller --image-size.",
        )


def _norms_by_batch(network: nn.Module) -> bool:
    return any(isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training for one in network.modules())


def is_padding(run: RunContext, count: int) -> bool:
    """Whether a batch of so many images, over all processes, has none for this process."""
    return count <= run.process


class Sums:
    """An epoch's summed loss and number predicted correctly, on the device: only who reads them waits for it.

    Added up in float64, step by step, so that it makes no difference how often they are read.
    """

    def __init__(self, run: RunContext, state: TrainingState) -> None:
        self.run, self.state = run, state
        self.restart()

    def restart(self) -> None:
        """Begin with what the state holds."""
        run, state = self.run, self.state
        own = [state.loss, state.correct] if run.is_main else [0.0, 0.0]
        dtype = torch.float32 if run.device.type == "mps" else torch.float64  # Metal has no float64
        self._totals, self._seen = torch.tensor(own, dtype=dtype, device=run.device), state.seen

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor, count: int) -> None:
        """Count this process's share of a batch of `count` images, as it was before the step."""
        correct = logits.argmax(1) == labels if not is_padding(self.run, count) else labels.new_zeros(1)
        self._totals += torch.stack([losses.sum().to(self._totals), correct.sum().to(self._totals)])
        self._seen += count

    def read(self) -> float:
        """Bring the state up to date, over all processes, which all have to call this; returns the summed loss."""
        totals = self.run.accelerator.reduce(self._totals) if self.run.processes > 1 else self._totals
        self.state.loss, correct = totals.tolist()
        if math.isfinite(self.state.loss):
            self.state.correct, self.state.seen = int(correct), self._seen
        return self.state.loss
