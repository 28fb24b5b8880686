"""The lower rungs: how pictures are framed, and the probe on their features.

In:   a target model as its source left it, the pictures to learn from.
Out:  a `Probed`: the framing that was chosen, the features, the probe.
Not here: solving for one probe (`probe.py`), the rungs above (`ladder.py`).
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator
from scipy.special import softmax

from relish.core.progress import Progress
from relish.data.dataset import Split
from relish.data.folds import stratified_folds, stratified_sample, usable_folds
from relish.data.pictures import open_picture
from relish.data.transforms import Preprocessing, book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.metrics import Proportion
from relish.evaluation.selection import judge
from relish.models.target import TargetModel
from relish.training.planning import FRAMING_PICTURES, LowerPlan
from relish.training.probe import CrossValidated, Probe, cross_validate, fit_probe
from relish.training.recipe import Recipe

FOLDS = 5
"""Of the cross-validation that strengths and framings are chosen by."""
NEARLY_SQUARE, LOOKED_AT = 1.05, 200
"""Where the longer side is at most this times the shorter one in all of so many pictures, framings hardly differ."""


@dataclass(frozen=True)
class Climb:
    """What a run climbs with."""

    target: TargetModel
    recipe: Recipe
    learn: Split
    contents: Mapping[Path, str]
    """SHA-256 of each picture's file."""
    preprocessing: Preprocessing
    seed: int
    judged: int
    """Pictures of the final split, which take their time too."""
    workers: int = 0
    budget: float = math.inf
    """Seconds from `began` to the end, judging included."""
    target_accuracy: float | None = None
    """On held-out pictures; the first rung that reaches it is the last."""
    began: float = 0.0
    """When the climb began, by `time.monotonic`."""

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget - (time.monotonic() - self.began)


@dataclass(frozen=True, eq=False)
class Probed:
    """A probe and what it was made of."""

    preprocessing: Preprocessing
    learn: Split
    """The pictures that were learned from."""
    features: Features
    """(V * N, D) float32: the plain view of every picture, then the others."""
    classes: int
    found: CrossValidated
    probe: Probe
    """Learned from every picture."""

    @property
    def right(self) -> Proportion:
        """Of the pictures, each by a probe that did not learn from it."""
        return Proportion(int((self.found.logits.argmax(1) == self.learn.labels).sum()), len(self.learn))

    @property
    def views(self) -> int:
        """Views of each picture that the probe learned from."""
        return len(self.features) // len(self.learn)

    def without(self, out: npt.NDArray[np.bool_]) -> Probe:
        """The probe of the same strength, learned from all pictures but these, (N,) bool."""
        rows = np.tile(~out, self.views)
        return fit_probe(
            self.features[rows], np.tile(self.learn.labels, self.views)[rows], self.classes, self.found.strength
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
        ModelError: no probe can be trained for this network.
        PictureError: a picture cannot be opened any more.
    """
    bench = _Bench(job, accelerator, progress)
    learn = bench.some(job.learn, plan.pictures)
    how = book_preprocessing(plan.image_size, job.preprocessing.mean, job.preprocessing.std)
    if plan.framings:
        how = _framed(bench, learn, how)
    labels, classes, folds = learn.labels, len(job.target.classes), bench.folds(learn)
    kept = bench.features(learn, how)
    found = cross_validate(kept, labels, classes, folds)
    if plan.views > 1:
        more = np.concatenate([kept, *(bench.features(learn, how, view) for view in range(1, plan.views))])
        again = cross_validate(more, np.tile(labels, plan.views), classes, folds)
        if again.loss < found.loss:
            found, kept = again, more
    probe = fit_probe(kept, np.tile(labels, len(kept) // len(labels)), classes, found.strength)
    return Probed(how, learn, kept, classes, found, probe)


def framings(book: Preprocessing) -> tuple[Preprocessing, ...]:
    """Every way of fitting a picture to the square that is tried, the book's own first."""
    whole = replace(book, resize=book.image_size)
    return book, replace(book, framing="crop"), whole, replace(whole, framing="letterbox")


class _Bench:
    """A backbone, and who works with it."""

    def __init__(self, job: Climb, accelerator: Accelerator, progress: Progress) -> None:
        self.job, self.accelerator, self.progress = job, accelerator, progress
        self.backbone = Backbone(job.target, accelerator.device)

    def features(self, split: Split, how: Preprocessing, view: int = 0) -> Features:
        """(N, D) float32."""
        words = how.framing_words + (f", view {view + 1}" if view else "")
        return features_of(
            self.backbone, split, how, self.job.contents, self.accelerator,
            view=view, workers=self.job.workers, progress=self.progress, title=f"features ({words})",
        )  # fmt: skip

    def folds(self, split: Split) -> npt.NDArray[np.int64]:
        """(N,) int64: folds to choose strengths and framings by."""
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
    some = bench.some(learn, FRAMING_PICTURES)
    if _nearly_square(some):
        return book
    folds, classes = bench.folds(some), len(bench.job.target.classes)
    best, standing = book, None
    for how in framings(book):
        said = softmax(cross_validate(bench.features(some, how), some.labels, classes, folds).logits, axis=1)
        if standing is None or judge(said, standing, some.labels).better:
            best, standing = how, said
    return best


def _nearly_square(split: Split) -> bool:
    sizes = [open_picture(path).size for path in split.paths[:: math.ceil(len(split) / LOOKED_AT)]]
    return all(max(size) <= NEARLY_SQUARE * min(size) for size in sizes)
