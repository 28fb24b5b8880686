"""The probe of a folder that changes under one's hands: solved again from where it was, and how good it is.

Every figure is of images held out: by cross-validation in folds that stay as they are while images come and go, so that
a fold's solution is a start for its next one and never one that knew an image it is asked about.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relish.core.errors import RelishError
from relish.data.transforms import Preprocessing
from relish.evaluation.grouped import group_numbers, proportion
from relish.evaluation.held_out import fit_temperature
from relish.evaluation.metrics import Proportion, wilson
from relish.evaluation.prediction import Decision, softmax
from relish.evaluation.thresholds import choose_unsure
from relish.evaluation.unfamiliarity import Unfamiliarity, fit_unfamiliarity
from relish.models.source import SourceModel
from relish.models.target import make_target
from relish.tasks.classifier import Classifier
from relish.training.linear_probe import ROUGH_GAIN, Floats, Labels, Probe, Problem, cross_validate, in_few_threads

FOLDS = 5
FEWEST = 3
"""Different images that a class needs before it is learned: two to learn from, one to look at."""
FIRST_STRENGTH = 0.01
"""Of the penalty, until one has been chosen."""
PARTS = (0.25, 0.5)
"""Of the images to learn from, for the learning curve; all of them are its last point."""
SURE = 0.95
"""Of the answers that are given, so many should be right: below, the page says that it is unsure."""
NARROW = 0.04
"""Width of an interval that is narrow enough: no more images are asked for."""
_STEEPEST = 1.0
"""The largest power of a learning curve; steeper ones come of chance with few images."""
_EACH = (2, 3, 5, 8, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000)
"""Images a class that are proposed."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Images to learn from, of classes that have enough."""

    classes: tuple[str, ...]
    contents: tuple[str, ...]
    """SHA-256 of each image."""
    labels: Labels
    """(N,) int64."""
    units: tuple[str, ...]
    """N keys; images of one key are held out together."""
    features: Floats
    """(N, D) float32."""

    @cached_property
    def key(self) -> int:
        """Equal for the same images with the same labels."""
        return hash((self.classes, self.contents, self.labels.tobytes(), self.units))


@dataclass(frozen=True, eq=False)
class Solved:
    """The probe of some examples, and its answers of each by one that had not seen it."""

    examples: Examples
    probe: Probe
    strength: float
    logits: Floats
    """(N, K) float32, of images held out."""
    fold_of: Mapping[str, int]
    """Unit to fold."""
    places: tuple[Tensor, ...]
    """Solutions of each fold, then that of all images: (K, D + 1)."""
    seconds: float

    @cached_property
    def temperature(self) -> float:
        """That brings the probabilities to what they should be."""
        return fit_temperature(self.logits, self.examples.labels)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(N, K) of images held out."""
        return softmax(self.logits, self.temperature)

    def answers(self, features: Floats) -> npt.NDArray[np.float64]:
        """(N, K) probabilities of (N, D) other images, by the probe of all."""
        return softmax(self.probe.logits(features), self.temperature)

    @cached_property
    def predicted(self) -> Labels:
        """(N,) int64."""
        likeliest: Labels = self.logits.argmax(1).astype(np.int64)
        return likeliest

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(N,) bool."""
        right: npt.NDArray[np.bool_] = self.predicted == self.examples.labels
        return right

    @cached_property
    def accuracy(self) -> Proportion:
        """Of all images, with the interval that their units allow."""
        return proportion(self.right, group_numbers(self.examples.units))

    @cached_property
    def per_class(self) -> dict[str, Proportion]:
        """The accuracy on the images of each class."""
        groups, found = group_numbers(self.examples.units), dict[str, Proportion]()
        for label, name in enumerate(self.examples.classes):
            some = self.examples.labels == label
            found[name] = proportion(self.right[some], None if groups is None else groups[some])
        return found

    @cached_property
    def confused(self) -> list[dict[str, Any]]:
        """How often one class is taken for another, most often first."""
        names, wrong = self.examples.classes, ~self.right
        pairs = np.stack([self.examples.labels[wrong], self.predicted[wrong]], axis=1)
        found, counts = np.unique(pairs, axis=0, return_counts=True)
        rows = sorted(zip(counts.tolist(), found.tolist(), strict=True), key=lambda row: (-row[0], row[1]))
        return [{"class": names[given], "as": names[said], "count": count} for count, (given, said) in rows]


