"""One model fine-tuned from the probe's head, and what it and its averages with the probe say of pictures held out.

In:   a lesson, the probe to start from.
Out:  a `Fold`.
Not here: the loop (`loop.py`), choosing among folds and averages (`ladder.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.errors import Diverged, RunError, Stopped
from relish.core.io import write_json
from relish.core.progress import Muted, Progress
from relish.core.run_folder import RunFolder
from relish.data.dataset import Split
from relish.evaluation.inference import softmax, split_logits
from relish.models.target import TargetModel
from relish.training.averaging import State, between, state_of
from relish.training.checkpoints import load_network
from relish.training.loop import Lesson, train
from relish.training.probe import Probe

HELD_OUT = "held-out"
SHARES = (0.25, 0.5, 0.75, 1.0)
"""How far from the probe to the fine-tuned model: averages that are tried."""
_ENDED = "ended.json"
"""In a stage's folder, once it is over."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A fine-tuned model beside the probe it started from; both learned from the same pictures."""

    out: Split
    """The n pictures held out."""
    probe: State
    tuned: State
    logits: Mapping[float, npt.NDArray[np.float32]]
    """By share: (n, K) float32; 0 is the probe, 1 the fine-tuned model."""

    def said(self, share: float) -> npt.NDArray[np.float32]:
        """(n, K) float32 probabilities."""
        return softmax(self.logits[share])


def fine_tune(
    lesson: Lesson,
    origin: State,
    probe: Probe,
    stage: RunFolder,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> Fold:
    """Learn from the lesson's pictures, from the probe on; the network is left somewhere between its two ends.

    Args:
        lesson: learns from some pictures and is scored on the others.
        origin: the network before anything learned.
        probe: learned from the same pictures.
        stage: where this model's checkpoint and events go; a model that is finished there is only put back.
        folder: the run's own, for what to type to go on.

    Raises:
        Diverged, Stopped, PictureError: as the loop does.
    """
    network = lesson.target.network
    network.load_state_dict(origin)
    set_head(lesson.target, probe)
    before = state_of(network)
    train_once(lesson, stage, folder, accelerator, progress)
    tuned = state_of(network)
    logits = {}
    for share in (0.0, *SHARES):
        network.load_state_dict(between(before, tuned, share))
        logits[share] = split_logits(
            network, lesson.score, lesson.preprocessing, accelerator,
            workers=lesson.workers, progress=progress, title=f"average {share:g}",
        )  # fmt: skip
    return Fold(lesson.score, before, tuned, logits)


@torch.no_grad()
def set_head(target: TargetModel, probe: Probe) -> None:
    """Make a probe the network's output layer."""
    (head,) = target.heads
    head.weight.copy_(torch.from_numpy(probe.weight).view_as(head.weight))
    if head.bias is not None:
        head.bias.copy_(torch.from_numpy(probe.bias))


def train_once(
    lesson: Lesson, stage: RunFolder, folder: RunFolder, accelerator: Accelerator, progress: Progress
) -> None:
    """Train the lesson's network as it is, or put back what was trained in this stage.

    Raises:
        Diverged, Stopped, PictureError: as the loop does; `Diverged` also where it did so before the run was resumed.
    """
    found = [_end_of(stage)]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    over, diverged = found[0]
    if diverged:
        raise Diverged(diverged)
    if over:
        load_network(stage.checkpoint, lesson.target.network)
        return
    try:
        train(lesson, stage, accelerator, Muted(progress))
    except Stopped as stopped:
        raise Stopped(stopped.message, hint=f"Go on with: {folder.resume_command}") from stopped
    except Diverged as error:
        _end(stage, accelerator, error.message)
        raise
    # A model cut short at its deadline is finished too: it does not go on learning when the run is resumed.
    _end(stage, accelerator, None)


def _end(stage: RunFolder, accelerator: Accelerator, diverged: str | None) -> None:
    if accelerator.is_main_process:
        write_json(stage.path / _ENDED, {"diverged": diverged})


def _end_of(stage: RunFolder) -> tuple[bool, str | None]:
    """Whether a stage is over, and with what words it diverged, if it did."""
    file = stage.path / _ENDED
    if not file.is_file():
        return False, None
    try:
        return True, json.loads(file.read_bytes())["diverged"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read ({error}).", hint=f"Delete {stage.path}, and it starts over.") from error
