"""The linear probe: a softmax output layer trained to its optimum on the features of a frozen backbone.

The problem is convex: there is one optimum and no rate to choose. Features are centred and brought to a common scale
while it is solved, so that a strength means the same for any backbone; both are then folded into weight and bias.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relish.core.runtime import one_thread
from relish.evaluation.metrics import Proportion
from relish.training.recipe import BalanceName, balance_of

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

STRENGTHS = tuple(10.0 ** (-step / 2) for step in range(-2, 9))
"""L2 penalties to try, 10 to 1e-4 by half decades; each fit starts from the optimum of the stronger one before it."""
_PATIENCE = 2
"""The path ends after this many strengths in a row that are worse than the best: weaker ones overfit more."""
_MEMORY, _STEPS = 20, 1000
"""L-BFGS: steps it remembers, and steps at most (Nocedal and Wright 2006, Numerical Optimization, section 7.2)."""
_GRADIENT, _GAIN, ROUGH_GAIN = 1e-6, 1e-8, 1e-6
"""L-BFGS stops once every element of the gradient is at most `_GRADIENT`, or a step lowers the loss by less than
`_GAIN` nats, the resolution of sums in float32. `ROUGH_GAIN` is enough to compare strengths."""


Given = ParamSpec("Given")
Solved = TypeVar("Solved")
_SMALL = 1_000_000
"""Numbers in the features of a problem that one thread solves: in a smaller one threads wait for each other most of the
time. 40 images of 1,280 features, beside other work: 103 s of two cores with two threads, 16 s with one."""


def in_few_threads(solve: Callable[Given, Solved]) -> Callable[Given, Solved]:
    """A function of features, its first argument, that takes one thread where they are few."""

    @wraps(solve)
    def solved(*given: Given.args, **named: Given.kwargs) -> Solved:
        with one_thread() if np.size(given[0]) <= _SMALL else nullcontext():  # type: ignore[arg-type]
            return solve(*given, **named)

    return solved


@dataclass(frozen=True, eq=False)
class Probe:
    """An output layer for features as they come from the backbone."""

    weight: Floats
    """(K, D) float32."""
    bias: Floats
    """(K,) float32."""
    strength: float
    """The L2 penalty that was chosen, of the mean loss in nats."""

    def logits(self, features: Floats) -> Floats:
        """(N, D) features to (N, K) float32."""
        return features @ self.weight.T + self.bias


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """A strength chosen by cross-validation, and what it was chosen on."""

    features: Floats
    """(V * N, D): N images, then the same again in other views."""
    labels: Labels
    """(V * N,)."""
    classes: int
    bias: bool
    """Whether the output layer has one."""
    balance: BalanceName
    strength: float
    """Of the L2 penalty, no unit."""
    losses: tuple[tuple[float, float], ...]
    """For each strength that was tried, its mean held-out loss in nats."""
    logits: Floats
    """(n, K) float32 of each image held out, by the probe of this strength that the other folds gave."""
    held: npt.NDArray[np.bool_]
    """(N,) bool: which images those are."""

    @property
    def loss(self) -> float:
        """The smallest mean held-out loss, in nats."""
        return min(loss for _, loss in self.losses)

    @property
    def views(self) -> int:
        """Views of each image."""
        return len(self.labels) // len(self.held)

    @property
    def plain(self) -> Floats:
        """(N, D): the features of each image as it is evaluated."""
        return self.features[: len(self.held)]

    @property
    def accuracy(self) -> Proportion:
        """On the images held out, each predicted by a probe that was not trained on it."""
        own = self.labels[: len(self.held)][self.held]
        return Proportion(int((self.logits.argmax(1) == own).sum()), len(own))

    def fit(self, without: npt.NDArray[np.bool_] | None = None) -> Probe:
        """The probe of this strength.

        Args:
            without: (N,) bool, images that it is not trained on; None: it is trained on all of them.
        """
        features, labels = self.features, self.labels
        if without is not None:
            rows = np.tile(~without, self.views)
            features, labels = features[rows], labels[rows]
        return fit_probe(features, labels, self.classes, self.strength, bias=self.bias, balance=self.balance)


class Problem:
    """Minimise the mean cross-entropy plus strength / 2 times the sum of squared weights; biases are free.

    With a `balance` the cross-entropy is the balanced one; the solution's logits are what is left without its offsets.

    Written for the centred and scaled features, (N, D) float32; the weights themselves are float64.
    """

    def __init__(
        self, features: Floats, labels: Labels, classes: int, *, bias: bool = True, balance: BalanceName = "none"
    ) -> None:
        """
        Args:
            bias: whether the output layer has one; without it, features keep their mean.
        """
        self.bias, width = bias, features.shape[1]
        self.mean = features.mean(0, dtype=np.float64) if bias else np.zeros(width)
        # One scale for all: divided each by its own, a feature that is nearly always 0 in a few images outweighs all
        # others in the next one. With 10 photographs a class 1 to 2 points of accuracy, with 2,000 no difference.
        self.scale = max(float(np.sqrt(np.mean(features.var(0, dtype=np.float64)))), 1e-12)
        scaled = features - self.mean.astype(np.float32)
        scaled *= np.float32(1.0 / self.scale)
        self.features, self.labels = torch.from_numpy(scaled), torch.from_numpy(labels)
        self.classes, self.balance = classes, balance_of(balance, labels, classes)

    def solve(
        self, strength: float, start: Tensor | None = None, rows: Tensor | None = None, gain: float = _GAIN
    ) -> Tensor:
        """The optimum, (K, D + 1) float64: the weights, and in the last column the bias.

        Args:
            strength: of the penalty, above 0.
            start: where to begin, such as another strength's optimum.
            rows: (N,) bool, which images count; all of them where None.
            gain: it ends where a step gains less than this much of the loss, in nats.
        """
        features = self.features if rows is None else self.features[rows]
        labels = self.labels if rows is None else self.labels[rows]
        width = features.shape[1]
        wanted = torch.nn.functional.one_hot(labels, self.classes).to(features.dtype)
        offsets, weights = self.balance.offsets, self.balance.weights
        counts = None if weights is None else weights[labels]  # (N,)

        at = torch.zeros(self.classes, width + 1, dtype=torch.float64) if start is None else start.clone()
        at.grad = gradient = torch.zeros_like(at)

        def loss_and_gradient() -> float:
            weight = at[:, :width]
            free = at[:, width].float() if offsets is None else at[:, width].float() + offsets
            scores = torch.addmm(free, features, weight.float().T)  # (N, K)
            total = scores.logsumexp(1, keepdim=True)
            losses = total.squeeze(1) - (scores * wanted).sum(1)
            slope = ((scores - total).exp() - wanted) / len(features)
            if counts is not None:
                losses, slope = losses * counts, slope * counts[:, None]
            loss = losses.double().mean()
            gradient[:, :width] = (slope.T @ features).double() + strength * weight
            gradient[:, width] = slope.sum(0) if self.bias else 0.0
            return float(loss + strength / 2 * weight.square().sum())

        # Not SciPy's: its threads and torch's wait for each other, which made a step several times as long.
        solver = torch.optim.LBFGS(
            [at], max_iter=_STEPS, history_size=_MEMORY, line_search_fn="strong_wolfe",
            tolerance_grad=_GRADIENT, tolerance_change=gain,
        )  # fmt: skip
        solver.step(loss_and_gradient)  # type: ignore[no-untyped-call]
        at.grad = None
        return at

    def scores(self, at: Tensor, rows: Tensor) -> Tensor:
        """(n, K) float32 logits of some images."""
        return torch.addmm(at[:, -1].float(), self.features[rows], at[:, :-1].float().T)

    def probe(self, at: Tensor, strength: float) -> Probe:
        """A solution as a probe of features as they come: mean and scale go into its weight and bias."""
        weight = at[:, :-1].numpy() / self.scale
        offset = at[:, -1].numpy() - weight @ self.mean
        return Probe(weight.astype(np.float32), offset.astype(np.float32), strength)


@in_few_threads
def fit_probe(
    features: Floats,
    labels: Labels,
    classes: int,
    strength: float,
    *,
    bias: bool = True,
    balance: BalanceName = "none",
) -> Probe:
    """The probe of one strength, fitted to all the images.

    Args:
        features: (N, D) float32.
        labels: (N,) int64, each below `classes`.
        strength: of the penalty: it is added to the mean cross-entropy, so it does not depend on N. scikit-learn's
            `LogisticRegression` on the same scaled features solves the same problem with C = 1 / (strength * N), for
            two classes twice that, since it has one row of weights for them and this has two.
    """
    problem = Problem(features, labels, classes, bias=bias, balance=balance)
    return problem.probe(problem.solve(strength), strength)


@in_few_threads
def cross_validate(
    features: Floats,
    labels: Labels,
    classes: int,
    fold_of: Labels,
    strengths: Sequence[float] = STRENGTHS,
    *,
    bias: bool = True,
    balance: BalanceName = "none",
) -> CrossValidated:
    """Choose the strength with the smallest mean loss on images that were held out.

    Args:
        features: (V * N, D) float32: N images, then the same again in other views if there are any. Probes are fitted
            to every view and evaluated on the first.
        labels: (V * N,) int64.
        fold_of: (N,) int64: the fold each image is held out with, below 0 for none; some have to be in one.
        strengths: strongest first; the path ends where the loss has risen for good.
        bias: whether the output layer has one.
        balance: of what is minimised, and so of the loss that strengths are chosen by.

    Source: the path of warm starts is that of Friedman, Hastie and Tibshirani 2010, Journal of Statistical Software
        33(1), section 2.5.
    """
    problem = Problem(features, labels, classes, bias=bias, balance=balance)
    count, held = len(fold_of), fold_of >= 0
    own = torch.from_numpy(labels[:count][held])
    views = len(labels) // count
    folds = [torch.from_numpy(fold_of == fold) for fold in np.unique(fold_of[held])]
    places: list[Tensor | None] = [None] * len(folds)
    best, losses = (np.inf, 0.0, np.zeros((0, classes), dtype=np.float32)), []
    for strength in strengths:
        logits = torch.zeros(count, classes)
        for number, out in enumerate(folds):
            places[number] = at = problem.solve(strength, places[number], ~out.repeat(views), ROUGH_GAIN)
            logits[out] = problem.scores(at, out.nonzero().squeeze(1))
        held_out = logits[torch.from_numpy(held)]
        loss = float(problem.balance.losses(held_out.double(), own).mean())
        losses.append((strength, loss))
        if loss < best[0]:
            best = (loss, strength, held_out.numpy())
        elif all(worse > best[0] for _, worse in losses[-_PATIENCE:]):
            break
    return CrossValidated(
        features=features, labels=labels, classes=classes, bias=bias, balance=balance, strength=best[1],
        losses=tuple(losses), logits=best[2], held=held,
    )  # fmt: skip
