"""How much time a climb of the ladder has left, and how long an image takes now, by the passes that have just run.

Times are wall-clock: whatever else the machine does counts. A pass is compared with others of its kind alone, because
reading and batches differ from kind to kind.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

RECENT = 3.0
"""Seconds over which a figure follows what passes take: long beside one step, short beside a stage."""
ENDING = 2.0
"""Seconds to save a model, draw its curves and load it again: a run of a dozen seconds took so much longer."""


@dataclass(kw_only=True)
class Pace:
    """How long an image takes now."""

    forward: float = 0.0
    """Seconds to read an image and pass it through the network, when that was measured last."""
    step: float = 0.0
    """Seconds to read an image and train on it: the newest."""
    load: float = 1.0
    """How many times as long a pass takes now as when `forward` was measured, 1 or more."""
    _fastest: dict[str, float] = field(default_factory=dict)
    """By kind of pass, the shortest time of an image since then."""

    def measured(self, forward: float) -> None:
        """`forward` is what an image takes now."""
        self.forward, self.load = forward, 1.0
        self._fastest.clear()

    def took(self, kind: str, images: int, seconds: float) -> None:
        """A pass of this kind over so many images has just run."""
        if not images:
            return
        each = max(seconds / images, 1e-9)
        fastest = min(each, self._fastest.get(kind, each / self.load))
        self._fastest[kind] = fastest
        self.load = max(1.0, _newer(self.load, each / fastest, seconds))

    def trained(self, images: int, seconds: float) -> None:
        """A training step has just run."""
        self.took("training", images, seconds)
        self.step = _newer(self.step, seconds / images, seconds)


def _newer(former: float, new: float, seconds: float) -> float:
    """A figure that follows the newest ones, by how long these were measured."""
    return former + (1 - math.exp(-seconds / RECENT)) * (new - former)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long the ladder may take."""

    seconds: float = math.inf
    """From `began` to the end, the final evaluation included."""
    began: float = 0.0
    """When the ladder began, by `time.monotonic`, as if it had run without a break."""
    evaluated: int = 0
    """Images of the final evaluation, which take their time too."""
    pace: Pace = field(default_factory=Pace)

    @property
    def limited(self) -> bool:
        """Whether there is an end to it."""
        return math.isfinite(self.seconds)

    @property
    def left(self) -> float:
        """Seconds that are left for training and the final evaluation."""
        return self.seconds - ENDING * self.pace.load - (time.monotonic() - self.began)

    def forwards(self, images: int) -> float:
        """Seconds to pass so many images through the network, at the pace of now."""
        return images * self.pace.forward * self.pace.load

    def fits(self, images: int, more: float = 0.0) -> bool:
        """Whether there is time to pass so many images through the network, for `more` seconds of other work, and for
        the final evaluation."""
        return not self.limited or self.forwards(images + self.evaluated) + more <= self.left

    def ending(self, after: float, trainings: int) -> Callable[[int, float], bool]:
        """Whether the next of so many trainings has to end, asked after each step with its images and seconds.

        Each has an equal share of what is left before the work that comes after them all. When steps take longer than
        before, that work will too.

        Args:
            after: seconds of that work at the pace of now, the final evaluation included.
        """
        began, load = time.monotonic(), self.pace.load

        def ended(images: int, seconds: float) -> bool:
            self.pace.trained(images, seconds)
            left, used = self.left - after * self.pace.load / load, time.monotonic() - began
            return used > (left + used) / trainings

        return ended
