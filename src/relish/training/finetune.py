"""Fine-tuning from the probe's head: one model for each fold held out, and one model made of them all.

How far to move is the question of fine-tuning, and the answer lies in the images: where the probe is nearly right, a
high rate spoils more than the few steps can mend, and far from the source's images a low one does not get there. So
weights between the probe's and the fine-tuned ones are compared too, on the images held out.

Models that stayed near their origin lie in one valley of the loss, and their average is better than each of them; those
that moved far do not, and it is worse. Which it is shows on images that each of them was trained on in part. Some more
epochs over all images then bring the average back down, to below its models. It is what federated averaging does after
each of its rounds (McMahan et al. 2017, arXiv:1602.05629).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from relish.core.context import RunContext
from relish.core.errors import Diverged
from relish.data.dataset import NO_IMAGES, Split
from relish.data.loader import DecodedImages
from relish.data.split import evenly_spaced
from relish.evaluation.inference import Logits, split_logits
from relish.evaluation.metrics import Proportion
from relish.evaluation.prediction import softmax
from relish.evaluation.significance import tempered_losses
from relish.models.target import TargetModel
from relish.training.budget import COEFFICIENTS, COMPARED, affordable_epochs
from relish.training.checkpoint import State, between, decided, mean_of, stage_once, state_of
from relish.training.linear_probe import Probe
from relish.training.measure import Budget
from relish.training.train import TrainingSetup, train

HELD_OUT = "held-out"
"""What the images are called that a model of the ladder is evaluated on in training."""


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A fine-tuned model beside the probe it started from; both were trained on the same images."""

    held_out: Split
    """The n images that neither was trained on."""
    learning_rate: float
    stage: str
    """The name of the folder where its training was recorded."""
    probe: State
    tuned: State
    logits: Mapping[float, Logits]
    """By mixing coefficient: (n, K) float32; 0 is the probe, 1 the fine-tuned model."""

    @property
    def accuracy(self) -> Proportion:
        """Of the fine-tuned model on the images held out."""
        correct = int((self.logits[1.0].argmax(1) == self.held_out.labels).sum())
        return Proportion(correct, len(self.held_out))

    @property
    def best_loss(self) -> float:
        """Mean loss in nats on the images held out, at the best temperature, of the best mixture with the probe."""
        probabilities = [np.nan_to_num(self.probabilities(c)) for c in self.logits if c > 0]
        return min(float(tempered_losses(one, self.held_out.labels).mean()) for one in probabilities)

    def probabilities(self, coefficient: float) -> npt.NDArray[np.float64]:
        """(n, K) float64."""
        return softmax(self.logits[coefficient])


def fine_tune(
    stage: RunContext, setup: TrainingSetup, origin: State, probe: Probe, logits: Logits, budget: Budget
) -> FineTuned | None:
    """Train from the probe on, or load what was trained in this stage before; None where training diverged.

    Where time becomes short, fewer mixing coefficients are evaluated, and None is returned where there is none for any.

    Args:
        stage: where this model's checkpoint and events go.
        setup: trains on some images and validates on the others; its network is left as some mixture of the two.
        origin: the network before any fine-tuning, whatever its output layer is.
        probe: fitted to the same images.
        logits: (n, K) float32 of the images held out, by the probe.

    Raises:
        Stopped, ImageError: as the loop does.
    """
    network, rate = setup.target.network, setup.recipe.rate
    network.load_state_dict(origin)
    set_head(setup.target, probe)
    before = state_of(network)
    try:
        with stage_once(stage, network) as over:
            evaluated = None if over else train(stage, setup)
    except Diverged as error:
        stage.progress.warn(f"{error.message.partition(':')[0]}, at a rate of {rate:g}.")
        return None
    tuned = state_of(network)
    mixed = {0.0: logits} if evaluated is None else {0.0: logits, 1.0: evaluated}
    for coefficient in sorted(COEFFICIENTS, key=lambda one: (one != 1, abs(one - 0.5))):  # what is worth most first
        if coefficient in mixed:
            continue
        if stage.any(not budget.fits(len(setup.validation))):
            stage.progress.warn(f"there is no time to evaluate the average {coefficient:g}.")
            break
        network.load_state_dict(between(before, tuned, coefficient))
        mixed[coefficient] = _evaluated(stage, setup, setup.validation, f"average {coefficient:g}", budget)
    if 1.0 not in mixed:
        return None
    return FineTuned(setup.validation, rate, stage.folder.path.name, before, tuned, mixed)


