"""The probe against scikit-learn's LogisticRegression: the same features, the same objective.

    python benchmarks/probe_speed.py DATA [--image-size 224] [--rounds 5]

Features of DATA's training pictures by the embedded backbone, scaled as the probe scales them. In turn, for one
strength: relish's solver, and scikit-learn's with its default solver on the same numbers (float32 and float64), each
to its own default tolerance; then the whole path of strengths in cross-validation against `LogisticRegressionCV` over
the same strengths and folds. Loss is the objective in float64, accuracy that on the test pictures. Writes
`results/probe_speed.json`.
"""

import argparse
import statistics
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit

from relish.core.context import Context
from relish.core.progress import Screen
from relish.data.loader import View
from relish.data.sources import find_dataset
from relish.data.split import stratified_folds
from relish.data.survey import survey
from relish.data.transforms import book_preprocessing
from relish.evaluation.features import Backbone, features_of
from relish.models.source import load_source
from relish.models.target import make_target
from relish.reporting.text import text_table
from relish.training.linear_probe import Problem, cross_validate
from study import write_results


def objective(features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, strength: float) -> float:
    scores = features.astype(np.float64) @ weight.T + bias
    scores -= scores.max(1, keepdims=True)
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(labels)), labels]
    return float(losses.mean() + strength / 2 * (weight**2).sum())


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("data")
    ask.add_argument("--image-size", type=int, default=224)
    ask.add_argument("--rounds", type=int, default=5)
    asked = ask.parse_args()
    looked = survey(find_dataset(asked.data, progress=Screen()), progress=Screen())
    source = load_source()
    how = book_preprocessing(asked.image_size, source.data_config.mean, source.data_config.std)
    backbone, context = Backbone.of(make_target(source, looked.dataset.classes, seed=0)), Context.on("cpu", Screen())
    learn, test = looked.dataset.splits["train"], looked.dataset.splits["test"]
    (features,), (unseen,) = (
        features_of(backbone, split, [View(how)], looked.sha256, context) for split in (learn, test)
    )
    labels, classes = learn.labels, len(looked.dataset.classes)
    problem = Problem(features, labels, classes)
    scaled = problem.features.numpy()
    unseen = ((unseen - problem.mean) / problem.scale).astype(np.float32)
    folds = stratified_folds(labels, [looked.sha256[p] for p in learn.paths], 5, 0)
    found = cross_validate(features, labels, classes, folds)
    strengths = [strength for strength, _ in found.losses]
    rows = []
    for strength in sorted({strengths[0], found.strength, strengths[-1]}, reverse=True):
        penalty = (2 if classes == 2 else 1) / (strength * len(labels))
        times: dict[str, list[float]] = {"relish": [], "float32": [], "float64": []}
        ends: dict[str, tuple[float, float]] = {}
        for _ in range(asked.rounds):
            began = time.perf_counter()
            at = problem.solve(strength).numpy()
            times["relish"].append(time.perf_counter() - began)
            ends["relish"] = judged(scaled, labels, unseen, test.labels, at[:, :-1], at[:, -1], strength)
            for kind in ("float32", "float64"):
                given = scaled.astype(kind)
                began = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    theirs = LogisticRegression(C=penalty, max_iter=5000).fit(given, labels)
                times[kind].append(time.perf_counter() - began)
                weight, bias = theirs.coef_.astype(np.float64), theirs.intercept_.astype(np.float64)
                if classes == 2:
                    weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
                ends[kind] = judged(scaled, labels, unseen, test.labels, weight, bias, strength)
        middle = {name: statistics.median(values) for name, values in times.items()}
        rows.append({"strength": strength, "seconds": times, "loss_and_accuracy": ends,
                     "ratio": {kind: middle[kind] / middle["relish"] for kind in ("float32", "float64")}})  # fmt: skip
    print(text_table(
        ["strength", "relish", "sklearn f32", "sklearn f64", "ratio", "loss", "loss f64", "test", "test f64"],
        [[f"{r['strength']:.2g}", *(f"{statistics.median(v):.3f} s" for v in r["seconds"].values()),
          f"{r['ratio']['float32']:.1f}, {r['ratio']['float64']:.1f}",
          *(f"{r['loss_and_accuracy'][k][0]:.6f}" for k in ("relish", "float64")),
          *(f"{r['loss_and_accuracy'][k][1]:.4f}" for k in ("relish", "float64"))] for r in rows],
    ))  # fmt: skip
    paths: dict[str, list[float]] = {"relish": [], "sklearn": []}
    for _ in range(2):
        began = time.perf_counter()
        cross_validate(features, labels, classes, folds, strengths)
        paths["relish"].append(time.perf_counter() - began)
        began = time.perf_counter()
        penalties = [(2 if classes == 2 else 1) / (s * 0.8 * len(labels)) for s in strengths]
        LogisticRegressionCV(
            Cs=penalties, cv=PredefinedSplit(folds), scoring="neg_log_loss", max_iter=5000,
            l1_ratios=(0,), use_legacy_attributes=False,
        ).fit(scaled, labels)  # fmt: skip
        paths["sklearn"].append(time.perf_counter() - began)
    ratio = min(paths["sklearn"]) / min(paths["relish"])
    print(f"path of {len(strengths)} strengths, 5 folds: relish {min(paths['relish']):.2f} s, "
          f"scikit-learn {min(paths['sklearn']):.2f} s, ratio {ratio:.1f}")  # fmt: skip
    write_results("probe_speed", {"pictures": len(labels), "width": features.shape[1], "classes": classes,
                                  "strengths": rows, "path": {**paths, "ratio": ratio}})  # fmt: skip


def judged(
    features: np.ndarray, labels: np.ndarray, unseen: np.ndarray, truth: np.ndarray, weight: np.ndarray,
    bias: np.ndarray, strength: float,
) -> tuple[float, float]:  # fmt: skip
    """The objective, and the accuracy on test pictures."""
    return objective(features, labels, weight, bias, strength), float(
        ((unseen @ weight.T + bias).argmax(1) == truth).mean()
    )


if __name__ == "__main__":
    main()
