"""What is left of a budget is planned from what passes take now, whatever else the machine does."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from relish.core.context import Context
from relish.core.run_folder import RunFolder
from relish.data.dataset import Split
from relish.evaluation.metrics import Proportion
from relish.training import auto, finetune, measure
from relish.training.budget import COEFFICIENTS, COMPARED, joint_epochs_for, plan_fine_tuning
from relish.training.checkpoint import decided
from relish.training.measure import Budget, Pace
from relish.training.recipe import named_recipe
from relish.training.train import TrainingSetup


class Clock:
    """Time that passes by being told to; work takes as many times as long as the machine's load says."""

    def __init__(self, load):
        self.now, self.load = 0.0, load

    def work(self, seconds):
        took = seconds * self.load(self.now)
        self.now += took
        return took


@pytest.fixture
def clock_of(monkeypatch):
    """A clock that budgets go by, from how many times as long work takes at each moment."""

    def made(load):
        clock = Clock(load)
        monkeypatch.setattr(measure, "time", SimpleNamespace(monotonic=lambda: clock.now))
        return clock

    return made


# ---- the pace -------------------------------------------------------------------------------------------------------


def test_passes_that_take_as_long_as_ever_change_nothing():
    found = Pace(forward=0.01)
    for _ in range(50):
        found.took("evaluation", 64, 0.64)
        found.trained(32, 1.0)
    assert found.load == pytest.approx(1)
    assert found.step == pytest.approx(1 / 32)


def test_passes_that_take_three_times_as_long_are_known_within_seconds_whatever_kind_comes_next():
    found = Pace(forward=0.01)
    found.trained(32, 1.0)
    for _ in range(5):
        found.trained(32, 3.0)
    assert found.load == pytest.approx(3, rel=0.1)
    assert found.step == pytest.approx(3 / 32, rel=0.1)
    found.took("evaluation", 100, 30.0)  # the first of its kind says nothing against it
    assert found.load == pytest.approx(3, rel=0.1)
    for _ in range(5):
        found.took("evaluation", 100, 10.0)
    assert found.load == pytest.approx(1, rel=0.1)


def test_what_is_measured_again_is_the_pace_of_now():
    found = Pace(forward=0.01, load=4.0)
    found.measured(0.03)
    assert (found.forward, found.load) == (0.03, 1.0)


def test_the_first_step_which_warms_up_does_not_make_the_machine_seem_fast():
    found = Pace(forward=0.01)
    for seconds in (3.0, 1.0, 1.0, 1.0):
        found.trained(32, seconds)
    assert found.load == pytest.approx(1)


# ---- a budget -------------------------------------------------------------------------------------------------------


def test_without_a_budget_there_is_time_for_everything():
    assert Budget().fits(10**9)
    assert not Budget().limited


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_training_that_becomes_slower_ends_earlier_since_what_follows_will_be_slower_too(clock_of, times):
    clock = clock_of(lambda now: times if now > 50 else 1)
    budget = Budget(seconds=200, evaluated=0)
    ended = budget.ending(after=40.0, trainings=1)
    while not ended(32, clock.work(1.0)):
        pass
    clock.work(40.0)
    assert 0.85 * 200 < clock.now < 1.05 * 200


def test_what_was_decided_of_a_stage_holds_when_the_run_is_resumed(tmp_path):
    run = Context.on("cpu").in_run(RunFolder(tmp_path), 0)
    assert decided(run, "fine-tuning-2", lambda: 3) == 3
    assert decided(run, "fine-tuning-2", lambda: 7) == 3


IMAGES, EVALUATED, FORWARD, STEP = 2000, 800, 0.015, 0.04
LOADS = {
    "alone": lambda now: 1.0,
    "loaded all the time": lambda now: 2.5,
    "loaded from the middle on": lambda now: 1.0 if now < 400 else 3.0,
    "loaded near the end": lambda now: 1.0 if now < 700 else 2.0,
    "loaded at first": lambda now: 3.0 if now < 300 else 1.0,
    "by fits and starts": lambda now: 3.0 if now % 20 < 10 else 1.0,
}


@pytest.mark.parametrize("load", LOADS)
def test_a_climb_ends_within_a_tenth_of_its_budget_and_uses_it(clock_of, tmp_path, monkeypatch, load):
    """The ladder's own order and decisions from the probe on, with passes that only take time."""
    clock = clock_of(LOADS[load])
    budget = Budget(seconds=900, evaluated=EVALUATED)
    run = Context.on("cpu").in_run(RunFolder(tmp_path), 0)

    def measured(*_):
        budget.pace.measured(clock.work(32 * FORWARD) / 32)

    clock.work(100.0)  # the probe
    measured()
    step = clock.work(32 * STEP) / 32
    plan = plan_fine_tuning(
        images=IMAGES, evaluated=EVALUATED, classes=2, folds=3, held_alone=IMAGES // 5, rates=2, batch_size=32,
        epochs=None, forward=budget.forwards(1), step=step, half_step=None, left=budget.left,
    )  # fmt: skip
    budget.pace.step = plan.step
    masks = [np.arange(IMAGES) % plan.folds == fold for fold in range(plan.folds)] if plan.folds > 1 else []
    masks = masks or [np.arange(IMAGES) % 5 == 0]
    every = Split(tuple(map(Path, map(str, range(IMAGES)))), np.zeros(IMAGES, dtype=np.int64))
    setup = TrainingSetup(
        target=SimpleNamespace(network=torch.nn.Identity()), recipe=named_recipe("auto"), preprocessing=None,
        train=every, validation=every.take([]),
    )  # fmt: skip

    def evaluated(count):
        budget.pace.took("evaluation", count, clock.work(0.9 * count * FORWARD))

    def fine_tuned(_, part, *__):
        held = len(part.validation)
        trained(clock, part, lambda: evaluated(held if part.every_epoch else 0))
        known = [evaluated(held) or 1 for _ in COEFFICIENTS if budget.fits(held)]
        model = SimpleNamespace(
            best_loss=1.0, learning_rate=part.recipe.rate, accuracy=Proportion(1, 2), probe={}, tuned={}
        )
        return model if known else None

    compared = []

    def worse_together(*_):
        evaluated(COMPARED)
        compared.append(1)
        return np.zeros((COMPARED, 2)) if len(compared) <= len(models) else np.full((COMPARED, 2), [0.0, 9.0])

    monkeypatch.setattr(auto, "measured_again", measured)
    monkeypatch.setattr(auto, "fine_tune", fine_tuned)
    monkeypatch.setattr(finetune, "_evaluated", worse_together)
    monkeypatch.setattr(finetune, "train", lambda _, part: trained(clock, part, lambda: None))
    found = SimpleNamespace(fit=lambda _: SimpleNamespace(logits=lambda _: None), plain=np.zeros((IMAGES, 1)))
    models = auto._fine_tuned(run, setup, budget, plan, masks, found, {})
    finetune.join(run, setup, models, 1.0, {}, budget, joint_epochs_for(plan.epochs))
    clock.work(EVALUATED * FORWARD + measure.ENDING)
    assert clock.now < 1.1 * 900
    assert models, "there is time for a model"


def trained(clock, part, scored):
    for _ in range(part.recipe.passes):
        for _ in range(len(part.train) // 32):
            if part.ended(32, clock.work(32 * STEP)):
                return
        scored()
