"""Figures as a person reads them in a terminal: the headline first, then tables no longer than a screen."""

from relish.evaluation.figures import Figures
from relish.evaluation.metrics import ClassScores, Scores
from relish.reporting.decisions import reached_words, temperature_words
from relish.reporting.tables import share_words, text_table

MOST_CLASSES = 12
"""More columns of confusion than this do not fit a screen; the worst of it is told, the JSON document has it all."""
MOST_ROWS = 20
"""Of the per-class table: with more classes, the ones of lowest F1."""
MOST_CONFUSIONS = 10


def figures_words(found: Figures, split: str = "here") -> str:
    """Several lines.

    Args:
        split: what the pictures are called.
    """
    parts = [f"accuracy {found.sentence()}", *_beside(found), temperature_words(found)]
    parts += [*reached_words(found, None, split), "", _per_class(found.scores)]
    confused = _confusion(found.scores) if len(found.classes) <= MOST_CLASSES else _worst(found.scores)
    return "\n".join([*parts, "", *confused])


def _beside(found: Figures) -> list[str]:
    """What belongs beside the accuracy: where classes are uneven, few, or many."""
    lines = []
    if found.scores.uneven:
        lines.append(f"balanced accuracy {found.balanced_accuracy.sentence()}: the classes are uneven")
    if found.scores.uneven or len(found.classes) == 2:
        lines.append(f"macro-F1 {found.macro_f1.sentence()}")
        if found.auc is not None:
            lines.append(f"area under the ROC curve {found.auc.sentence()}")
    if found.top5 is not None:
        lines.append(f"the true class is among the five likeliest: {found.top5.sentence()}")
    return lines


def _per_class(scores: Scores) -> str:
    rows = list(scores.per_class)
    if len(rows) > MOST_ROWS:
        rows = sorted((one for one in rows if one.f1 is not None), key=_f1)[:MOST_ROWS]
    table = text_table(
        ["class", "precision", "recall", "f1", "pictures"],
        [[c.name, *(share_words(v) for v in (c.precision, c.recall, c.f1)), str(c.count)] for c in rows],
        right=(1, 2, 3, 4),
    )
    fewer = f"the {len(rows)} of {len(scores.classes)} classes with the lowest F1:\n"
    return table if len(rows) == len(scores.classes) else fewer + table


def _confusion(scores: Scores) -> list[str]:
    rows = [[name, *map(str, row)] for name, row in zip(scores.classes, scores.confusion, strict=True)]
    headings = ["truth \\ said", *scores.classes]
    return [text_table(headings, rows, right=range(1, len(headings)))]


def _worst(scores: Scores) -> list[str]:
    """The pairs that are mixed up most often."""
    pairs = [
        (count, scores.classes[truth], scores.classes[said])
        for truth, row in enumerate(scores.confusion)
        for said, count in enumerate(row)
        if count and said != truth
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:MOST_CONFUSIONS]
    if not worst:
        return ["nothing is mixed up"]
    table = text_table(["pictures", "truth", "said"], [[str(n), truth, said] for n, truth, said in worst], right=(0,))
    return [f"most often mixed up, of {sum(pair[0] for pair in pairs)} wrong answers:", table]


def _f1(one: ClassScores) -> float:
    return one.f1 or 0.0
