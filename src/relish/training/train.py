"""Step 4: train the target model. One loop for every recipe, read from top to bottom.

In:   a target model, the pictures to learn from, the pictures to score on, a recipe.
Out:  the network, trained in place; every event in the run's `metrics.jsonl`; checkpoints to go on from.

Every process takes each n-th picture of every batch. A process whose share of a small last batch is empty goes through
one picture at weight nothing, because all have to meet when the gradients are added up.
"""

import math
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

from relish.core.errors import Diverged, Stopped
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import derive_seed, to_device
from relish.data.dataset import Split
from relish.data.loader import Batch, balanced_batches, epoch_batches, training_batches
from relish.data.transforms import Preprocessing, normalise
from relish.evaluation.inference import split_logits
from relish.models.freeze import set_train_mode
from relish.models.precision import Precision, computing_in
from relish.models.target import TargetModel
from relish.training.checkpoint import Place, load_checkpoint, save_checkpoint
from relish.training.optim import base_rate, batch_loss, make_optimiser, set_rates
from relish.training.recipe import Balance, Recipe, balance_of

CHECKPOINT_SECONDS = 60.0
"""A kill loses about this much work at most."""
POINTS_PER_EPOCH = 5
"""Points of the training curves in an epoch (Dive into Deep Learning, `train_ch13`)."""


@dataclass(frozen=True)
class Lesson:
    """What a run trains with; nothing in it changes on the way but the network."""

    target: TargetModel
    recipe: Recipe
    learn: Split
    score: Split
    """Scored after every epoch; nothing where it is empty."""
    score_name: str
    """What `score` is: `test` or `validation`."""
    preprocessing: Preprocessing
    seed: int
    workers: int = 0
    deadline: float = math.inf
    """When to end at the latest, even in mid-epoch, by `time.monotonic`."""
    precision: Precision = "f32"
    """Of forward and backward passes; parameters, losses and steps are f32, and so is every score."""


def train(lesson: Lesson, folder: RunFolder, accelerator: Accelerator, progress: Progress) -> None:
    """Train to the recipe's end, or to the deadline, from the folder's checkpoint if it has one.

    Raises:
        Diverged: the loss is no finite number any more.
        Stopped: SIGINT or SIGTERM came; a checkpoint was saved first.
        ImageError: a picture cannot be opened any more.
    """
    recipe, network = lesson.recipe, lesson.target.network
    to_device(network, accelerator.device)
    optimiser = make_optimiser(lesson.target, recipe)
    place = load_checkpoint(folder.checkpoint, network, optimiser) or Place()
    # Only the model is prepared: the list of pictures is ours, and the optimiser needs nothing in full precision.
    parallel = accelerator.prepare_model(network) if accelerator.num_processes > 1 else network
    labels, classes = lesson.learn.labels, len(lesson.target.classes)
    balance = balance_of(recipe.balance, labels, classes, sampled=True).to(accelerator.device)
    steps_per_epoch = math.ceil(len(lesson.learn) / recipe.batch_size)
    main = accelerator.is_main_process
    if place.epoch or place.batch:
        progress.say(f"going on from epoch {place.epoch + place.batch / steps_per_epoch:.2f} of {recipe.passes}")
    if main and folder.metrics.is_file():
        step = place.epoch * steps_per_epoch + place.batch
        folder.record(event="resumed", epoch=place.epoch, batch=place.batch, step=step)

    def save() -> None:
        if main:
            save_checkpoint(folder.checkpoint, network, optimiser, place)

    saved_at = time.monotonic()
    with (
        StopFlag() as stop,
        progress.bar("training", recipe.passes * len(lesson.learn), _pictures_done(place, lesson)) as bar,
    ):
        for epoch in range(place.epoch, recipe.passes):
            batches = _batches(lesson, epoch)
            share = [_share(b, accelerator.process_index, accelerator.num_processes) for b in batches[place.batch :]]
            pictures = training_batches(
                lesson.learn, lesson.preprocessing, share, seed=lesson.seed, epoch=epoch,
                smallest=recipe.smallest_crop, scaled=recipe.decoding == "scaled", workers=lesson.workers,
            )  # fmt: skip
            set_train_mode(network, lesson.target, still_norms=recipe.batch_norm == "still")
            for number in range(place.batch, len(batches)):
                began = time.perf_counter()
                batch, count = next(pictures), len(batches[number])
                padding = len(batches[number]) <= accelerator.process_index
                set_rates(optimiser, recipe, epoch * steps_per_epoch + number, recipe.passes * steps_per_epoch)
                # Dropout draws by its place in the run too, differently in every process.
                torch.manual_seed(derive_seed(lesson.seed, "step", epoch, number, accelerator.process_index))
                loss, right = _step(parallel, optimiser, batch, lesson, balance, accelerator, count, padding)
                if not math.isfinite(loss):
                    raise _diverged(lesson, folder, place, main)
                place.loss, place.right, place.seen = place.loss + loss, place.right + right, place.seen + count
                place.batch, place.seconds = number + 1, place.seconds + time.perf_counter() - began
                bar.advance(count, _words(place, count / (time.perf_counter() - began)))
                if main and _is_point(number, len(batches)):
                    _record_training(folder, place, len(batches), base_rate(optimiser, recipe))
                stopping = _any(bool(stop), accelerator)
                if stopping or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                    save()
                    saved_at = time.monotonic()
                if stopping:
                    raise _stopped(folder, epoch, recipe)
                if lesson.deadline < math.inf and _any(time.monotonic() > lesson.deadline, accelerator):
                    _share_statistics(network, accelerator)
                    save()
                    return
            _share_statistics(network, accelerator)
            if len(lesson.score):
                _score(lesson, folder, place, accelerator, progress)
            place.next_epoch()
            save()
            if _any(bool(stop), accelerator):  # asked while the pictures were scored
                raise _stopped(folder, epoch, recipe)


