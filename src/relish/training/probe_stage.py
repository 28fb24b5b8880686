"""The first rung of the ladder: how images are framed, and a linear probe on the features of the frozen backbone.

With few images the whole choice, of framing, views and strength, is made anew within each fold of an outer
cross-validation: what it comes to is evaluated on images that neither a probe nor its choices knew.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.context import RunContext
from relish.core.errors import DataError
from relish.data.dataset import Split
from relish.data.loader import View
from relish.data.split import NEVER, stratified_folds, stratified_sample, usable_folds
from relish.data.survey import Survey
from relish.data.transforms import Preprocessing, book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.held_out import HeldOut
from relish.evaluation.prediction import softmax
from relish.evaluation.series import Series
from relish.evaluation.significance import compare_losses
from relish.training.budget import FEWEST, FRAMINGS, HELD_SHARE, OUTER_FOLDS, ProbePlan, framed_on
from relish.training.checkpoint import decided
from relish.training.linear_probe import STRENGTHS, CrossValidated, Labels, cross_validate
from relish.training.measure import Budget
from relish.training.recipe import Recipe
from relish.training.scenes import (
    accuracy_on,
    chosen_by,
    groups_of,
    keep_series_together,
    looked_up,
    say_series,
    warn_of_shared_scenes,
    warn_where_apart,
)
from relish.training.train import TrainingSetup

FOLDS = 5
"""Of the cross-validation that strengths and framings are chosen by."""
FEW = 150
"""Where a dataset brings nothing to score on and has this many images or fewer, all are trained on and the figure comes
from nested cross-validation: a fifth of them, fewer than 30, would say next to nothing (docs/evaluating.md)."""
CHOICES_LEAVE = 0.3
"""Share of a budget that comparing framings, and further views, leave for what comes after them."""
PARTS = (4, 2, 1)
"""With a budget, features are computed of a quarter of the images first, of half, of all: the first show the pace."""
NEARLY_SQUARE = 1.05
"""Where the longer side is at most this times the shorter one in every image, framings hardly differ."""


def probe_stage(
    run: RunContext, setup: TrainingSetup, plan: ProbePlan, budget: Budget
) -> tuple[TrainingSetup, CrossValidated, HeldOut, int]:
    """Choose the framing, compute features, choose the strength of the penalty.

    What there is no time for any more, at the pace of what has just run, is omitted, framings and views before images.

    Args:
        setup: `train` holds every image to train on.

    Returns:
        The setup with the chosen preprocessing and the images that were used; the probe; logits of the images held
        out in cross-validation, with `setup.nested` those of nested cross-validation, of every image; and into how many
        folds that was, else 0.

    Raises:
        DataError: no image can be held out from its class.
        ModelError: no probe can be trained for this network.
        ImageError: an image cannot be opened any more.
    """
    probing = _Probing(run, setup, plan, budget)
    train = probing.sample(setup.train, plan.images)
    preprocessing, found = _framed(probing, train)
    folds = 0
    if setup.nested:
        found = _probe(probing, train, preprocessing, found)
        out, (logits, folds) = train, _nested_logits(probing, train)
    else:
        some = probing.affordable(train, View(preprocessing))
        found = _probe(probing, some, preprocessing, found if len(some) == len(train) else None)
        train, out, logits = some, some.take(np.flatnonzero(found.held)), found.logits
    _say_of_scenes(probing, train, preprocessing, found)
    held = HeldOut(out.labels, logits, tuple(setup.sha256[path] for path in out.paths))
    return replace(probing.setup, train=train, preprocessing=preprocessing), found, held, folds


def nested_for(recipe: Recipe, images: int) -> bool:
    """Whether nested cross-validation can say how good the model of a recipe is, where there is nothing else to.

    The recipe has to end with the probe: whoever gives a number of the fine-tuning wants to see it done.
    """
    tuned = recipe.method == "ladder" and (recipe.epochs or recipe.learning_rate is not None)
    return images <= FEW and recipe.method != "train" and not tuned


def all_learned_from(looked: Survey, recipes: Sequence[Recipe]) -> bool:
    """Whether none of so few images is held back: each class has one to learn from, one to choose by, one to judge."""
    splits = list(looked.dataset.splits.values())
    if len(splits) != 1 or not all(nested_for(recipe, len(splits[0])) for recipe in recipes):
        return False
    images = zip(splits[0].labels.tolist(), splits[0].paths, strict=True)
    different = {(label, looked.units[path]) for label, path in images}
    return min(Counter(label for label, _ in different).values(), default=0) >= 3


def nested_folds(labels: npt.NDArray[np.int64], units: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """(N,) int64: the fold of nested cross-validation that each image is held out with; none is left out.

    Args:
        labels: (N,) int64, sorted.
        units: N keys; images of one key are held out together.
        seed: of the random order.
    """
    folds = min(OUTER_FOLDS, len(set(units)))
    fold_of = dict(zip(units, stratified_folds(labels, units, folds, seed).tolist(), strict=True))
    # Those of classes with fewer units than folds, in turn.
    fold_of |= {unit: turn % folds for turn, unit in enumerate(one for one in fold_of if fold_of[one] == NEVER)}
    return np.array([fold_of[unit] for unit in units], dtype=np.int64)


def framings(book: Preprocessing) -> tuple[Preprocessing, ...]:
    """Every way of fitting an image to the square that is tried, the book's own first."""
    whole = replace(book, resize=book.image_size)
    return book, replace(book, framing="crop"), whole, replace(whole, framing="letterbox")


