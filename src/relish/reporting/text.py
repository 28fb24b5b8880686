"""Figures as a person reads them in a terminal: plain tables, an evaluation, how a model decides."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relish.core.errors import one_line, visible
from relish.data.dataset import CROSS_VALIDATION
from relish.evaluation.figures import Figures
from relish.evaluation.grouped import Subgroups
from relish.evaluation.held_out import HeldOut
from relish.evaluation.metrics import Proportion, Scores
from relish.evaluation.prediction import softmax
from relish.evaluation.thresholds import answered, at_threshold, precision_and_recall

MOST_CLASSES = 12
"""Columns of the confusion matrix: more do not fit a screen, and the worst pairs are listed instead."""
MOST_ROWS = 20
"""Of the per-class table: with more classes, those of lowest F1."""
MOST_CONFUSIONS = 10


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Set rows under headings, wide characters counted as wide.

    Args:
        headings: one a column.
        rows: as many cells each as there are headings; taken literally, brackets too, control characters as escapes.
        right: positions of the columns that are aligned to the right.

    Returns:
        Lines without trailing spaces, without a final line end.
    """
    headings, rows = [one_line(cell) for cell in headings], [[one_line(cell) for cell in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if position in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    # Wide enough for any row: a table that wraps or cuts its cells cannot be read back.
    width = sum(max(len(str(row[i])) for row in (headings, *rows)) * 2 + 4 for i in range(len(headings)))
    page = StringIO()
    # In a notebook rich would show the table there and then.
    Console(file=page, width=width, color_system=None, force_jupyter=False).print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines() if line.strip())


def three_digits(value: float | None) -> str:
    """A figure between 0 and 1; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def evaluation_text(figures: Figures) -> str:
    """An evaluation in full: accuracy, calibration, decision, subgroups, the per-class table, the confusion matrix."""
    parts = [f"accuracy {figures.sentence()}", *group_lines(figures), *_further_metrics(figures)]
    parts += [calibration_line(figures), *decision_lines(figures, None, "here"), *unknown_lines(figures)]
    for one in figures.subgroups:
        parts += ["", *_subgroup_lines(one)]
    parts += ["", _per_class(figures)]
    confused = _worst_pairs(figures)
    if len(figures.classes) <= MOST_CLASSES:
        rows = [[name, *map(str, row)] for name, row in zip(figures.classes, figures.confusion, strict=True)]
        confused = [text_table(["truth \\ said", *figures.classes], rows, right=range(1, len(rows) + 1))]
    return "\n".join([*parts, "", *confused])


def group_lines(scores: Scores) -> list[str]:
    """What known groups make of the interval; nothing where none is known."""
    return list(filter(None, [scores.groups.sentence()] if scores.groups else []))


def _subgroup_lines(found: Subgroups) -> list[str]:
    rows = [
        [one.name, three_digits(one.accuracy.value), f"{low:.3f}–{high:.3f}", f"{one.accuracy.correct}",
         f"{one.accuracy.count}", "worse" if one.worse else ""]
        for one in found.shown
        for low, high in [one.accuracy.interval]
    ]  # fmt: skip
    headings = [found.column, "accuracy", "95% interval", "right", "pictures", ""]
    lines = [f"accuracy by {found.column}, worst first:", text_table(headings, rows, right=(1, 3, 4))]
    return list(map(visible, [*lines, found.sentence(), *([found.omitted()] if found.omitted() else [])]))


def calibration_line(figures: Figures) -> str:
    """Log-loss, Brier score and calibration error; where a temperature was fitted, without it and with it."""
    before, after, decision = figures.before_temperature, figures.calibration, figures.decision
    names = ("log-loss", "Brier score", "calibration error")
    pairs = zip(names, asdict(before).values(), asdict(after).values(), strict=True)
    if not decision.fitted_on:
        return ", ".join(f"{name} {value:.3f}" for name, _, value in pairs) + "; no temperature was fitted"
    changes = ", ".join(f"{name} {without:.3f} → {value:.3f}" for name, without, value in pairs)
    fitted_on = f"{decision.fitted_on:,} picture{'s' * (decision.fitted_on != 1)}"
    return f"temperature {decision.temperature:.3g}, fitted on {fitted_on} held out: {changes}"


def decision_lines(figures: Figures, held: HeldOut | None, split: str) -> list[str]:
    """Recall, precision and accuracy that threshold and abstention reach; no line where the model has neither.

    Args:
        held: logits of held-out images, for a line about them; None omits it.
        split: name of the images that were evaluated.
    """
    decision, lines = figures.decision, []
    held = None if split == CROSS_VALIDATION else held  # these are the images that were evaluated
    held_out = None if held is None else softmax(held.logits, decision.temperature)
    if decision.positive is not None and decision.threshold is not None:
        k = figures.classes.index(decision.positive)
        lines.append(f"threshold {decision.threshold:.4f} of {decision.positive}, for {decision.aim}")
        if held is not None and held_out is not None:
            reached = at_threshold(held_out[:, k], held.labels == k, decision.threshold)
            lines.append(f"  held-out: {reached.sentence()}")
        recall, precision = figures.recall_and_precision[k]  # of predicted classes, which have the threshold applied
        lines.append(f"  {split}: {precision_and_recall(precision, recall)}")
        lines.append(f"  {split}: without it, accuracy {figures.likeliest.sentence()}")
    if figures.answered is not None:
        lines.append(f"unsure below {decision.unsure_below:.4f}")
        if held is not None and held_out is not None:
            predicted, unsure = decision.decide(held_out, figures.classes)
            lines.append(f"  held-out: {answered(np.equal(predicted, held.labels), unsure).sentence()}")
        lines.append(f"  {split}: {figures.answered.sentence()}")
    return lines


def unknown_lines(figures: Figures) -> list[str]:
    """How many images are called unknown; no line where the model calls nothing so."""
    return [] if figures.unknown is None else [f"unknown {figures.unknown.sentence()}"]


def change_text(before: Figures, after: Figures, held: HeldOut, split: str) -> str:
    """How a model decides and, where that has changed, how it decided before.

    Where it has not changed, a table of what answering fewer images comes to.
    """
    now = [calibration_line(after), *_accuracy_and_decision(after, held, split)]
    if before.decision == after.decision:
        which = "held-out" if split == CROSS_VALIDATION else split
        return "\n".join([*now, "", f"what answering fewer {which} pictures comes to:", _coverage_table(after)])
    then = [f"  {line}" for line in _accuracy_and_decision(before, held, split)]
    return "\n".join(["before", *then, "now", *(f"  {line}" for line in now)])


def _further_metrics(figures: Figures) -> list[str]:
    """Metrics that belong beside the accuracy where classes are uneven, two, or many."""
    lines = []
    if figures.uneven:
        lines.append(f"balanced accuracy {figures.balanced_accuracy.sentence()}: the classes are uneven")
    if figures.uneven or len(figures.classes) == 2:
        lines.append(f"macro-F1 {figures.macro_f1.sentence()}")
        if figures.auc is not None:
            lines.append(f"area under the ROC curve {figures.auc.sentence()}")
    if figures.top5 is not None:
        lines.append(f"the true class is among the five likeliest: {figures.top5.sentence()}")
    return lines


def _per_class(scores: Scores) -> str:
    rows = list(scores.per_class)
    if len(rows) > MOST_ROWS:
        rows = sorted((one for one in rows if one.f1 is not None), key=lambda one: one.f1 or 0.0)[:MOST_ROWS]
    table = text_table(
        ["class", "precision", "recall", "f1", "pictures"],
        [[c.name, *(three_digits(v) for v in (c.precision, c.recall, c.f1)), str(c.count)] for c in rows],
        right=(1, 2, 3, 4),
    )
    fewer = f"the {len(rows)} of {len(scores.classes)} classes with the lowest F1:\n"
    return table if len(rows) == len(scores.classes) else fewer + table


def _worst_pairs(scores: Scores) -> list[str]:
    pairs = [
        (count, scores.classes[truth], scores.classes[predicted])
        for truth, row in enumerate(scores.confusion)
        for predicted, count in enumerate(row)
        if count and predicted != truth
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:MOST_CONFUSIONS]
    if not worst:
        return ["nothing is mixed up"]
    table = text_table(["pictures", "truth", "said"], [[str(n), *names] for n, *names in worst], right=(0,))
    return [f"most often mixed up, of {sum(pair[0] for pair in pairs)} wrong answers:", table]


def _accuracy_and_decision(figures: Figures, held: HeldOut, split: str) -> list[str]:
    decision, lines = figures.decision, [f"{split} accuracy {figures.sentence()}", *group_lines(figures)]
    if decision.threshold is None:
        lines.append("the likeliest class is said" + (", always" if decision.unsure_below is None else ""))
    return [*lines, *decision_lines(figures, held, split)]


def _coverage_table(figures: Figures) -> str:
    effect = 1.0 if figures.groups is None else figures.groups.design_effect
    rows = [
        [f"{point.coverage:.0%}", f"{point.accuracy:.3f}", f"{low:.3f}–{high:.3f}", f"{point.unsure_below:.3f}"]
        for point in figures.coverage
        for right in [round(point.accuracy * point.count)]
        for low, high in [Proportion(right, point.count, point.count / effect).interval]
    ]
    return text_table(["answered", "accuracy", "95% interval", "unsure below"], rows, right=(0, 1, 2, 3))


SOURCE_HEADINGS = ("source", "accuracy", "95% interval", "from the best", "predict", "file", "licence")
"""Of a table of source models that were tried."""


def source_rows(search: Mapping[str, Any]) -> list[list[str]]:
    """A row for each source model that a search tried to the end, the most accurate first; `search` is sources.json."""
    rows = []
    for place, one in enumerate(search["sources"]):
        low, high = one["accuracy"]["interval"]
        error = "not known" if one["from_best_error"] is None else f"{one['from_best_error']:.4f}"
        rows.append(
            [
                one["name"],
                f"{one['accuracy']['value']:.4f}",
                f"{low:.3f}–{high:.3f}",
                f"{one['from_best']:+.4f} ± {error}" if place else "",
                f"{one['forward_ms']:.3g} ms",
                f"{one['file_bytes'] / 1e6:.1f} MB",
                one["licence"] or "not stated",
            ]
        )
    return rows


def source_sentence(search: Mapping[str, Any]) -> str:
    """Which source model was taken from which, why, and what a larger one would have cost."""
    words = [search["why"], search["larger"]]
    if search["sources"]:
        words.append(f"Accuracies are of a probe, cross-validated on {search['held_out']:,} training pictures.")
    if omitted := search["omitted"]:
        words.append(f"Not tried to the end: {', '.join(one['name'] for one in omitted)}.")
    return " ".join(filter(None, words))
