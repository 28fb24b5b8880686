"""A finished run with everything a report can show, and the runs that lie beside it.

The run is really trained, on drawn colours; the figures that other parts of relish write are worked out here from its
own answers, so that page and files can be held against each other.
"""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np

import relish
from relish.core.io import write_json
from relish.core.run_folder import RunFolder
from relish.data.dataset import Finding
from tests.conftest import read_json

HOSTILE = '<img src=x onerror="alert(1)">'


def fitted(data: Path, source: Path, out: Path, **settings) -> Path:
    """A run of the book's recipe on small pictures."""
    numbers = {"image_size": 32, "batch_size": 4, "epochs": 2, "learning_rate": 1e-3, **settings}
    relish.fit(data, recipe="book", weights=source, settings=numbers, out=out)
    return out


def enriched(run: Path, wrong: int = 3) -> Path:
    """The run as though it had been judged in full: its answers are replaced by drawn ones, `wrong` of them wrong."""
    folder = RunFolder(run)
    labels = np.load(folder.predictions)["labels"]
    count, classes = len(labels), len(read_json(folder.classes))
    logits = np.random.default_rng(0).normal(0, 0.5, (count, classes)).astype(np.float32)
    said = labels.copy()
    said[:wrong] = (said[:wrong] + 1) % classes
    logits[np.arange(count), said] += np.linspace(2, 5, count, dtype=np.float32)
    temperature = 2.0
    scaled = np.exp(logits / temperature)
    found = (scaled / scaled.sum(1, keepdims=True)).astype(np.float32)
    np.savez(folder.predictions, labels=labels, probabilities=found, logits=logits)
    write_json(folder.evaluation, {**read_json(folder.evaluation), **evaluation_of(labels, found, temperature)})
    return run


def evaluation_of(labels, found, temperature) -> dict:
    """The keys of evaluation.json that judging in full adds, and those that follow from other answers."""
    classes, said, sure = found.shape[1], found.argmax(1), found.max(1)
    right = said == labels
    order = np.argsort(-sure)
    confusion = [[int(((labels == i) & (said == j)).sum()) for j in range(classes)] for i in range(classes)]
    share = {"value": float(right.mean()), "interval": [0.5, 0.99]}
    edges = np.linspace(0, 1, 16)
    bins = [(low, high, (sure > low) & (sure <= high)) for low, high in pairwise(edges)]
    return {
        "confusion": confusion,
        "top1": {**share, "correct": int(right.sum()), "count": len(right)},
        "balanced_accuracy": share, "macro_f1": share, "auc": share, "top5": None,
        "log_loss": 0.4321, "brier": 0.2109, "ece": 0.0345,
        "before_temperature": {"log_loss": 0.5432, "brier": 0.2222, "ece": 0.0789},
        "reliability": [
            {"low": low, "high": high, "count": int(of.sum()), "confidence": float(sure[of].mean()),
             "accuracy": float(right[of].mean())}
            for low, high, of in bins if of.any()
        ],
        "coverage": [
            {"coverage": n / len(right), "accuracy": float(right[order[:n]].mean()),
             "unsure_below": float(sure[order[n - 1]]), "count": n}
            for n in range(len(right), 0, -1)
        ],
        "decision": {"temperature": temperature, "positive": None, "threshold": None, "aim": None,
                     "unsure_below": 0.75, "fitted_on": 200},
        "answered": {"count": 11, "of": len(right), "correct": 9, "accuracy": 9 / 11, "interval": [0.52, 0.95]},
        "without_duplicates": {"value": 0.7, "correct": 7, "count": 10, "interval": [0.4, 0.89], "left_out": 2},
    }  # fmt: skip


def checked(run: Path) -> list[Finding]:
    """Write the findings of a check into the run: one of each severity."""
    rows = read_json(run / "dataset.json")["splits"]
    first, second = rows["train"][0]["path"], rows["test"][0]["path"]
    findings = [
        Finding(kind="odd-size", severity="note", message="One picture is small.", advice="Nothing to do."),
        Finding(kind="exact-duplicate", severity="error", message="Two pictures are the same.",
                advice="Keep one of them.", paths=(first, second), across=("split",)),
        Finding(kind="wrong-label", severity="warning", message=f"{HOSTILE} may be mislabelled.", advice="Look at it.",
                paths=(second,), given="blue", suggested="red", confidence=0.97),
    ]  # fmt: skip
    write_json(run / "check.json", {"findings": [one.as_json() for one in findings], "pictures": 32})
    return findings


def grouped(run: Path) -> Path:
    """The run as though its test pictures had come in scenes of two, by two cameras; the first half by camera A."""
    dataset, evaluation = read_json(run / "dataset.json"), read_json(run / "evaluation.json")
    rows = dataset["splits"]["test"]
    for number, row in enumerate(rows):
        row |= {"group": f"scene {number // 2}", "columns": {"camera": "AB"[2 * number // len(rows)] + HOSTILE}}
    write_json(run / "dataset.json", dataset)
    groups = {"count": len(rows) // 2, "design_effect": len(rows) / 8, "effective": 8.0}
    write_json(run / "evaluation.json", {**evaluation, "groups": groups})
    return run


def rival(run: Path, name: str, wrong: int) -> Path:
    """Another run on the same pictures, with so many answers wrong."""
    other = run.parent / name
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("report.html"))
    return enriched(other, wrong)


def swept(run: Path) -> Path:
    """A sweep of learning rates beside the run."""
    top1 = {"value": 0.75, "correct": 9, "count": 12, "interval": [0.47, 0.91]}
    points = [
        {"recipe": "book", "value": rate, "run": str(run), "diverged": found is None, "top1": found, "best": False}
        for rate, found in ((1e-4, top1), (1e-3, {**top1, "correct": 11}), (1.0, None))
    ]
    write_json(
        run.parent / "colours-sweep-1" / "study.json",
        {"identity": "x", "field": "learning_rate", "points": points, "test": {}, "conclusion": "The best is 0.001."},
    )
    return run