def nearly_square(sizes: Iterable[tuple[int, int]]) -> bool:
    """Whether framings are not worth comparing on images of these widths and heights."""
    return all(max(size) <= NEARLY_SQUARE * min(size) for size in sizes)


def best_framing(
    probes: Iterable[tuple[Preprocessing, CrossValidated]], groups: Labels | None
) -> tuple[Preprocessing, CrossValidated]:
    """The framing whose probe is better than the first one's, and than those before it; else the first one.

    The probes are of the same images in the same folds; `groups`, (n,) int64, are those of the images held out.
    """
    (best, probe), *others = probes
    labels = probe.labels[: len(probe.held)][probe.held]
    for preprocessing, found in others:
        if compare_losses(softmax(found.logits), softmax(probe.logits), labels, groups).better:
            best, probe = preprocessing, found
    return best, probe


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
    train, own = setup.train, chosen_by(setup, setup.train)
    if own.any():
        return [own]
    units = [setup.units[path] for path in train.paths]
    count = usable_folds(train.labels, units, models if models > 1 else round(1 / HELD_SHARE))
    fold_of = stratified_folds(train.labels, units, count, run.seed)
    masks = [fold_of == number for number in range(min(count, models))]
    return [mask for mask in masks if mask.any()]


class _Probing:
    """A backbone, and the run that its features are computed in."""

    def __init__(self, run: RunContext, setup: TrainingSetup, plan: ProbePlan, budget: Budget) -> None:
        self.run, self.setup, self.plan, self.budget = run, setup, plan, budget
        self.backbone = Backbone.of(setup.target, run.device)
        self._rows: dict[View, Features] = {}
        self._row_of = {path: row for row, path in enumerate(setup.train.paths)}
        self.series: Series | None = None
        self._looked: frozenset[Path] = frozenset()

    def features(self, split: Split, views: Sequence[View], words: str) -> list[Features]:
        """(N, D) float32 for each view; with `setup.nested` kept in memory, of all images."""
        every = self.setup.train if self.setup.nested else split
        lacking = [view for view in views if view not in self._rows]
        found: list[Features] = []
        if lacking:
            found = features_of(
                self.backbone, every, lacking, self.setup.sha256, self.run, title=f"features ({words})",
                took=partial(self.budget.pace.took, f"features in {len(lacking)} views"),
            )  # fmt: skip
        if not self.setup.nested:
            return found
        self._rows.update(zip(lacking, found, strict=True))
        rows = [self._row_of[path] for path in split.paths]
        return [self._rows[view][rows] for view in views]

    def keep_series_together(self, split: Split, features: Features) -> None:
        """Have the folds keep the series among these images together, unless they were among images looked at before.

        Args:
            features: (N, D) float32.
        """
        if self._looked.issuperset(split.paths):
            return
        before, self._looked = self.setup, frozenset(split.paths)
        self.setup, self.series = keep_series_together(self.setup, split, features)
        if self.series is not None and not (self.folds(split) >= 0).any():
            self.setup, self.series = before, None
            self.run.progress.warn("series of one scene are divided: kept together, nothing could be held out.")

    def cross_validated(
        self, split: Split, features: Features, strengths: Sequence[float] = STRENGTHS
    ) -> CrossValidated:
        """The probe on these features, (V * N, D): every view of every image."""
        folds = self.folds(split)
        if not (folds >= 0).any():
            raise DataError(
                "no class has two different pictures to learn from, besides those held back to measure on.",
                hint="Copies of a picture count as one, so do those of a group. Add others, or take --recipe book.",
            )
        return cross_validate(
            features, np.tile(split.labels, len(features) // len(split)), len(self.setup.target.classes), folds,
            strengths, bias=self.backbone.head.bias is not None, balance=self.setup.recipe.balance,
        )  # fmt: skip

    def folds(self, split: Split) -> npt.NDArray[np.int64]:
        """(N,) int64: the fold each image is held out with, below 0 for none.

        Where there is a validation split to choose by, it is the only fold.
        """
        own = chosen_by(self.setup, split)
        if own.any():
            return np.where(own, 0, NEVER)
        units = self.units(split)
        return stratified_folds(split.labels, units, usable_folds(split.labels, units, FOLDS), self.run.seed)

    def units(self, split: Split) -> list[str]:
        """The key of each image's unit."""
        return [self.setup.units[path] for path in split.paths]

    def worth(self, choice: str, images: int, solved: int) -> bool:
        """Whether a choice that takes so many more passes and solutions leaves time for what comes after the probe."""
        fits = partial(self._fits, images, solved, CHOICES_LEAVE * self.budget.seconds)
        return not self.budget.limited or bool(decided(self.run, choice, fits))

    def affordable(self, train: Split, view: View) -> Split:
        """As many of the images as there is time for, at the pace that shows while their features are computed."""

        def made() -> int:
            some = train.take([])
            for part in PARTS:
                more = self.sample(train, math.ceil(len(train) / part))
                enough = len(some) >= FEWEST * len(self.setup.target.classes)
                if enough and not self._fits(len(more) - len(some), len(more)):
                    break
                self.features(more, [view], view.preprocessing.framing_words)
                some = more
            return len(some)

        return self.sample(train, decided(self.run, "images", made)) if self.budget.limited else train

    def _fits(self, images: int, solved: int, more: float = 0.0) -> bool:
        solving = solved * self.plan.solving * self.budget.pace.load
        return not self.run.any(not self.budget.fits(images, solving + more))

    def sample(self, split: Split, count: int) -> Split:
        """So many images at most, each class in its share."""
        contents = [self.setup.sha256[path] for path in split.paths]
        return split.take(stratified_sample(split.labels, contents, count, self.run.seed))

    def compared(self, split: Split) -> Split:
        """The images that framings are compared on; half of them, if there are as many, of those to choose by."""
        count, own = framed_on(len(split), len(self.setup.target.classes)), chosen_by(self.setup, split)
        if not own.any() or count >= len(split):
            return self.sample(split, count)
        given, rest = (self.sample(split.take(np.flatnonzero(part)), count // 2) for part in (own, ~own))
        return rest + given


def _probe(
    probing: _Probing, train: Split, preprocessing: Preprocessing, found: CrossValidated | None
) -> CrossValidated:
    """The better of the probes of the plain images and of several views.

    Args:
        found: the former, where it is known.
    """
    count = probing.plan.views
    if count > 1 and not probing.worth("views", (count - 1) * len(train), 2 * (count - 1) * len(train)):
        count = 1
    views = [View(preprocessing, view) for view in range(count)]
    words = preprocessing.framing_words + (f", {len(views)} views" if len(views) > 1 else "")
    plain, *others = probing.features(train, views, words)
    probing.keep_series_together(train, plain)
    if found is None:
        found = probing.cross_validated(train, plain)
    if others:
        again = probing.cross_validated(train, np.concatenate([plain, *others]))
        found = again if again.loss < found.loss else found
    return found


def _framed(probing: _Probing, train: Split) -> tuple[Preprocessing, CrossValidated | None]:
    """The framing whose probe is better than the book's, and than those before it; else the book's.

    Returns:
        It, and its probe where framings were compared on all the images.
    """
    plan, asked = probing.plan, probing.setup.preprocessing
    book = book_preprocessing(plan.image_size, asked.mean, asked.std, asked.value_range)
    some = probing.compared(train)
    compared = FRAMINGS * len(some)
    if not plan.framings or not probing.worth("framings", compared + len(train) - len(some), compared):
        return book, None
    if nearly_square(probing.setup.sizes[path] for path in some.paths) or not (probing.folds(some) >= 0).any():
        return book, None
    tried = framings(book)
    of_framings = probing.features(some, [View(preprocessing) for preprocessing in tried], "framings")
    probing.keep_series_together(some, of_framings[0])
    held = some.take(np.flatnonzero(probing.folds(some) >= 0))
    found = (probing.cross_validated(some, features) for features in of_framings)
    best, probe = best_framing(zip(tried, found, strict=True), groups_of(probing.setup, held))
    return best, probe if len(some) == len(train) else None


def _nested_logits(probing: _Probing, train: Split) -> tuple[Features, int]:
    """(N, K) float32 of each image, by a probe that was trained and chosen on the other folds' images alone; and how
    many folds there are.

    An image whose class is in no other fold cannot be predicted rightly, and counts.

    Source: Varma and Simon 2006, Bias in error estimation when using cross-validation for model selection, BMC
        Bioinformatics 7, article 91.
    """
    fold_of = nested_folds(train.labels, probing.units(train), probing.run.seed)
    logits = np.zeros((len(train), len(probing.setup.target.classes)), dtype=np.float32)
    folds = np.unique(fold_of)
    for fold in folds:
        out = np.flatnonzero(fold_of == fold)
        rest = train.take(np.flatnonzero(fold_of != fold))
        preprocessing, known = _framed(probing, rest)
        found = _probe(probing, rest, preprocessing, known)
        (features,) = probing.features(train.take(out), [View(preprocessing)], preprocessing.framing_words)
        logits[out] = found.fit().logits(features)
    return logits, len(folds)


def _say_of_scenes(probing: _Probing, train: Split, preprocessing: Preprocessing, found: CrossValidated) -> None:
    """How many images are in series, and what does not fit together: see `scenes`."""
    run, setup = probing.run, probing.setup
    if probing.series is not None and probing.series.scenes:
        say_series(run, probing.series)
        final = looked_up(setup)
        (others,) = probing.features(final, [View(preprocessing)], "looking up") if len(final) else (found.plain[:0],)
        warn_of_shared_scenes(run, setup, train, found.plain, final, others)
    own = chosen_by(setup, train)
    rest = train.take(np.flatnonzero(~own))
    if own.any() and (probing.folds(rest) >= 0).any():
        crossed = probing.cross_validated(rest, found.plain[~own], (found.strength,))
        apart = accuracy_on(setup, rest.take(np.flatnonzero(crossed.held)), crossed.logits)
        warn_where_apart(run, apart, accuracy_on(setup, train.take(np.flatnonzero(found.held)), found.logits))
