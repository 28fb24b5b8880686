"""The ladder: probe, fine-tuning from the probe's head, a mixture of the two; each kept only where it is better.

What is compared are predictions of images that were held out: a fifth of them, or, where that is too few to tell two
models apart, every image once, held out from one of several models, which are averaged in the end. Everything is either
kept on disk or follows from it, so a run that is killed climbs again from the bottom, in seconds, up to where it was.

Source: fine-tuning from a probe: Kumar et al. 2022, arXiv:2202.10054. Mixing with it: Wortsman et al. 2022,
arXiv:2109.01903; averaging models of one origin: Wortsman et al. 2022, arXiv:2203.05482.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.context import RunContext
from relish.data.loader import DecodedImages
from relish.data.transforms import Preprocessing
from relish.evaluation.held_out import HeldOut
from relish.evaluation.metrics import Proportion
from relish.evaluation.significance import Verdict, compare_losses, tempered_losses
from relish.models.freeze import freeze
from relish.training.budget import (
    COEFFICIENTS,
    FineTuningPlan,
    Trainings,
    candidate_rates,
    decided,
    folds_for,
    joint_epochs_for,
    measured_again,
    planned_fine_tuning,
    planned_probe,
)
from relish.training.checkpoint import State, state_of
from relish.training.finetune import HELD_OUT, FineTuned, decoded_for, fine_tune, join, set_head
from relish.training.linear_probe import CrossValidated
from relish.training.measure import Budget, run_precision
from relish.training.probe_stage import held_out_masks, probe_figures, probe_stage
from relish.training.scenes import accuracy_of, chosen_by
from relish.training.train import TrainingSetup

Keep = Callable[[Preprocessing, HeldOut], None]
"""Called whenever the network has become the best so far, to save it; with its preprocessing, and what it, or the
models it was made from, predict of images they were not trained on."""
Mask = npt.NDArray[np.bool_]
Tried = tuple[int, FineTuned | None]
"""A fold, and what became of a training without it; None where it did not come to an end."""
EpochsOf = Callable[[str, Sequence[Trainings]], tuple[Trainings, int]]
"""What there is time for from a stage on, of several choices, the first of which is wanted most; and the epochs."""
Ended = Callable[[int, float], bool]


def climb(
    run: RunContext, setup: TrainingSetup, budget: Budget, keep: Keep, target_accuracy: float | None = None
) -> tuple[str | None, DecodedImages | None]:
    """Climb as far as the recipe and the time go, and as each rung is better than the one below.

    Args:
        setup: `train` holds every image to train on; those in `validation` too are what rungs are chosen by.
        target_accuracy: on held-out images; a probe that reaches it is the last rung.

    Returns:
        The stage whose training curves stand for the run's, and the images that were decoded for evaluations; None
        where there was only the probe.

    Raises:
        ModelError: no probe can be trained for this network.
        Stopped, ImageError: as the loop does.
    """
    setup, found, accuracy = _probe_rung(run, setup, budget, keep)
    if _ends_at_probe(run, setup, accuracy, target_accuracy):
        return None, None
    network = setup.target.network
    probe = state_of(network)
    setup = replace(setup, precision=run_precision(run, setup))
    plan, masks = _planned(run, setup, budget)
    setup = replace(setup, decoded=decoded_for(run, setup, masks) if masks else None)
    models = _fine_tuned(run, setup, budget, plan, masks, found, probe)
    if not models or not _average_rung(run, setup, budget, plan, models, probe, keep):
        network.load_state_dict(probe)
    return models[0].stage if models else None, setup.decoded


def _probe_rung(
    run: RunContext, setup: TrainingSetup, budget: Budget, keep: Keep
) -> tuple[TrainingSetup, CrossValidated, Proportion]:
    """Solve for the probe and make it the network's head.

    Returns:
        The setup that it came to, the probe, and its accuracy on held-out images.
    """
    setup, found, held_out, folds = probe_stage(run, setup, planned_probe(run, setup, budget), budget)
    set_head(setup.target, found.fit())
    accuracy = accuracy_of(setup, held_out)
    where = f"in {'nested ' * setup.nested}cross-validation"
    where = "on the validation split" if chosen_by(setup, setup.train).any() else where
    run.progress.say(
        f"rung    probe: {accuracy.sentence()} {where}; "
        f"strength {found.strength:.2g}, pictures {setup.preprocessing.framing_words}"
    )
    if not _kept_before(run):  # a run that is resumed may have a better one by now
        keep(setup.preprocessing, held_out)
    _record_rung(run, budget, "probe", **probe_figures(setup, found, accuracy, folds))
    return setup, found, accuracy


def _ends_at_probe(run: RunContext, setup: TrainingSetup, accuracy: Proportion, target: float | None) -> bool:
    if setup.recipe.method == "probe" or setup.recipe.epochs == 0:
        return True
    if target is not None and accuracy.value >= target:
        run.progress.say(f"won     probe: it reaches {target:g} on held-out pictures, so there is no need to climb on")
        return True
    if setup.nested:
        run.progress.say("won     probe: with so few pictures fine-tuning is not tried (--val-split 0.2 tries it)")
    return setup.nested


def _planned(run: RunContext, setup: TrainingSetup, budget: Budget) -> tuple[FineTuningPlan, list[Mask]]:
    """What there is time for, and the images held out from each model; more layers are frozen where the plan says."""
    wanted, (alone,) = held_out_masks(run, setup, folds_for(len(setup.train))), held_out_masks(run, setup, 1)
    plan = planned_fine_tuning(run, setup, budget, folds=len(wanted), held_alone=int(alone.sum()))
    if plan.half_still:
        freeze(setup.target, "half")
    return plan, held_out_masks(run, setup, plan.folds)


def _fine_tuned(
    run: RunContext, setup: TrainingSetup, budget: Budget, plan: FineTuningPlan, masks: Sequence[Mask],
    found: CrossValidated, probe: State,
) -> list[FineTuned]:  # fmt: skip
    """One model of each fold, the best of its rates; none where time was too short, or one fold has none.

    Args:
        probe: the network with the probe of all images.
    """
    tried: list[Tried] = []
    fitted_without = cache(lambda fold: found.fit(masks[fold]))  # the first fold's, at every rate

    def epochs_of(name: str, choices: Sequence[Trainings]) -> tuple[Trainings, int]:
        setup.target.network.load_state_dict(probe)
        measured_again(run, setup, budget)
        return _affordable(run, plan, budget, len(setup.train), name, choices)

    rates = candidate_rates(setup.recipe.learning_rate, plan.rates)
    for name, fold, rate, ahead, epochs in _trainings(run, masks, rates, tried, epochs_of):
        _, after = plan.ahead(budget, len(setup.train), ahead, epochs)
        ended = budget.ending(after, len(ahead.held)) if budget.limited else None
        part, fitted = _without(setup, masks[fold], epochs, rate, ended), fitted_without(fold)
        part = replace(part, every_epoch=fold == 0)  # whose curves stand for the run's
        logits = fitted.logits(found.plain[masks[fold]])
        tried.append((fold, fine_tune(run.stage(name), part, probe, fitted, logits, budget)))
    return _chosen_of_each_fold(run, tried)


def _average_rung(
    run: RunContext, setup: TrainingSetup, budget: Budget, plan: FineTuningPlan, models: Sequence[FineTuned],
    probe: State, keep: Keep,
) -> bool:  # fmt: skip
    """Make one model of the fine-tuned ones, and keep it where it is better than the probe; whether it was kept."""
    coefficient, verdict = _chosen(models)
    words = "fine-tuned" if coefficient == 1 else f"average of probe and fine-tuned, {coefficient:g} of the way"
    run.progress.say(f"rung    {words}: {verdict.sentence()}")
    joint = _without(setup, None, joint_epochs_for(plan.epochs), models[0].learning_rate, None)
    kept = verdict.better and join(run, joint, models, coefficient, probe, budget)
    if verdict.better and not kept:
        why = (
            "there is no time to compare the models' average with them"
            if kept is None
            else "the average of the models is worse than they are"
        )
        run.progress.warn(f"{why}, so the probe is kept after all.")
    if kept:
        keep(setup.preprocessing, _tuned_held_out(setup, models, coefficient))
    figures = {
        "probe_correct": verdict.right_before, "share": coefficient, "gain": verdict.gain, "error": verdict.error,
        "kept": bool(kept), "curves": models[0].stage, "learning_rate": models[0].learning_rate,
    }  # fmt: skip
    _record_rung(run, budget, "average", **Proportion(verdict.right, verdict.count).as_json(), **figures)
    run.progress.say(f"won     {words if kept else 'probe'}")
    return bool(kept)


def _trainings(
    run: RunContext, masks: Sequence[Mask], rates: Sequence[float], tried: Sequence[Tried], epochs_of: EpochsOf
) -> Iterator[tuple[str, int, float, Trainings, int]]:
    """Stage, fold and learning rate of each training, what is still to be trained from it on, and for how many epochs.

    The first fold's model is trained at every rate, and the better one sets the rate of the others. What there is no
    time for any more is omitted.

    Args:
        tried: grows by what became of each training before the next one is asked for.
    """
    held: list[int] = [int(mask.sum()) for mask in masks]
    count = len(masks)
    for number, rate in enumerate(rates if count else ()):
        left = len(rates) - number
        choices = [Trainings(held=[held[0]] * left + held[1:], scored=left, models=count)]
        if number == 0:
            choices += [Trainings(held=held, scored=1, models=count), Trainings(held=held[:1], scored=1, models=1)]
        name = "fine-tuning-1" + "-slower" * number
        ahead, epochs = epochs_of(name, choices)
        if not epochs:
            break
        yield name, 0, rate, ahead, epochs
    best = _best(tried, 0)
    if best is None:
        return
    if len(tried) > 1:
        run.progress.say(f"rate    {best.learning_rate:g} is the better one here")
    run.progress.say(_tuned_words(best, 1, count))
    for fold in range(1, count):
        name = f"fine-tuning-{fold + 1}"
        choices = [Trainings(held=held[fold:end], scored=0, models=end) for end in range(count, fold, -1)]
        ahead, epochs = epochs_of(name, choices)
        if not epochs:
            return
        yield name, fold, best.learning_rate, ahead, epochs
        if (model := tried[-1][1]) is None:
            return
        run.progress.say(_tuned_words(model, fold + 1, count))


def _affordable(
    run: RunContext, plan: FineTuningPlan, budget: Budget, images: int, name: str, choices: Sequence[Trainings]
) -> tuple[Trainings, int]:
    """What to train from this stage on, and for how many epochs; 0 where there is no time for the stage any more.

    A choice that leaves half of the planned epochs comes before the next one. The first model of all is trained for
    fewer, too.
    """
    if not budget.limited:
        return choices[0], plan.epochs
    affordable = [plan.epochs_now(budget, images, ahead) for ahead in choices]
    enough = [epochs for epochs in affordable if 2 * epochs >= plan.epochs]
    fewest = affordable[-1] if name == "fine-tuning-1" else 0
    epochs = decided(run, name, lambda: enough[0] if enough else fewest)
    if 0 < epochs < plan.epochs:
        run.progress.say(f"time    {epochs} epoch{'s' * (epochs != 1)} instead of {plan.epochs}: it has become short")
    elif not epochs:
        run.progress.say("time    too short to train more")
    fitting = (ahead for ahead, most in zip(choices, affordable, strict=True) if most >= epochs)
    return next(fitting, choices[-1]), epochs


def _chosen_of_each_fold(run: RunContext, tried: Sequence[Tried]) -> list[FineTuned]:
    """One model of each fold that was trained without; none where one of these has none."""
    folds = sorted({fold for fold, _ in tried})
    models = [model for fold in folds if (model := _best(tried, fold)) is not None]
    if not models or len(models) < len(folds):
        run.progress.warn("fine-tuning is omitted.")
        return []
    return models


def _best(tried: Sequence[Tried], fold: int) -> FineTuned | None:
    """The fold's model with the smallest loss on what was held out; None where none was trained to its end."""
    models = (model for which, model in tried if which == fold and model is not None)
    return min(models, key=lambda model: model.best_loss, default=None)


