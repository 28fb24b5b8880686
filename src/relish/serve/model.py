"""What the server asks of a model, whoever computes it.

In:   nothing.
Out:  `Model`, which a run folder (`tasks/served.py`) and an exported file (`exported.py`) both are.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from relish.evaluation.decision import Decision
from relish.evaluation.prediction import Prediction


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

    def answer(self, prepared: Sequence[Any]) -> Sequence[Prediction]:
        """The answer for each, in order, without its name; called in one thread."""

    def explain(self, picture: Image.Image, class_name: str) -> Image.Image:
        """The picture as the model saw it, with what speaks for a class lit up; called in the same thread."""
