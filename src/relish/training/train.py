"""Train a target model: one loop for every recipe, read from top to bottom.

Every process takes each n-th image of every batch. A process whose share of a small last batch is empty computes one
image at weight 0, because all processes meet when gradients are added up.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from relish.core.context import RunContext
from relish.core.errors import Diverged, RecipeError, Stopped
from relish.core.runtime import StopFlag, derive_seed, to_device
from relish.data.dataset import NO_IMAGES, VALIDATION, Split
from relish.data.kept import KeptImages
from relish.data.loader import Batch, DecodedImages, OpenedImages, balanced_batches, epoch_batches, training_batches
from relish.data.transforms import Preprocessing, Transform, normalise
from relish.evaluation.inference import Logits, split_logits
from relish.models.captured import WORTH
from relish.models.freeze import set_train_mode, smallest_batch
from relish.models.precision import PLAINLY, Computing, computing_in
from relish.models.saved_model import OWN
from relish.models.target import TargetModel
from relish.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from relish.training.gradients import Gradients, Sums, is_padding
from relish.training.optim import Loss, base_rate, batch_loss, losses_of, make_optimiser, set_rates
from relish.training.recipe import Recipe, balance_of

CHECKPOINT_SECONDS = 60.0
"""A kill loses about this much work at most."""
POINTS_PER_EPOCH = 5
"""Points of the training curves in an epoch (Dive into Deep Learning, `train_ch13`)."""


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """What is trained, on which images, by which numbers; only the network changes."""

    target: TargetModel
    recipe: Recipe
    preprocessing: Preprocessing
    train: Split
    validation: Split
    """Evaluated, and never trained on; may be empty."""
    every_epoch: bool = True
    """Whether `validation` is evaluated after every epoch."""
    validation_name: str = VALIDATION
    """What `validation` is called: `test` where, as in the book, the test split is evaluated in training."""
    final: Split = NO_IMAGES
    """Evaluated in the end."""
    final_name: str = ""
    """What `final` is called."""
    facts: Mapping[Path, bytes] = field(default_factory=dict)
    """A row of `FACTS` of every image, where the ladder is to look for series; else none."""
    sha256: Mapping[Path, str] = field(default_factory=dict)
    """Of each image's file, where the ladder trains: features are kept by it."""
    units: Mapping[Path, str] = field(default_factory=dict)
    """Of each image, where the ladder trains: images of one key are on one side, in folds and of what is held out."""
    sizes: Mapping[Path, tuple[int, int]] = field(default_factory=dict)
    """Width and height of each image, in pixels, where the ladder trains."""
    computing: Computing = PLAINLY
    """Of forward and backward passes; parameters, losses, updates and evaluations are f32."""
    ended: Callable[[int, float], bool] | None = None
    """Whether to end now, even in mid-epoch; asked after each step with its images and seconds. None: at the end."""
    opened: OpenedImages | None = None
    """Images of `train` that were opened before."""
    kept: KeptImages | None = None
    """Images of `train` that stay on a GPU."""
    decoded: DecodedImages | None = None
    """Images of `validation` that are evaluated more than once."""
    nested: bool = False
    """Whether `train` is all there is: the probe is evaluated by nested cross-validation, and is the last rung."""
    transform: Transform | None = None
    """Of training images, in place of the recipe's."""
    loss: Loss | None = None
    """In place of the cross-entropy."""