def dealt_folds(units: Sequence[str], labels: Labels, before: Mapping[str, int]) -> dict[str, int]:
    """Unit to fold: as before for those that have one, the others where their class has the fewest images."""
    label_of = dict(zip(reversed(units), reversed(labels.tolist()), strict=True))
    fold_of = {unit: before[unit] for unit in label_of if unit in before}
    sizes = np.zeros((int(labels.max(initial=0)) + 1, FOLDS), dtype=np.int64)
    for unit, fold in fold_of.items():
        sizes[label_of[unit], fold] += 1
    for unit in sorted(label_of.keys() - fold_of.keys()):
        label = label_of[unit]
        fold = min(range(FOLDS), key=lambda one: (sizes[label, one], sizes[:, one].sum(), one))
        fold_of[unit] = fold
        sizes[label, fold] += 1
    return fold_of


def solve(examples: Examples, before: Solved | None = None, *, strength: float | None = None, bias: bool) -> Solved:
    """The probe of these examples.

    Args:
        before: where to start from, and which folds to keep; classes are matched by name.
        strength: of the penalty; None: as before.
        bias: whether the output layer has one.
    """
    return _solve(examples.features, examples, before, strength, bias)


@in_few_threads
def _solve(_: Floats, examples: Examples, before: Solved | None, strength: float | None, bias: bool) -> Solved:
    began = time.monotonic()
    chosen = strength or (before.strength if before else FIRST_STRENGTH)
    fold_of = dealt_folds(examples.units, examples.labels, before.fold_of if before else {})
    folds = torch.tensor([fold_of[unit] for unit in examples.units])
    problem = Problem(examples.features, examples.labels, len(examples.classes), bias=bias)
    starts = _starts(examples, before, problem)
    places, logits = [], torch.zeros(len(folds), len(examples.classes))
    for fold in range(FOLDS):
        out = folds == fold
        places.append(problem.solve(chosen, starts[fold], ~out, ROUGH_GAIN) if not out.all() else starts[fold])
        logits[out] = problem.scores(places[fold], out.nonzero().squeeze(1))
    places.append(problem.solve(chosen, starts[FOLDS], None, ROUGH_GAIN))
    probe = problem.probe(places[FOLDS], chosen)
    return Solved(examples, probe, chosen, logits.numpy(), fold_of, tuple(places), seconds=time.monotonic() - began)


def _starts(examples: Examples, before: Solved | None, problem: Problem) -> list[Tensor]:
    """Where each solution begins: the rows of the classes that were known, zeros for the others."""
    width = problem.features.shape[1] + 1
    starts = [torch.zeros(len(examples.classes), width, dtype=torch.float64) for _ in range(FOLDS + 1)]
    if before is None or before.places[0].shape[1] != width:
        return starts
    known = {name: row for row, name in enumerate(before.examples.classes)}
    for start, place in zip(starts, before.places, strict=True):
        for row, name in enumerate(examples.classes):
            if name in known:
                start[row] = place[known[name]]
    return starts


def chosen_strength(solved: Solved, bias: bool) -> float:
    """The strength with the smallest held-out loss on these examples, in the same folds."""
    examples = solved.examples
    folds = np.array([solved.fold_of[unit] for unit in examples.units], dtype=np.int64)
    return cross_validate(examples.features, examples.labels, len(examples.classes), folds, bias=bias).strength


def as_classifier(solved: Solved, preprocessing: Preprocessing, source: SourceModel) -> Classifier:
    """The probe of all images on its network, as a classifier that says what it is unsure of.

    Args:
        preprocessing: of the images that it learned from.
    """
    target = make_target(source, solved.examples.classes, seed=0)
    (head,) = target.heads
    head.weight.data.copy_(head.weight.data.new_tensor(solved.probe.weight))
    if head.bias is not None:
        head.bias.data.copy_(head.bias.data.new_tensor(solved.probe.bias))
    confidence = solved.probabilities.max(1)
    unfamiliar: Unfamiliarity | None = None
    decision = Decision(
        temperature=solved.temperature,
        unsure_below=choose_unsure(confidence, solved.right, SURE),
        fitted_on=len(confidence),
    )
    try:
        unfamiliar, limit = fit_unfamiliarity(solved.examples.features, solved.examples.units)
        decision = replace(decision, unknown_above=limit.above)
    except RelishError:
        pass  # all of one series: nothing can be called strange
    return Classifier(
        target.network, solved.examples.classes, preprocessing, source=source.name, decision=decision,
        heads=target.head_names, unfamiliarity=unfamiliar,
    )  # fmt: skip


