"""Scores as a person reads them in a terminal: the headline, the per-class table, the confusion."""

from relish.evaluation.metrics import Scores
from relish.report.tables import text_table

MOST_CLASSES = 20
"""More columns of confusion than this do not fit a screen; the JSON document has them all."""


def scores_words(scores: Scores) -> str:
    """Several lines; the confusion's rows are the truth."""
    per_class = text_table(
        ["class", "precision", "recall", "f1", "pictures"],
        [[c.name, *(_share(v) for v in (c.precision, c.recall, c.f1)), str(c.count)] for c in scores.per_class],
        right=(1, 2, 3, 4),
    )
    parts = [f"accuracy {scores.sentence()}", "", per_class]
    if len(scores.classes) <= MOST_CLASSES:
        rows = [[name, *map(str, row)] for name, row in zip(scores.classes, scores.confusion, strict=True)]
        headings = ["truth \\ said", *scores.classes]
        parts += ["", text_table(headings, rows, right=range(1, len(headings)))]
    return "\n".join(parts)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