def train(run: RunContext, setup: TrainingSetup) -> Logits | None:
    """Train to the recipe's end, or until `setup.ended`, from the run's checkpoint where there is one.

    Returns:
        (n, K) float32 logits of the validation split after the last epoch; None where that was not evaluated now.

    Raises:
        Diverged: the loss is not finite; noticed at the next point of the curves.
        RecipeError: the network cannot train on batches as small as a process's share of one.
        Stopped: SIGINT, SIGTERM or SIGHUP came; a checkpoint was saved first, as it is before the next ones.
        ImageError: an image cannot be opened any more.
        WorkerFailed: a process that reads images has died.
        TooLittleMemory: for a batch, or for one image where a batch can be computed in parts.
    """
    recipe, network, device = setup.recipe, setup.target.network, run.device
    to_device(network, device)
    if setup.computing.compiled:
        network.to(memory_format=torch.channels_last)
    optimiser = make_optimiser(setup.target, recipe)
    state = load_checkpoint(run.folder.checkpoint, network, optimiser) or TrainingState()
    # Only the model is prepared: the order of images is ours, and an optimiser in full precision needs nothing.
    model = run.accelerator.prepare_model(network) if run.processes > 1 else network
    balance = balance_of(recipe.balance, setup.train.labels, len(setup.target.classes), sampled=True).to(device)
    smallest = _smallest(run, setup)
    steps = len(_batches(run, setup, 0, smallest))  # of one epoch
    _say_resumed(run, setup, state, steps)
    evaluated: Logits | None = None
    gradients = _gradients(run, setup, model, setup.loss or balance.losses, capture=_captures(run, setup, steps))
    sums = Sums(run, state)
    saved_at = time.monotonic()

    def read() -> None:
        if not math.isfinite(sums.read()):
            raise _diverged(run, setup, state)

    def save(all_here: bool = True) -> None:
        if all_here:
            read()
        if run.is_main:
            save_checkpoint(run.folder.checkpoint, network, optimiser, state)

    with (
        StopFlag() as stop,
        run.progress.bar("training", recipe.passes * len(setup.train), state.images_done(len(setup.train))) as bar,
    ):
        for epoch in range(state.epoch, recipe.passes):
            batches = _batches(run, setup, epoch, smallest)
            reader = _augmented(run, setup, epoch, batches[state.batch :])
            set_train_mode(network, setup.target, still_norms=recipe.batch_norm == "still")
            for number in range(state.batch, steps):
                began, count = time.perf_counter(), len(batches[number])
                set_rates(optimiser, recipe, epoch * steps + number, recipe.passes * steps)
                with _saved_first(run, save, state):
                    batch = _on(next(reader), device)
                    # Dropout draws by its place in the run too, differently in every process.
                    seed = derive_seed(run.seed, "step", epoch, number, run.process)
                    losses, logits = gradients(batch, count, seed)
                optimiser.step()

                sums.add(losses, logits, batch.labels, count)
                # A budget counts the seconds of a step, so what the device still computes is waited for.
                if _is_point(number, steps) or setup.ended is not None:
                    read()
                state.stepped(time.perf_counter() - began)
                if _is_point(number, steps):
                    _record_training(run, state, steps, base_rate(optimiser, recipe))
                bar.advance(count, f"{state.words}  {count / (time.perf_counter() - began):.1f} pictures/s")
                # All processes read the sums together, and so agree on when.
                if run.any(bool(stop) or time.monotonic() - saved_at > CHECKPOINT_SECONDS):
                    save()
                    saved_at = time.monotonic()
                    if run.any(bool(stop)):
                        raise _stopped(run, epoch, recipe, stop.number)
                if setup.ended is not None and run.any(setup.ended(count, time.perf_counter() - began)):
                    _share_statistics(run, network)
                    save()
                    return None
            _share_statistics(run, network)
            if len(setup.validation) and setup.every_epoch:
                try:
                    # Nothing has to be finished first, unless other processes wait for this one's share.
                    with _saved_first(run, save, state), stop.at_once() if run.processes == 1 else nullcontext():
                        evaluated = _evaluate(run, setup, state, steps)
                except KeyboardInterrupt as error:
                    save()
                    raise _stopped(run, epoch, recipe, stop.number) from error
            state.next_epoch()
            sums.restart()
            save()
            if run.any(bool(stop)):  # asked while the validation split was evaluated
                raise _stopped(run, epoch, recipe, stop.number)
    return evaluated


