"""What the server asks of a model, whoever computes it.

In:   nothing.
Out:  `Model`, which a run folder (`tasks/served.py`) and an exported file (`exported.py`) both are.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from relish.evaluation.decision import Decision


class Answer(Protocol):
    """What a model says of one picture: `relish.Prediction` is one."""

    @property
    def class_name(self) -> str | None:
        """The class that is said."""

    @property
    def probability(self) -> float | None:
        """Of that class, 0 to 1."""

    @property
    def probabilities(self) -> dict[str, float] | None:
        """Of every class, in the model's order."""

    @property
    def unsure(self) -> bool:
        """Whether the model would rather not answer."""


class Model(Protocol):
    """A model that can be served."""

    name: str
    """What to call it, such as the folder it came from."""
    classes: tuple[str, ...]
    decision: Decision
    explains: bool
    """Whether `explain` can be asked."""

    def prepare(self, picture: Image.Image) -> Any:
        """What a picture becomes before it waits for its turn; called in several threads at once."""

    def answer(self, prepared: Sequence[Any]) -> Sequence[Answer]:
        """The answer for each, in order; called in one thread."""

    def explain(self, picture: Image.Image, class_name: str) -> Image.Image:
        """The picture as the model saw it, with what speaks for a class lit up; called in the same thread."""