def _tuned_words(model: FineTuned, number: int, models: int) -> str:
    which = f"tuned   model {number} of {models}" if models > 1 else "tuned   model"
    return f"{which}: {model.accuracy.correct} of {model.accuracy.count} held-out pictures right"


def _without(setup: TrainingSetup, out: Mask | None, epochs: int, rate: float, ended: Ended | None) -> TrainingSetup:
    """Training on all images but those held out, which it is validated on."""
    recipe = replace(setup.recipe, epochs=epochs, learning_rate=rate)
    out = np.zeros(len(setup.train), dtype=np.bool_) if out is None else out
    return replace(
        setup, recipe=recipe, train=setup.train.take(np.flatnonzero(~out)), ended=ended,
        validation=setup.train.take(np.flatnonzero(out)), validation_name=HELD_OUT,
    )  # fmt: skip


def _tuned_held_out(setup: TrainingSetup, models: Sequence[FineTuned], coefficient: float) -> HeldOut:
    return HeldOut(
        np.concatenate([model.held_out.labels for model in models]),
        np.concatenate([model.logits[coefficient] for model in models]),
        tuple(setup.sha256[path] for model in models for path in model.held_out.paths),
    )


def _chosen(models: Sequence[FineTuned]) -> tuple[float, Verdict]:
    """The coefficient with the smallest loss on the images held out, and how that mixture compares with the probe."""
    labels = np.concatenate([model.held_out.labels for model in models])
    known = [c for c in COEFFICIENTS if all(c in model.logits for model in models)]  # there was time for
    mixed = {c: np.concatenate([model.probabilities(c) for model in models]) for c in (0.0, *known)}
    # A model whose numbers are not finite predicts nothing.
    mixed = {coefficient: np.nan_to_num(found) for coefficient, found in mixed.items()}
    correct = {coefficient: int((found.argmax(1) == labels).sum()) for coefficient, found in mixed.items()}
    # One that is correct less often than the probe cannot win, however small its loss.
    fit = [coefficient for coefficient in known if correct[coefficient] >= correct[0.0]] or known
    best = min(fit, key=lambda coefficient: float(tempered_losses(mixed[coefficient], labels).mean()))
    return best, compare_losses(mixed[best], mixed[0.0], labels)


def _kept_before(run: RunContext) -> bool:
    """Whether an earlier start kept a model above the probe."""
    events = run.folder.records()
    return any(event["event"] == "rung" and event["rung"] == "average" and event["kept"] for event in events)


def _record_rung(run: RunContext, budget: Budget, rung: str, **figures: Any) -> None:
    """A rung's figures, once: a run that is resumed meets its rungs again."""
    if run.is_main and not any(event.get("rung") == rung for event in run.folder.records()):
        told = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}
        seconds = time.monotonic() - budget.began
        run.record(event="rung", epoch=0, batch=0, rung=rung, seconds=seconds, **told)
