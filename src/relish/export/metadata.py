"""What an exported file says of itself, written by `relish export` and read by whoever uses the file.

In:   words by name, from a file that anybody may have made.
Out:  `About`, checked; or an error that says what is wrong with it.

No torch, and no onnx: a reader needs neither.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from relish.core.errors import ModelError
from relish.evaluation.decision import HEADER_KEY, Decision, decision_from

FORMAT_VERSION = 1
IMAGE, PROBABILITIES, LOGITS = "image", "probabilities", "logits"
"""The graph's input and its outputs, in their order."""
MOST_CHARACTERS, MOST_CLASSES = 16_000_000, 100_000
"""A file whose words are longer, or that names more classes, is none of ours."""
_JSON = ("classes", "preprocessing", "recipe", "certificate", "speed")


class About(BaseModel):
    """The words of an exported file; strict, since they come from outside."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)

    relish_format: int = Field(ge=1)
    classes: tuple[str, ...] = Field(min_length=1, max_length=MOST_CLASSES)
    """One name an output, in their order."""
    decision: Decision
    """How an answer is made of the probabilities; its temperature is in the graph already."""
    precision: str = Field(pattern="^(f32|int8)$")
    """What the network computes in; all else is float32 and float64."""
    preprocessing: dict[str, Any]
    """For reading only: the graph does it."""
    source: str = ""
    recipe: dict[str, Any] = Field(default_factory=dict)
    model_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the `model.safetensors` that this file was made from."""
    relish_version: str
    certificate: dict[str, Any]
    """What was measured against the model in PyTorch."""
    speed: dict[str, Any] = Field(default_factory=dict)
    """How fast both were where the file was made: the only words that differ from one export to the next."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("a class is named twice")
        return names

    def words(self) -> dict[str, str]:
        """For the file; `about_from` reads them back."""
        plain = {"precision", "source", "model_sha256", "relish_version"}
        return {
            "relish_format": str(self.relish_format),
            HEADER_KEY: self.decision.as_header(),
            **{name: getattr(self, name) for name in plain},
            **{name: json.dumps(getattr(self, name), ensure_ascii=False, allow_nan=False) for name in _JSON},
        }


def about_from(path: str, words: Mapping[str, str]) -> About:
    """Read and check a file's words.

    Args:
        path: what to call the file in an error.

    Raises:
        ModelError: it is not one of ours, is of a newer relish, or was tampered with.
    """
    if "relish_format" not in words:
        raise ModelError(f"{path} was not made by relish export.", hint="Export a run: relish export RUN model.onnx.")
    if sum(len(word) for word in words.values()) > MOST_CHARACTERS:
        raise ModelError(f"{path}: what it says of itself is too long to be true.", hint="Export the run again.")
    if words["relish_format"].isdecimal() and int(words["relish_format"]) > FORMAT_VERSION:
        raise ModelError(f"{path}: is of a newer relish; this one reads format {FORMAT_VERSION}.", hint="Install it.")
    try:
        found: dict[str, Any] = {name: json.loads(word) if name in _JSON else word for name, word in words.items()}
        about = About.model_validate({**found, HEADER_KEY: decision_from(words)})
        # Its positive class must be one of two.
        about.decision.decide(np.full((1, len(about.classes)), 1 / len(about.classes)), about.classes)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{place}: {first['msg']}") from error
    except (ValueError, RecursionError, ModelError) as error:
        raise _damaged(path, str(error)) from error
    return about


def _damaged(path: str, reason: str) -> ModelError:
    return ModelError(f"{path}: what it says of itself cannot be used ({reason[:200]}).", hint="Export the run again.")
