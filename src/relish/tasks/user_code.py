"""What a run is given in Python and no command can type: a module, a transform, a loss, callbacks.

A run folder holds no code of the user's. It holds the tensors that a module began with, and what each thing was called,
so that a run is resumed with the same ones or says which are missing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from relish.core.context import Listener
from relish.core.errors import RecipeError, RunError
from relish.core.run_folder import RunFolder
from relish.data.transforms import Transform
from relish.models.own_module import is_target, source_of
from relish.models.saved_model import OWN, load_model, read_header, save_model
from relish.models.source import SourceModel
from relish.training.optim import Loss


@dataclass(frozen=True, kw_only=True)
class UserCode:
    """The Python objects of one run."""

    module: nn.Module | None = None
    """The source model, or a target model."""
    head: str | None = None
    """The name of the module's output layer; none: it is found."""
    transform: Transform | None = None
    """Of training images, in place of the recipe's crops and flips."""
    loss: Loss | None = None
    """In place of the cross-entropy."""
    callbacks: Sequence[Listener] = ()
    """Called with each event that is recorded."""

    def __post_init__(self) -> None:
        for name in ("transform", "loss"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise RecipeError(f"{name} is a {type(getattr(self, name)).__name__}, which cannot be called.")
        for callback in self.callbacks:
            if not callable(callback):
                raise RecipeError(f"callbacks holds a {type(callback).__name__}, which cannot be called.")
        if self.head is not None and self.module is None:
            raise RecipeError(
                f'head="{self.head}" names the output layer of a module, and source is none.', hint="Omit head=."
            )

    def words(self) -> dict[str, str]:
        """What `request.json` holds of it, under the names of fields of a `Request`."""
        named = {"transform": self.transform, "loss": self.loss}
        found = {name: type_and_repr(one) for name, one in named.items() if one is not None}
        if self.module is not None:
            found["module"] = type_name(self.module)
            if is_target(self.module):
                found["keep"] = "head"
        return found if self.head is None else {**found, "head": self.head}

    def source(self, folder: RunFolder | None) -> SourceModel | None:
        """The module as a source model; of a run that is resumed, with the tensors that it began with.

        Raises:
            ModelError: its output layer cannot be found, or it is another class than the run's.
        """
        kept = folder and source_file(folder)
        if kept and kept.is_file():
            own = read_header(kept).get("library") == OWN
            network, description, extra = load_model(kept, self.module if own else None)
            return SourceModel(network, description, description.network_name, extra["origin"], extra["sha256"])
        return None if self.module is None else source_of(self.module, head=self.head)


def type_name(thing: object) -> str:
    """Such as `nets.Net`."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def type_and_repr(thing: object) -> str:
    """What tells one transform or loss from another, without addresses in memory, which change from start to start."""
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type_name(thing)}: {thing!r}")


def source_file(folder: RunFolder) -> Path:
    """Where a run keeps the module that it was given."""
    return folder.path / "source.safetensors"


def save_source(folder: RunFolder, source: SourceModel) -> None:
    """Keep a module as it was given, so that the run can be resumed with it.

    Raises:
        WriteFailed: no space, no permission.
    """
    if not source_file(folder).is_file():
        extra = {"origin": source.origin, "sha256": source.sha256 or ""}
        save_model(source_file(folder), source.network, source.description, extra)


def check_resumed(folder: RunFolder, request: Mapping[str, Any], code: UserCode) -> None:
    """See that a run is resumed with everything it was begun with that relish cannot build.

    Raises:
        RunError: something is missing.
    """
    given = {field.name for field in fields(code) if getattr(code, field.name) is not None}
    missing = [name for name in ("transform", "loss") if request.get(name) and name not in given]
    own = source_file(folder).is_file() and read_header(source_file(folder)).get("library") == OWN
    if own and code.module is None:
        missing.insert(0, "source")
    if missing:
        begun = ", ".join(f"{name} ({request['module' if name == 'source' else name]})" for name in missing)
        raise RunError(
            f"{folder.path} was begun with {begun}, which relish cannot build.",
            hint=f'Resume it in Python with the same: relish.fit(resume="{folder.path}", '
            + ", ".join(f"{name}=…" for name in missing)
            + ")",
        )
