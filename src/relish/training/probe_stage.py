"""The lower rungs: how pictures are framed, and the probe on their features.

In:   a target model as its source left it, the pictures to learn from.
Out:  a `Probed`: the framing that was chosen, the features, the probe.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator

from relish.core.errors import DataError
from relish.core.progress import Progress
from relish.data.dataset import Split
from relish.data.image import open_image
from relish.data.loader import View
from relish.data.split import stratified_folds, stratified_sample, usable_folds
from relish.data.transforms import Preprocessing, book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.metrics import Proportion
from relish.evaluation.prediction import softmax
from relish.evaluation.significance import compare_losses
from relish.training.budget import Climb, LowerPlan, framed_on
from relish.training.linear_probe import CrossValidated, Probe, cross_validate, fit_probe
from relish.training.recipe import BalanceName

FOLDS = 5
"""Of the cross-validation that strengths and framings are chosen by."""
NEARLY_SQUARE, LOOKED_AT = 1.05, 200
"""Where the longer side is at most this times the shorter one in all of so many pictures, framings hardly differ."""


@dataclass(frozen=True, eq=False)
class Probed:
    """A probe and what it was made of."""

    preprocessing: Preprocessing
    learn: Split
    """The pictures that were learned from."""
    features: Features
    """(V * N, D) float32: the plain view of every picture, then the others."""
    classes: int
    bias: bool
    """Whether the network's output layer has one."""
    found: CrossValidated
    probe: Probe
    """Learned from every picture."""
    balance: BalanceName = "none"

    @property
    def right(self) -> Proportion:
        """Of the pictures that were held out, each by a probe that did not learn from it."""
        labels = self.learn.labels[self.found.held]
        return Proportion(int((self.found.logits.argmax(1) == labels).sum()), len(labels))

    @property
    def views(self) -> int:
        """Views of each picture that the probe learned from."""
        return len(self.features) // len(self.learn)

    def without(self, out: npt.NDArray[np.bool_]) -> Probe:
        """The probe of the same strength, learned from all pictures but these, (N,) bool."""
        rows, labels = np.tile(~out, self.views), np.tile(self.learn.labels, self.views)
        return fit_probe(
            self.features[rows], labels[rows], self.classes, self.found.strength, bias=self.bias, balance=self.balance
        )

    def words(self) -> str:
        """One line for a screen."""
        return (
            f"probe: {self.right.sentence()} in cross-validation; strength {self.found.strength:.2g}, "
            f"pictures {self.preprocessing.framing_words}"
        )

    def as_json(self) -> dict[str, Any]:
        """The figures for `metrics.jsonl`."""
        return {
            **self.right.as_json(),
            "loss": self.found.loss,
            "strength": self.found.strength,
            "framing": self.preprocessing.framing_words,
            "views": self.views,
        }


def probe_of(job: Climb, plan: LowerPlan, accelerator: Accelerator, progress: Progress) -> Probed:
    """Choose the framing, compute features, choose the strength, and solve.

    Raises:
        DataError: no class has two different pictures.
        ModelError: no probe can be trained for this network.
        ImageError: a picture cannot be opened any more.
    """
    bench = _Bench(job, accelerator, progress)
    learn = bench.some(job.learn, plan.pictures)
    how = book_preprocessing(plan.image_size, job.preprocessing.mean, job.preprocessing.std)
    if plan.framings:
        how = _framed(bench, learn, how)
    (kept,) = bench.features(learn, [View(how)], how.framing_words)
    found = bench.cross_validated(learn, kept)
    if plan.views > 1:
        views = [View(how, view) for view in range(1, plan.views)]
        more = np.concatenate([kept, *bench.features(learn, views, f"{len(views)} more views")])
        again = bench.cross_validated(learn, more)
        if again.loss < found.loss:
            found, kept = again, more
    labels, classes, bias = np.tile(learn.labels, len(kept) // len(learn)), len(job.target.classes), bench.bias
    probe = fit_probe(kept, labels, classes, found.strength, bias=bias, balance=job.recipe.balance)
    return Probed(how, learn, kept, classes, bias, found, probe, job.recipe.balance)


def framings(book: Preprocessing) -> tuple[Preprocessing, ...]:
    """Every way of fitting a picture to the square that is tried, the book's own first."""
    whole = replace(book, resize=book.image_size)
    return book, replace(book, framing="crop"), whole, replace(whole, framing="letterbox")


class _Bench:
    """A backbone, and who works with it."""

    def __init__(self, job: Climb, accelerator: Accelerator, progress: Progress) -> None:
        self.job, self.accelerator, self.progress = job, accelerator, progress
        self.backbone = Backbone(job.target, accelerator.device)
        self.bias = self.backbone.head.bias is not None

    def features(self, split: Split, looks: Sequence[View], words: str) -> list[Features]:
        """(N, D) float32 for each look."""
        return features_of(
            self.backbone, split, looks, self.job.contents, self.accelerator,
            workers=self.job.workers, progress=self.progress, title=f"features ({words})",
        )  # fmt: skip

    def cross_validated(self, split: Split, features: Features) -> CrossValidated:
        """The strength for these features, (V * N, D): every view of every picture."""
        folds = self.folds(split)
        if not _held(folds):
            raise DataError(
                "no class has two different pictures: there is nothing to learn from and to check with.",
                hint="Copies of a picture count as one. Add pictures, or take --recipe book.",
            )
        labels = np.tile(split.labels, len(features) // len(split))
        return cross_validate(
            features, labels, len(self.job.target.classes), folds, bias=self.bias, balance=self.job.recipe.balance
        )

    def folds(self, split: Split) -> npt.NDArray[np.int64]:
        """(N,) int64: the fold each picture is held out with, below 0 for none."""
        contents = self.contents(split)
        return stratified_folds(split.labels, contents, usable_folds(split.labels, contents, FOLDS), self.job.seed)

    def some(self, split: Split, count: int) -> Split:
        """So many pictures at most, each class in its share."""
        return split.take(stratified_sample(split.labels, self.contents(split), count, self.job.seed))

    def contents(self, split: Split) -> list[str]:
        """The hash of each picture's file."""
        return [self.job.contents[path] for path in split.paths]


def _framed(bench: _Bench, learn: Split, book: Preprocessing) -> Preprocessing:
    """The framing whose probe is better than the book's, and than those before it; else the book's."""
    some = bench.some(learn, framed_on(len(learn), len(bench.job.target.classes)))
    if _nearly_square(some) or not _held(bench.folds(some)):
        return book
    best, standing, hows = book, None, framings(book)
    for how, features in zip(hows, bench.features(some, [View(how) for how in hows], "framings"), strict=True):
        found = bench.cross_validated(some, features)
        said = softmax(found.logits)
        if standing is None or compare_losses(said, standing, some.labels[found.held]).better:
            best, standing = how, said
    return best


def _held(folds: npt.NDArray[np.int64]) -> bool:
    return bool((folds >= 0).any())


def _nearly_square(split: Split) -> bool:
    sizes = [open_image(path).size for path in split.paths[:: math.ceil(len(split) / LOOKED_AT)]]
    return all(max(size) <= NEARLY_SQUARE * min(size) for size in sizes)