def _stopped(folder: RunFolder, epoch: int, recipe: Recipe) -> Stopped:
    return Stopped(
        f"stopped in epoch {epoch + 1} of {recipe.passes}; the work so far is saved.",
        hint=f"Go on with: {folder.resume_command}",
    )


def _step(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    lesson: Lesson,
    balance: Balance,
    accelerator: Accelerator,
    count: int,
    padding: bool,
) -> tuple[float, int]:
    """One step down the gradient; the summed loss and the number right, over all processes, before it."""
    labels = batch.labels.to(accelerator.device)
    images = normalise(batch.images.to(accelerator.device), lesson.preprocessing)
    with computing_in(lesson.precision, accelerator.device):
        outputs = network(images)
    losses = balance.losses(outputs.float(), labels) * (0.0 if padding else 1.0)
    optimiser.zero_grad()
    # Not `accelerator.backward`: scaling or accumulation asked for in the environment is no part of a recipe.
    batch_loss(losses, lesson.recipe, count, accelerator.num_processes).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    right = 0 if padding else int((outputs.argmax(1) == labels).sum())
    sums = torch.tensor([losses.sum().item(), right], device=accelerator.device)
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums)
    return float(sums[0]), int(sums[1])


def _any(here: bool, accelerator: Accelerator) -> bool:
    """Whether it is so in any process: all have to agree, or the others wait for one in the next step."""
    if accelerator.num_processes == 1:
        return here
    return bool(accelerator.reduce(torch.tensor([float(here)], device=accelerator.device))[0] > 0)


def _batches(lesson: Lesson, epoch: int) -> list[list[int]]:
    size = lesson.recipe.batch_size
    if lesson.recipe.balance == "sampling":
        return balanced_batches(lesson.learn.labels, size, lesson.seed, epoch)
    return epoch_batches(len(lesson.learn), size, lesson.seed, epoch)


def _share(batch: list[int], process: int, processes: int) -> list[int]:
    return batch[process::processes] or batch[:1]


def _pictures_done(place: Place, lesson: Lesson) -> int:
    return place.epoch * len(lesson.learn) + place.seen


def _is_point(number: int, batches: int) -> bool:
    return (number + 1) % max(1, batches // POINTS_PER_EPOCH) == 0 or number + 1 == batches


def _words(place: Place, speed: float) -> str:
    return f"loss {place.loss / place.seen:.3f}  train {place.right / place.seen:.3f}  {speed:.1f} pictures/s"


def _record_training(folder: RunFolder, place: Place, batches: int, rate: float) -> None:
    folder.record(
        event="train",
        epoch=place.epoch,
        batch=place.batch,
        step=place.epoch * batches + place.batch,
        at=place.epoch + place.batch / batches,
        learning_rate=rate,
        loss=place.loss / place.seen,
        accuracy=place.right / place.seen,
        seconds=place.seconds,
    )


def _share_statistics(network: torch.nn.Module, accelerator: Accelerator) -> None:
    """Each process has moved its own batch-norm statistics; the first one's are saved, so all answer with them."""
    if accelerator.num_processes > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)


def _score(lesson: Lesson, folder: RunFolder, place: Place, accelerator: Accelerator, progress: Progress) -> None:
    logits = split_logits(
        lesson.target.network,
        lesson.score,
        lesson.preprocessing,
        accelerator,
        workers=lesson.workers,
        progress=progress,
        title=f"scoring on {lesson.score_name}",
    )
    right = int((logits.argmax(1) == lesson.score.labels).sum())
    progress.say(
        f"epoch {place.epoch + 1}/{lesson.recipe.passes}  loss {place.loss / place.seen:.3f}  "
        f"train {place.right / place.seen:.3f}  {lesson.score_name} {right / len(lesson.score):.4f}  "
        f"({place.seconds:.0f} s of training so far)"
    )
    if accelerator.is_main_process:
        folder.record(
            event="score",
            epoch=place.epoch + 1,
            batch=0,
            step=(place.epoch + 1) * math.ceil(len(lesson.learn) / lesson.recipe.batch_size),
            at=place.epoch + 1,
            split=lesson.score_name,
            correct=right,
            count=len(lesson.score),
        )


def _diverged(lesson: Lesson, folder: RunFolder, place: Place, main: bool) -> Diverged:
    if main:
        folder.record(event="diverged", epoch=place.epoch, batch=place.batch)
    rate = lesson.recipe.learning_rate
    return Diverged(
        f"the loss became infinite in epoch {place.epoch + 1}: learning_rate {rate:g} is too high for this network.",
        hint=f"Try a tenth of it: --lr {rate / 10:g}",
    )


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Within `with`, true once a stop was asked for."""

    def __init__(self) -> None:
        self._asked = False
        self._former: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._asked

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._give_back()

    def _give_back(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}
