"""Where an interrupted run goes on from: one file, written whole, from time to time.

In:   the network, the optimiser and the place in the run.
Out:  `checkpoints/latest.pt`: tensors and plain numbers only, so that it is read back without unpickling anything else.

Nothing of the random generators is kept, since every draw of a run is looked up by its place (`core/seeds.py`).
"""

import dataclasses
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relish.core.errors import RunError
from relish.core.io import atomic_path


@dataclass
class Place:
    """How far a run is: `batch` batches of epoch `epoch` are done (both counted from 0), and what they added up to."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    """Sum of the losses of this epoch's pictures so far, in nats."""
    right: int = 0
    """Of this epoch's pictures so far, how many were classified right, in train mode, before their step."""
    seen: int = 0
    """Of this epoch's pictures, how many were seen so far."""
    seconds: float = 0.0
    """Wall-clock time spent training, over every part of the run, scoring left out."""

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.batch, self.loss, self.right, self.seen = self.epoch + 1, 0, 0.0, 0, 0


def save_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, place: Place) -> None:
    """Write everything the run needs to go on, atomically."""
    content = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "place": dataclasses.asdict(place),
    }
    # Given a name, torch writes by itself, and a full disk is an error without a reason.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def load_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> Place | None:
    """Put network and optimiser back where the checkpoint left them; None where there is no checkpoint.

    Raises:
        RunError: the file is damaged, or of another network.
    """
    if not path.is_file():
        return None
    with _readable(path):
        content = _content(path)
        network.load_state_dict(content["network"])
        optimiser.load_state_dict(content["optimiser"])
        return Place(**content["place"])


def load_network(path: Path, network: nn.Module) -> None:
    """Put a network back where the checkpoint left it.

    Raises:
        RunError: the file is missing, damaged, or of another network.
    """
    with _readable(path):
        network.load_state_dict(_content(path)["network"])


def _content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{path} cannot be gone on from ({reason}).", hint="Delete that file, and the run starts over."
        ) from error
