"""The ladder: probe, fine-tuning from the probe's head, a mixture of the two; each kept only where it is better.

What is compared are predictions of images that were held out: a fifth of them, or, where that is too few to tell two
models apart, every image once, held out from one of several models, which are averaged in the end. Everything is either
kept on disk or follows from it, so a run that is killed climbs again from the bottom, in seconds, up to where it was.

Source: fine-tuning from a probe: Kumar et al. 2022, arXiv:2202.10054. Mixing with it: Wortsman et al. 2022,
arXiv:2109.01903; averaging models of one origin: Wortsman et al. 2022, arXiv:2203.05482.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
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
    affordable_epochs,
    candidate_rates,
    epochs_for,
    folds_for,
    joint_epochs_for,
    measured_again,
    planned_fine_tuning,
    planned_probe,
    rates_for,
)
from relish.training.checkpoint import State, decided, state_of
from relish.training.finetune import HELD_OUT, FineTuned, decoded_for, fine_tune, join, set_head
from relish.training.linear_probe import CrossValidated
from relish.training.measure import Budget, run_computing
from relish.training.probe_stage import held_out_masks, probe_stage
from relish.training.scenes import accuracy_of, chosen_by
from relish.training.train import TrainingSetup

Keep = Callable[[Preprocessing, HeldOut], None]
"""Called whenever the network has become the best so far, to save it; with its preprocessing, and what it, or the
models it was made from, predict of images they were not trained on."""
Mask = npt.NDArray[np.bool_]


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
    setup = replace(setup, computing=run_computing(run, setup, _at_most(setup)))
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
    where = "in nested cross-validation" if setup.nested else "in cross-validation"
    if chosen_by(setup, setup.train).any():
        where = "on the validation split"
    run.progress.say(
        f"rung    probe: {accuracy.sentence()} {where}; "
        f"strength {found.strength:.2g}, pictures {setup.preprocessing.framing_words}"
    )
    if not any(event.get("rung") == "average" and event["kept"] for event in run.folder.records()):
        keep(setup.preprocessing, held_out)  # a run that is resumed may have a better one by now
    nested = {"nested_folds": folds} if folds else {}
    _record_rung(
        run, budget, "probe", **accuracy.as_json(), **nested, loss=found.loss, strength=found.strength,
        framing=setup.preprocessing.framing_words, views=found.views,
    )  # fmt: skip
    return setup, found, accuracy


def _at_most(setup: TrainingSetup) -> int:
    """How many images fine-tuning trains on where time is not short, each as often as it is."""
    images, recipe = len(setup.train), setup.recipe
    models = folds_for(images) + rates_for(images) - 1
    return images * models * (recipe.epochs or epochs_for(images, recipe.batch_size, len(setup.target.classes)))


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
    """One model of each fold that there is time for; none where one of them did not come to an end.

    The first fold's model is trained at every rate, and the better one sets the rate of the others.

    Args:
        probe: the network with the probe of all images.
    """
    held = [int(mask.sum()) for mask in masks]
    fitted_without = cache(lambda fold: found.fit(masks[fold]))  # the first fold's, at every rate
    rates = candidate_rates(setup.recipe.learning_rate, plan.rates)
    models: list[FineTuned] = []
    for fold, out in enumerate(masks):
        tried: list[FineTuned | None] = []
        for number, rate in enumerate(rates):
            name = f"fine-tuning-{fold + 1}" + "-slower" * number
            setup.target.network.load_state_dict(probe)  # whose pace is measured
            epochs, ended = _time_for(run, setup, budget, plan, name, _choices(held, fold, number, len(rates)))
            if not epochs:
                break
            fitted = fitted_without(fold)
            part = replace(
                setup, recipe=replace(setup.recipe, epochs=epochs, learning_rate=rate), ended=ended,
                train=setup.train.take(np.flatnonzero(~out)), validation=setup.train.take(np.flatnonzero(out)),
                validation_name=HELD_OUT, every_epoch=fold == 0,  # whose curves stand for the run's
            )  # fmt: skip
            tried.append(fine_tune(run.stage(name), part, probe, fitted, fitted.logits(found.plain[out]), budget))
        if not tried:  # for want of time
            break
        best = min(filter(None, tried), key=lambda model: model.best_loss, default=None)
        if best is None:
            models = []
            break
        models.append(best)
        if len(tried) > 1:
            run.progress.say(f"rate    {best.learning_rate:g} is the better one here")
        which = f"model {fold + 1} of {len(masks)}" if len(masks) > 1 else "model"
        right = f"{best.accuracy.correct} of {best.accuracy.count} held-out pictures right"
        run.progress.say(f"tuned   {which}: {right}")
        rates = (best.learning_rate,)
    if not models:
        run.progress.warn("fine-tuning is omitted.")
    return models


def _choices(held: list[int], fold: int, number: int, rates: int) -> list[Trainings]:
    """What may be trained from a fold's model at the rate of this number on, first what is wanted most.

    Args:
        held: images that are held out from each fold's model.
        rates: that the fold's model is trained at.
    """
    if fold:
        return [Trainings(held=held[fold:end], scored=0, models=end) for end in range(len(held), fold, -1)]
    left = rates - number
    wanted = Trainings(held=[held[0]] * left + held[1:], scored=left, models=len(held))
    fewer = [Trainings(held=held[:end], scored=1, models=end) for end in (len(held), 1)]
    return [wanted] if number else [wanted, *fewer]


def _time_for(
    run: RunContext, setup: TrainingSetup, budget: Budget, plan: FineTuningPlan, name: str, choices: Sequence[Trainings]
) -> tuple[int, Callable[[int, float], bool] | None]:
    """For how many epochs a model is trained now, and what ends it before.

    A choice that leaves half of the planned epochs comes before the next one. The first model of all is trained for
    fewer, too.

    Args:
        setup: with all the images; its network has to give numbers.
        name: of the model's stage.
        choices: what may be trained from this stage on, first what is wanted most.

    Returns:
        Epochs, 0 where there is no time for a training that is worth it; and what `TrainingSetup.ended` is then.
    """
    if not budget.limited:
        return plan.epochs, None
    measured_again(run, setup, budget)
    images, forward, step = len(setup.train), budget.forwards(1), budget.pace.step
    seconds = [
        partial(ahead.seconds, images=images, evaluated=budget.evaluated, forward=forward, step=step)
        for ahead in choices
    ]
    affordable = [affordable_epochs(plan.epochs, budget.left, one) for one in seconds]
    enough = [epochs for epochs in affordable if 2 * epochs >= plan.epochs]
    fewest = affordable[-1] if name == "fine-tuning-1" else 0
    epochs = decided(run, name, lambda: enough[0] if enough else fewest)
    if not epochs:
        run.progress.say("time    too short to train more")
        return 0, None
    if epochs < plan.epochs:
        run.progress.say(f"time    {epochs} epoch{'s' * (epochs != 1)} instead of {plan.epochs}: it has become short")
    chosen = next((number for number, most in enumerate(affordable) if most >= epochs), -1)
    _, after = seconds[chosen](epochs)
    return epochs, budget.ending(after, len(choices[chosen].held))


def _average_rung(
    run: RunContext, setup: TrainingSetup, budget: Budget, plan: FineTuningPlan, models: Sequence[FineTuned],
    probe: State, keep: Keep,
) -> bool:  # fmt: skip
    """Make one model of the fine-tuned ones, and keep it where it is better than the probe; whether it was kept."""
    coefficient, verdict = _chosen(models)
    words = "fine-tuned" if coefficient == 1 else f"average of probe and fine-tuned, {coefficient:g} of the way"
    run.progress.say(f"rung    {words}: {verdict.sentence()}")
    kept = verdict.better and join(run, setup, models, coefficient, probe, budget, joint_epochs_for(plan.epochs))
    if verdict.better and not kept:
        why = (
            "there is no time to compare the models' average with them"
            if kept is None
            else "the average of the models is worse than they are"
        )
        run.progress.warn(f"{why}, so the probe is kept after all.")
    if kept:
        labels = np.concatenate([model.held_out.labels for model in models])
        logits = np.concatenate([model.logits[coefficient] for model in models])
        contents = tuple(setup.sha256[path] for model in models for path in model.held_out.paths)
        keep(setup.preprocessing, HeldOut(labels, logits, contents))
    figures = {
        "probe_correct": verdict.right_before, "share": coefficient, "gain": verdict.gain, "error": verdict.error,
        "kept": bool(kept), "curves": models[0].stage, "learning_rate": models[0].learning_rate,
    }  # fmt: skip
    _record_rung(run, budget, "average", **Proportion(verdict.right, verdict.count).as_json(), **figures)
    run.progress.say(f"won     {words if kept else 'probe'}")
    return bool(kept)


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


def _record_rung(run: RunContext, budget: Budget, rung: str, **figures: Any) -> None:
    """A rung's figures, once: a run that is resumed meets its rungs again."""
    if run.is_main and not any(event.get("rung") == rung for event in run.folder.records()):
        told = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}
        seconds = time.monotonic() - budget.began
        run.record(event="rung", epoch=0, batch=0, rung=rung, seconds=seconds, **told)