def _gradients(run: RunContext, setup: TrainingSetup, model: nn.Module, loss: Loss, *, capture: bool) -> Gradients:
    """Forward and backward through the network, as the recipe wants it."""

    def passed(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        with computing_in(setup.computing.precision, run.device):
            logits = model(normalise(images, setup.preprocessing))  # (b, K)
        losses = losses_of(loss, logits.float(), labels)  # (b,)
        losses = losses * (0.0 if is_padding(run, count) else 1.0)
        # Not `accelerator.backward`: scaling or accumulation asked for in the environment is no recipe's.
        batch_loss(losses, setup.recipe, count, run.processes).backward()  # type: ignore[no-untyped-call]
        return losses.detach(), logits.detach()

    alone, size = run.processes == 1, setup.recipe.batch_size
    return Gradients(
        run, setup.target.network, passed, batch_size=size, full=min(size, len(setup.train)),
        divisible=setup.loss is None and alone, capture=capture,
        # One of several processes would compute its gradients twice, and the others would wait.
        release=setup.kept.release if setup.kept and alone else lambda: False,
    )  # fmt: skip


def _captures(run: RunContext, setup: TrainingSetup, steps: int) -> bool:
    """Whether full batches are captured; code of the user's own may decide something anew in each step."""
    own = setup.loss is not None or setup.target.source.description.library == OWN
    enough = steps * setup.recipe.passes >= WORTH
    return run.device.type == "cuda" and run.processes == 1 and enough and not own


@contextmanager
def _saved_first(run: RunContext, save: Callable[[bool], None], state: TrainingState) -> Iterator[None]:
    """Within `with`, an error waits until the work so far is saved; other processes have perhaps met none."""
    try:
        yield
    except Exception:
        if state.epoch or state.batch:
            save(run.processes == 1)
        raise


def _smallest(run: RunContext, setup: TrainingSetup) -> int:
    """Images that every batch needs, over all processes; the network is asked only where one could be too small."""
    recipe, count, needed = setup.recipe, len(setup.train), 2 * run.processes
    fewest = count % recipe.batch_size or min(count, recipe.batch_size)
    still = recipe.batch_norm == "still"
    if fewest >= needed or smallest_batch(setup.target, setup.preprocessing.image_size, still_norms=still) == 1:
        return 1
    if min(count, recipe.batch_size) < needed:
        raise RecipeError(
            f"{setup.target.source.name} normalises over a batch, and needs 2 pictures of each in every process.",
            hint=f"Give --batch-size {needed} or more, and at least as many pictures.",
        )
    last = "picture of an epoch joins" if fewest == 1 else f"{fewest} pictures of an epoch join"
    run.progress.say(f"batches the last {last} the batch before: this network needs 2 or more to train on")
    return needed


def _batches(run: RunContext, setup: TrainingSetup, epoch: int, smallest: int) -> list[list[int]]:
    """The positions in every batch of an epoch, over all processes."""
    if setup.recipe.balance == "sampling":
        return balanced_batches(setup.train.labels, setup.recipe.batch_size, run.seed, epoch, smallest)
    return epoch_batches(len(setup.train), setup.recipe.batch_size, run.seed, epoch, smallest)


def _augmented(run: RunContext, setup: TrainingSetup, epoch: int, batches: list[list[int]]) -> Iterator[Batch]:
    """This process's share of each batch, read and augmented."""
    share = [batch[run.process :: run.processes] or batch[:1] for batch in batches]
    return training_batches(
        setup.train, setup.preprocessing, share, seed=run.seed, epoch=epoch, smallest=setup.recipe.smallest_crop,
        scaled=setup.recipe.decoding == "scaled", transform=setup.transform, opened=setup.opened, kept=setup.kept,
        workers=run.workers,
    )  # fmt: skip


def _on(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device; the host does not wait for the copy."""
    images, labels = (one.to(device, non_blocking=device.type == "cuda") for one in (batch.images, batch.labels))
    return batch._replace(images=images, labels=labels)


def _is_point(number: int, steps: int) -> bool:
    return (number + 1) % max(1, steps // POINTS_PER_EPOCH) == 0 or number + 1 == steps


def _say_resumed(run: RunContext, setup: TrainingSetup, state: TrainingState, steps: int) -> None:
    if state.epoch or state.batch:
        run.progress.say(f"resuming from epoch {state.epoch + state.batch / steps:.2f} of {setup.recipe.passes}")
    if run.folder.metrics.is_file():
        run.record(event="resumed", epoch=state.epoch, batch=state.batch, step=state.epoch * steps + state.batch)


def _record_training(run: RunContext, state: TrainingState, steps: int, rate: float) -> None:
    run.record(
        event="train",
        epoch=state.epoch,
        batch=state.batch,
        step=state.epoch * steps + state.batch,
        at=state.epoch + state.batch / steps,
        learning_rate=rate,
        loss=state.loss / state.seen,
        accuracy=state.correct / state.seen,
        seconds=state.seconds,
    )


def _share_statistics(run: RunContext, network: nn.Module) -> None:
    """Each process has moved its own batch-norm statistics; the first one's are saved, so all evaluate with them."""
    if run.processes > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)


def _evaluate(run: RunContext, setup: TrainingSetup, state: TrainingState, steps: int) -> Logits:
    """Logits of the validation split after an epoch, and the accuracy recorded."""
    split, name, epoch = setup.validation, setup.validation_name, state.epoch + 1
    logits = split_logits(
        setup.target.network, split, setup.preprocessing, run, title=f"scoring on {name}",
        heads=setup.target.head_names, decoded=setup.decoded,
    )  # fmt: skip
    correct = int((logits.argmax(1) == split.labels).sum())
    run.progress.say(
        f"epoch {epoch}/{setup.recipe.passes}  {state.words}  {name} {correct / len(split):.4f}  "
        f"({state.seconds:.0f} s of training so far)"
    )
    run.record(
        event="score", epoch=epoch, batch=0, step=epoch * steps, at=epoch, split=name, correct=correct,
        count=len(split),
    )  # fmt: skip
    return logits


def _stopped(run: RunContext, epoch: int, recipe: Recipe, number: int) -> Stopped:
    return Stopped(
        f"stopped in epoch {epoch + 1} of {recipe.passes}; the work so far is saved.",
        hint=f"Resume with: {run.resume_command}",
        number=number or signal.SIGINT,  # another process was told
    )


def _diverged(run: RunContext, setup: TrainingSetup, state: TrainingState) -> Diverged:
    run.record(event="diverged", epoch=state.epoch, batch=state.batch)
    rate = setup.recipe.rate
    return Diverged(
        f"the loss became infinite in epoch {state.epoch + 1}: learning_rate {rate:g} is too high for this network.",
        hint=f"Try a tenth of it: --lr {rate / 10:g}",
    )