def _evaluated(run: RunContext, setup: TrainingSetup, split: Split, title: str, budget: Budget) -> Logits:
    """(n, K) float32; the pace learns how long it took."""
    began = time.monotonic()
    target = setup.target
    found = split_logits(
        target.network, split, setup.preprocessing, run, title=title, heads=target.head_names, decoded=setup.decoded
    )
    budget.pace.took("evaluation", len(split), time.monotonic() - began)
    return found


@torch.no_grad()
def set_head(target: TargetModel, probe: Probe) -> None:
    """Make a probe the network's output layer."""
    (head,) = target.heads
    head.weight.copy_(torch.from_numpy(probe.weight).view_as(head.weight))
    if head.bias is not None:
        head.bias.copy_(torch.from_numpy(probe.bias))


def join(
    run: RunContext,
    setup: TrainingSetup,
    models: Sequence[FineTuned],
    coefficient: float,
    probe: State,
    budget: Budget,
    epochs: int,
) -> bool | None:
    """Load the model that the fine-tuned ones make together; False where it is worse than they are, None where there is
    no time to find out, or to mend it.

    One model alone is what it is. An average was evaluated on no image that it was not trained on. So it is compared
    with its models on images that each of them was trained on in part: that shows models that do not go together,
    though not one that knows these images by heart. Where it is worse, it trains on all images.

    Args:
        setup: with all the images.
        coefficient: between the probe (0) and the fine-tuned model (1), as it was chosen.
        probe: the network with the probe that was fitted to all the images.
        epochs: over all the images, for an average that is worse than its models; fewer where time is short.

    Raises:
        Stopped, ImageError: as the loop does.
    """
    network = setup.target.network
    if len(models) == 1:
        network.load_state_dict(between(models[0].probe, models[0].tuned, coefficient))
        return True
    some = compared(setup.train)

    def loss(state: State) -> float:
        network.load_state_dict(state)
        logits = _evaluated(run, setup, some, "comparing the average", budget)
        return float(tempered_losses(np.nan_to_num(softmax(logits)), some.labels).mean())

    if run.any(not budget.fits((len(models) + 1) * len(some))):
        return None
    theirs = float(np.mean([loss(between(model.probe, model.tuned, coefficient)) for model in models]))
    average = mean_of([model.tuned for model in models])
    if loss(between(probe, average, coefficient)) <= theirs:
        return True
    ended = None
    if budget.limited:
        each, after = budget.pace.step * len(setup.train), budget.forwards(len(some) + budget.evaluated)
        affordable = partial(affordable_epochs, epochs, budget.left, lambda number: (number * each, after))
        epochs = decided(run, "fine-tuning-all", affordable)
        ended = budget.ending(after, 1)
    if not epochs:
        return None
    run.progress.say(f"average worse than its models: it learns from all pictures, {epochs} epoch{'s' * (epochs != 1)}")
    network.load_state_dict(average)
    recipe = replace(setup.recipe, epochs=epochs, learning_rate=models[0].learning_rate)
    stage = run.stage("fine-tuning-all")
    try:
        with stage_once(stage, network) as over:
            if not over:
                train(stage, replace(setup, recipe=recipe, validation=NO_IMAGES, ended=ended))
    except Diverged:
        return False
    return loss(between(probe, state_of(network), coefficient)) <= theirs


def compared(train: Split) -> Split:
    """The images, spread over all of them, that an average and its models are compared on."""
    return train.take(evenly_spaced(len(train), COMPARED))


def decoded_for(run: RunContext, setup: TrainingSetup, masks: Sequence[npt.NDArray[np.bool_]]) -> DecodedImages:
    """Room for every image that will be evaluated several times: those held out, and those an average is compared on.

    Args:
        masks: (N,) bool for each model, over the images of `setup.train`.
    """
    paths = [path for path, out in zip(setup.train.paths, np.any(masks, axis=0), strict=True) if out]
    more = compared(setup.train).paths if len(masks) > 1 else ()
    run.folder.stages.mkdir(parents=True, exist_ok=True)
    return DecodedImages((*paths, *more), setup.preprocessing, run.folder.stages, run.device)
