"""The first rung of the ladder: how images are framed, and a linear probe on the features of the frozen backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.context import RunContext
from relish.core.errors import DataError
from relish.data.dataset import Split
from relish.data.loader import View
from relish.data.split import stratified_folds, stratified_sample, usable_folds
from relish.data.transforms import Preprocessing, book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.prediction import softmax
from relish.evaluation.significance import compare_losses
from relish.training.budget import HELD_SHARE, ProbePlan, framed_on
from relish.training.linear_probe import CrossValidated, cross_validate
from relish.training.train import TrainingSetup

FOLDS = 5
"""Of the cross-validation that strengths and framings are chosen by."""
NEARLY_SQUARE = 1.05
"""Where the longer side is at most this times the shorter one in every image, framings hardly differ."""


def probe_stage(run: RunContext, setup: TrainingSetup, plan: ProbePlan) -> tuple[TrainingSetup, CrossValidated]:
    """Choose the framing, compute features, choose the strength of the penalty.

    Args:
        setup: `train` holds every image to train on.

    Returns:
        The setup with the chosen preprocessing and the images that were used; the probe.

    Raises:
        DataError: no image can be held out from its class.
        ModelError: no probe can be trained for this network.
        ImageError: an image cannot be opened any more.
    """
    probing = _Probing(run, setup)
    train = probing.sample(setup.train, plan.images)
    asked = setup.preprocessing
    preprocessing = book_preprocessing(plan.image_size, asked.mean, asked.std, asked.value_range)
    if plan.framings:
        preprocessing = _framed(probing, train, preprocessing)
    views = [View(preprocessing, view) for view in range(plan.views)]
    words = preprocessing.framing_words + (f", {len(views)} views" if len(views) > 1 else "")
    plain, *others = probing.features(train, views, words)
    found = probing.cross_validated(train, plain)
    if others:
        again = probing.cross_validated(train, np.concatenate([plain, *others]))
        found = again if again.loss < found.loss else found
    return replace(setup, train=train, preprocessing=preprocessing), found


def framings(book: Preprocessing) -> tuple[Preprocessing, ...]:
    """Every way of fitting an image to the square that is tried, the book's own first."""
    whole = replace(book, resize=book.image_size)
    return book, replace(book, framing="crop"), whole, replace(whole, framing="letterbox")


def held_out_masks(run: RunContext, setup: TrainingSetup, models: int) -> list[npt.NDArray[np.bool_]]:
    """The images held out from each of so many models, or of fewer where classes are too small for that many.

    Args:
        setup: `train` holds N images; those of them that are in `validation` too are what to choose by.
        models: none, one, or several, each of which is evaluated on images of its own.

    Returns:
        (N,) bool for each. Where `validation` says what to choose by, that, of one model, without images that share a
        unit with another one.
    """
    if not models:
        return []
    train, given = setup.train, frozenset(setup.validation.paths)
    units = [setup.units[path] for path in train.paths]
    others = {unit for unit, path in zip(units, train.paths, strict=True) if path not in given}
    own = np.array([unit not in others for unit in units])
    if own.any() and not own.all():
        return [own]
    count = usable_folds(train.labels, units, models if models > 1 else round(1 / HELD_SHARE))
    fold_of = stratified_folds(train.labels, units, count, run.seed)
    masks = [fold_of == number for number in range(min(count, models))]
    return [mask for mask in masks if mask.any()]


def probe_figures(setup: TrainingSetup, found: CrossValidated) -> dict[str, Any]:
    """The probe's figures for `metrics.jsonl`."""
    return {
        **found.accuracy.as_json(),
        "loss": found.loss,
        "strength": found.strength,
        "framing": setup.preprocessing.framing_words,
        "views": found.views,
    }


class _Probing:
    """A backbone, and the run that its features are computed in."""

    def __init__(self, run: RunContext, setup: TrainingSetup) -> None:
        self.run, self.setup = run, setup
        self.backbone = Backbone.of(setup.target, run.device)

    def features(self, split: Split, views: Sequence[View], words: str) -> list[Features]:
        """(N, D) float32 for each view."""
        return features_of(self.backbone, split, views, self.setup.sha256, self.run, title=f"features ({words})")

    def cross_validated(self, split: Split, features: Features) -> CrossValidated:
        """The probe on these features, (V * N, D): every view of every image."""
        folds = self.folds(split)
        if not _any_held(folds):
            raise DataError(
                "no class has two different pictures to learn from, besides those held back to measure on.",
                hint="Copies of a picture count as one, so do those of a group. Add others, or take --recipe book.",
            )
        return cross_validate(
            features, np.tile(split.labels, len(features) // len(split)), len(self.setup.target.classes), folds,
            bias=self.backbone.head.bias is not None, balance=self.setup.recipe.balance,
        )  # fmt: skip

    def folds(self, split: Split) -> npt.NDArray[np.int64]:
        """(N,) int64: the fold each image is held out with, below 0 for none."""
        units = [self.setup.units[path] for path in split.paths]
        return stratified_folds(split.labels, units, usable_folds(split.labels, units, FOLDS), self.run.seed)

    def sample(self, split: Split, count: int) -> Split:
        """So many images at most, each class in its share."""
        contents = [self.setup.sha256[path] for path in split.paths]
        return split.take(stratified_sample(split.labels, contents, count, self.run.seed))


def _framed(probing: _Probing, train: Split, book: Preprocessing) -> Preprocessing:
    """The framing whose probe is better than the book's, and than those before it; else the book's."""
    some = probing.sample(train, framed_on(len(train), len(probing.setup.target.classes)))
    if _nearly_square(some, probing.setup.sizes) or not _any_held(probing.folds(some)):
        return book
    best, standing, tried = book, None, framings(book)
    views = [View(preprocessing) for preprocessing in tried]
    for preprocessing, features in zip(tried, probing.features(some, views, "framings"), strict=True):
        found = probing.cross_validated(some, features)
        probabilities = softmax(found.logits)
        if standing is None or compare_losses(probabilities, standing, some.labels[found.held]).better:
            best, standing = preprocessing, probabilities
    return best


def _any_held(folds: npt.NDArray[np.int64]) -> bool:
    return bool((folds >= 0).any())


def _nearly_square(split: Split, sizes: Mapping[Path, tuple[int, int]]) -> bool:
    return all(max(sizes[path]) <= NEARLY_SQUARE * min(sizes[path]) for path in split.paths)
