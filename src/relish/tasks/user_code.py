"""What a run is given in Python and no command can type: a module, a transform, a loss, callbacks, mean and std.

A run folder holds no code of the user's. It holds the tensors that a module began with, and a description of everything
else, so that the run is resumed with the same or says what is missing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from relish.core.context import Listener
from relish.core.errors import RecipeError, RunError
from relish.core.run_folder import RunFolder, given_in_python
from relish.data.transforms import Transform
from relish.models.own_module import is_target, source_of
from relish.models.saved_model import OWN, load_model, read_header, save_model
from relish.models.source import SourceModel
from relish.training.optim import Loss

Channels = Sequence[float]
"""One number for each of the three channels."""


@dataclass(frozen=True, kw_only=True)
class UserCode:
    """The Python objects of one run."""

    source: SourceModel | None = None
    """The module that was handed in; none: the source model goes by a name or a file."""
    keeps_head: bool = False
    """Whether the module is a target model, whose output layer is trained on."""
    head: str | None = None
    """The name of the module's output layer; none: it is found."""
    transform: Transform | None = None
    """Of training images, in place of the recipe's crops and flips."""
    loss: Loss | None = None
    """In place of the cross-entropy."""
    callbacks: tuple[Listener, ...] = ()
    """Called with each event that is recorded."""
    mean: Channels | None = None
    std: Channels | None = None
    """Subtracted from, and divided into, each channel of an image from 0 to 1; none: as the source model has it."""

    def words(self) -> dict[str, Any]:
        """What `request.json` holds of it; nothing of what was not given."""
        found: dict[str, Any] = {
            "source": self.source and self.source.name,
            "keeps_head": self.keeps_head or None,
            "head": self.head,
            "transform": type_and_repr(self.transform),
            "loss": type_and_repr(self.loss),
            "mean": self.mean and [float(value) for value in self.mean],
            "std": self.std and [float(value) for value in self.std],
        }
        return {name: word for name, word in found.items() if word is not None}


NOTHING = UserCode()
"""What a command hands in."""


def user_code(
    data: object,
    module: nn.Module | None,
    head: str | None,
    transform: Transform | None,
    loss: Loss | None,
    callbacks: Sequence[Listener],
    mean: Channels | None,
    std: Channels | None,
) -> UserCode:
    """What was handed to `fit`, checked.

    Raises:
        ModelError: the module has no output layer that can be found.
        RecipeError: something that cannot be called, a head without a module, or images with a transform of their own.
    """
    if transform is None and getattr(data, "transform", None) is not None and hasattr(data, "samples"):
        raise RecipeError(
            "the images come with a transform of their own, which relish would not use.",
            hint="Give it as transform=; relish prepares images for evaluation itself.",
        )
    named = [("transform", transform), ("loss", loss), *(("one of callbacks", one) for one in callbacks)]
    for name, one in named:
        if one is not None and not callable(one):
            raise RecipeError(f"{name} is a {type(one).__name__}, which cannot be called.")
    if head is not None and module is None:
        raise RecipeError(f'head="{head}" names the output layer of a module, and source is none.', hint="Omit head=.")
    source = None if module is None else source_of(module, head=head)
    keeps = module is not None and is_target(module) and source is not None and source.labels is not None
    return UserCode(
        source=source, keeps_head=keeps, head=head, transform=transform, loss=loss, callbacks=tuple(callbacks),
        mean=mean, std=std,
    )  # fmt: skip


def type_and_repr(thing: object | None) -> str | None:
    """What tells one transform or loss from another, without addresses in memory, which change from start to start."""
    if thing is None:
        return None
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(thing).__module__}.{type(thing).__qualname__}: {thing!r}")


# ---- resuming -------------------------------------------------------------------------------------------------------


def resumed_code(folder: RunFolder, before: Mapping[str, Any], code: UserCode, module: nn.Module | None) -> UserCode:
    """The Python objects of a run that is resumed; its module has the tensors that it began with.

    Args:
        before: `UserCode.words` of the run.
        code: what is handed in now.
        module: as it is handed in now.

    Raises:
        RunError: something that relish cannot build is not handed in.
    """
    given = code.words()
    missing = [name for name in given_in_python(before) if name not in given]
    if missing:
        begun = ", ".join(f"{name} ({before[name]})" for name in missing)
        raise RunError(
            f"{folder.path} was begun with {begun}, which relish cannot build.",
            hint=f"Resume it in Python, with the same: {folder.resume_command}",
        )
    source = code.source
    if folder.source.is_file():
        own = read_header(folder.source).get("library") == OWN
        network, description, extra = load_model(folder.source, module if own else None)
        source = SourceModel(network, description, description.network_name, extra["origin"], extra["sha256"])
    keeps_head = before.get("keeps_head", False)
    return replace(code, source=source, keeps_head=keeps_head, mean=before.get("mean"), std=before.get("std"))


def save_source(folder: RunFolder, source: SourceModel) -> None:
    """Keep a module as it was handed in, so that the run can be resumed with it.

    Raises:
        WriteFailed: no space, no permission.
    """
    if not folder.source.is_file():
        extra = {"origin": source.origin, "sha256": source.sha256 or ""}
        save_model(folder.source, source.network, source.description, extra)


def own_network(source: SourceModel | None) -> nn.Module | None:
    """The network that has to be handed to `load_model` for a model made from this source; none where it is built."""
    return source.network if source is not None and source.description.library == OWN else None
