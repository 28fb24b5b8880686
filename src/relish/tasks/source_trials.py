"""What trials of source models found: the table, which one to take and why, and what a larger one would have cost."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relish.evaluation.grouped import Bools, Ints, proportion
from relish.evaluation.metrics import Proportion
from relish.evaluation.significance import standard_error
from relish.reporting.text import text_table

Omitted = tuple[str, str, float | None]
"""A candidate that was not tried to the end, the reason, and the megabytes that would have to be fetched."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one candidate."""

    name: str
    options: str
    """What has `fit` take it."""
    family: str
    top1: float | None
    licence: str | None
    image_size: int
    """Side of the network's square, in pixels."""
    parameters: int
    """Learnable ones, with an output layer for the user's classes."""
    macs: int
    """Multiply-accumulates of one image."""
    file_bytes: int
    """Of the exported file, estimated: four for each parameter and statistic."""
    forward_ms: float
    """Milliseconds to read an image and predict its class, on this machine."""
    step_ms: float
    """Milliseconds to read an image and train on it."""
    right: tuple[bool, ...]
    """Of each image held out, by a probe that was not trained on it."""
    groups: tuple[int, ...] | None
    """Of each of these images; None where no groups are known."""

    @property
    def accuracy(self) -> Proportion:
        """Cross-validated, with its interval by group."""
        return proportion(*self._arrays)

    def behind(self, best: "Trial") -> tuple[float, float]:
        """The mean of the paired differences in accuracy from another, below 0 where that is better, and its error.

        A standard error over images, or over their groups; infinite of a single one.
        """
        right, groups = self._arrays
        gaps = right.astype(np.float64) - np.asarray(best.right)
        return float(gaps.mean()), standard_error(gaps, groups)

    @property
    def _arrays(self) -> tuple[Bools, Ints | None]:
        return np.array(self.right), None if self.groups is None else np.array(self.groups, dtype=np.int64)


@dataclass(frozen=True)
class SourceTrials:
    """What `sources` found."""

    data: str
    trials: tuple[Trial, ...]
    """The most accurate first; of equals the quicker one."""
    omitted: tuple[Omitted, ...]
    images: int
    """That features were computed of."""
    machine: str
    """What the times were measured on."""
    folder: Path = Path()
    reading: str = ""
    """Options that `fit` needs to read the same data."""

    @property
    def advised(self) -> Trial:
        """Of those that are at most a standard error behind the best, the one that predicts soonest."""
        best = self.trials[0]
        near = [one for one in self.trials if one is best or -one.behind(best)[0] <= one.behind(best)[1]]
        return min(near, key=lambda one: one.forward_ms)

    @property
    def why(self) -> str:
        """Why that one, in a sentence."""
        advised, best = self.advised, self.trials[0]
        if len(self.trials) == 1:
            return f"{advised.name} is the only one that was tried to the end."
        if advised is best:
            return f"{advised.name} is the most accurate of {len(self.trials)}, and no quicker one is within its error."
        difference, error = advised.behind(best)
        return (
            f"{advised.name} is the quickest of those within a standard error of the most accurate, {best.name} "
            f"({difference:+.4f} ± {error:.4f})."
        )

    @property
    def larger(self) -> str:
        """What the most accurate of the larger ones would have cost, in a sentence."""
        taken = self.advised
        one = next((one for one in self.trials if one.file_bytes > taken.file_bytes), None)
        if one is None:
            return "No larger one was tried to the end."
        difference, error = one.behind(taken)
        return (
            f"A larger one, {one.name}, takes {one.forward_ms:.3g} ms a picture and not {taken.forward_ms:.3g}, its "
            f"file {one.file_bytes / 1e6:.1f} MB and not {taken.file_bytes / 1e6:.1f}, and its accuracy differs by "
            f"{difference:+.4f} ± {error:.4f}."
        )

    def table(self) -> str:
        """One row a source."""
        headings = ["source", "licence", "parameters", "MACs", "predict", "step", "export", "accuracy", "95% interval"]
        rows = [self._row(trial) for trial in self.trials]
        return text_table([*headings, "from the best"], rows, right=(2, 3, 4, 5, 6, 7, 9))

    def lines(self) -> list[str]:
        """The table, what it rests on, what was omitted and why, and what to type next."""
        advised, best = self.advised, self.trials[0]
        held = len(best.right)
        why = "the most accurate" if advised is best else "the quickest within a standard error of the best"
        return [
            self.table(),
            f"accuracy of a probe, cross-validated on {held:,} of {self.images:,} training pictures; times are of one "
            f"picture, read and computed, on {self.machine}; export is estimated, four bytes a parameter",
            *(f"omitted  {words}" for words in omitted_in_words(self.omitted)),
            f"{advised.name} is {why}. Next: relish fit {shlex.quote(self.data)}{self.reading} {advised.options}",
        ]

    def as_json(self) -> dict[str, Any]:
        """Every figure of the table, best first, and what was omitted."""
        return {
            "images": self.images,
            "held_out": len(self.trials[0].right),
            "machine": self.machine,
            "advised": self.advised.name,
            "sources": [self._figures(trial) for trial in self.trials],
            "omitted": omitted_as_json(self.omitted),
        }

    def _figures(self, trial: Trial) -> dict[str, Any]:
        difference, error = trial.behind(self.trials[0])
        plain = {name: value for name, value in asdict(trial).items() if name not in ("right", "groups")}
        return {
            **plain,
            "accuracy": trial.accuracy.as_json(),
            "from_best": difference,
            "from_best_error": error if math.isfinite(error) else None,
        }

    def _row(self, trial: Trial) -> list[str]:
        accuracy, best = trial.accuracy, self.trials[0]
        (low, high), (difference, error) = accuracy.interval, trial.behind(best)
        return [
            trial.name,
            trial.licence or "not stated",
            f"{trial.parameters / 1e6:.1f} M",
            f"{trial.macs / 1e9:.2f} G",
            f"{trial.forward_ms:.3g} ms",
            f"{trial.step_ms:.3g} ms",
            f"{trial.file_bytes / 1e6:.1f} MB",
            f"{accuracy.correct} of {accuracy.count}" if accuracy.few else f"{accuracy.value:.4f}",
            f"{low:.3f}–{high:.3f}",
            "" if trial is best else f"{difference:+.4f} ± {error:.4f}",
        ]


def omitted_in_words(omitted: Sequence[Omitted]) -> list[str]:
    """A line for each reason, with the candidates that it holds for."""
    named: dict[str, list[str]] = {}
    for name, why, size in omitted:
        named.setdefault(why, []).append(name if size is None else f"{name} ({size:.0f} MB)")
    return [f"{', '.join(names)}: {why}" for why, names in named.items()]


def omitted_as_json(omitted: Sequence[Omitted]) -> list[dict[str, Any]]:
    """One mapping a candidate."""
    return [{"name": name, "reason": why, "megabytes": size} for name, why, size in omitted]