# ---- what more images would bring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearningCurve:
    """The error rate with n images to learn from, scale * n ** -power.

    Source: Cortes et al. 1993, Learning curves: asymptotic values and rate of convergence, NIPS 6; fitted by weighted
        least squares as in Figueroa et al. 2012, Predicting sample size required for classification performance, BMC
        Medical Informatics and Decision Making 12:8. The asymptote is taken as 0: so few points do not tell it.
    """

    scale: float
    power: float

    def accuracy(self, images: float) -> float:
        """With so many images to learn from, 0 to 1."""
        return float(np.clip(1 - self.scale * images**-self.power, 0, 1))


def fitted_curve(sizes: Sequence[float], errors: Sequence[float], counts: Sequence[int]) -> LearningCurve:
    """The curve through error rates, each of so many images held out, after learning from so many."""
    n, error = np.array(sizes, dtype=np.float64), np.array(errors, dtype=np.float64)
    smoothed = (error * counts + 0.5) / (np.array(counts) + 1)
    weights = np.array(counts) / (smoothed * (1 - smoothed))
    best = (np.inf, 0.0, 0.0)
    for power in np.linspace(0, _STEEPEST, 101):
        shape = n**-power
        scale = float((weights * shape * smoothed).sum() / (weights * shape**2).sum())
        misfit = float((weights * (smoothed - scale * shape) ** 2).sum())
        best = min(best, (misfit, scale, float(power)))
    return LearningCurve(best[1], best[2])


def measured_curve(solved: Solved, bias: bool) -> LearningCurve:
    """The learning curve of these examples, by learning from parts of them, in the same folds."""
    return _measured(solved.examples.features, solved, bias)


@in_few_threads
def _measured(_: Floats, solved: Solved, bias: bool) -> LearningCurve:
    examples = solved.examples
    folds = torch.tensor([solved.fold_of[unit] for unit in examples.units])
    rank = torch.from_numpy(_ranks(examples))
    problem = Problem(examples.features, examples.labels, len(examples.classes), bias=bias)
    labels, learned = torch.from_numpy(examples.labels), len(folds) * (FOLDS - 1) / FOLDS
    sizes, errors = [learned], [1 - solved.accuracy.value]
    for part in PARTS:
        wrong = 0
        for fold in range(FOLDS):
            out, rows = folds == fold, (folds != fold) & (rank < part)
            if rows.any() and out.any():
                at = problem.solve(solved.strength, solved.places[fold], rows, ROUGH_GAIN)
                wrong += int((problem.scores(at, out.nonzero().squeeze(1)).argmax(1) != labels[out]).sum())
        sizes.append(learned * part)
        errors.append(wrong / len(folds))
    return fitted_curve(sizes, errors, [len(folds)] * len(sizes))


def _ranks(examples: Examples) -> npt.NDArray[np.float64]:
    """(N,) 0 to below 1: the place of each image's unit among those of its class, in the order of their keys."""
    ranks = np.zeros(len(examples.units))
    for label in np.unique(examples.labels):
        rows = np.flatnonzero(examples.labels == label)
        order = {unit: place for place, unit in enumerate(sorted({examples.units[row] for row in rows}))}
        ranks[rows] = [order[examples.units[row]] / len(order) for row in rows]
    return ranks


def advice(accuracy: Proportion, curve: LearningCurve, each: float) -> dict[str, Any] | None:
    """What more images would bring: the fewest a class with which the interval is half as wide; None if none are asked.

    Args:
        each: images a class that there are now, on average.
    """
    low, high = accuracy.interval
    count = accuracy.count if accuracy.effective is None else accuracy.effective
    learned = accuracy.count * (FOLDS - 1) / FOLDS
    for wanted in _EACH if high - low > NARROW else ():
        times = wanted / each
        value = max(curve.accuracy(learned * times), accuracy.value) if times > 1 else 0
        then_low, then_high = wilson(value * count * times, count * times)
        if times > 1 and then_high - then_low <= (high - low) / 2:
            ends = {"value": value, "low": then_low, "high": then_high}
            return {
                "now_each": round(each), "each": wanted, **ends, "now_width": high - low,
                "then_width": then_high - then_low,
            }  # fmt: skip
    return None
