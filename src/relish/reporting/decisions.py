"""How a model decides, and what that comes to, as a person reads it in a terminal."""

import numpy as np

from relish.evaluation.figures import Figures
from relish.evaluation.held_out import HeldOut
from relish.evaluation.metrics import Proportion
from relish.evaluation.prediction import Decision, tempered_softmax
from relish.evaluation.thresholds import Reached, answered, reached
from relish.reporting.tables import text_table


def temperature_words(found: Figures) -> str:
    """What the probabilities are worth; where there is a temperature, without it and with it."""
    before, after, decision = found.before_temperature, found.calibration, found.decision
    names = ("log-loss", "Brier score", "calibration error")
    pairs = zip(names, before.as_json().values(), after.as_json().values(), strict=True)
    if not decision.fitted_on:
        return ", ".join(f"{name} {value:.3f}" for name, _, value in pairs) + "; no temperature was fitted"
    told = ", ".join(f"{name} {without:.3f} → {value:.3f}" for name, without, value in pairs)
    return f"temperature {decision.temperature:.3g}, fitted on {_pictures(decision.fitted_on)} held out: {told}"


def reached_words(found: Figures, held: HeldOut | None, split: str) -> list[str]:
    """What threshold and abstention come to, on held-out pictures and on those that were judged; often no line."""
    decision, lines = found.decision, []
    positive, threshold = decision.positive, decision.threshold
    if positive is not None and threshold is not None:
        lines.append(f"threshold {threshold:.4f} of {positive}, for {decision.aim}")
        if held is not None:
            lines.append(f"  held-out: {_held_reached(decision, positive, threshold, held, found).sentence()}")
        lines.append(f"  {split}: {_judged_reached(found).sentence()}")
        lines.append(f"  {split}: without it, accuracy {found.likeliest.sentence()}")
    if found.answered is not None:
        lines.append(f"unsure below {decision.unsure_below:.4f}")
        if held is not None:
            lines.append(f"  held-out: {_held_answered(decision, held, found.classes)}")
        lines.append(f"  {split}: {found.answered.sentence()}")
    return lines


def decided_words(before: Figures, after: Figures, held: HeldOut, split: str) -> str:
    """How a model decides; where that has changed, how it did before; what answering fewer pictures comes to."""
    now = [temperature_words(after), *_answers(after, held, split)]
    if before.decision == after.decision:
        return "\n".join([*now, "", f"what answering fewer {split} pictures comes to:", _coverage_table(after)])
    return "\n".join(["before", *_indented(_answers(before, held, split)), "now", *_indented(now)])


def _answers(found: Figures, held: HeldOut, split: str) -> list[str]:
    decision, lines = found.decision, [f"{split} accuracy {found.sentence()}"]
    if decision.threshold is None:
        lines.append("the likeliest class is said" + (", always" if decision.unsure_below is None else ""))
    return [*lines, *reached_words(found, held, split)]


def _coverage_table(found: Figures) -> str:
    rows = [
        [f"{point.coverage:.0%}", f"{point.accuracy:.3f}", f"{low:.3f}–{high:.3f}", f"{point.unsure_below:.3f}"]
        for point in found.coverage
        for low, high in [Proportion(round(point.accuracy * point.count), point.count).interval]
    ]
    return text_table(["answered", "accuracy", "95% interval", "unsure below"], rows, right=(0, 1, 2, 3))


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _held_reached(decision: Decision, positive: str, threshold: float, held: HeldOut, found: Figures) -> Reached:
    place = found.classes.index(positive)
    probability = tempered_softmax(held.logits, decision.temperature)[:, place]
    return reached(probability, held.labels == place, threshold)


def _held_answered(decision: Decision, held: HeldOut, classes: tuple[str, ...]) -> str:
    said, unsure = decision.decide(tempered_softmax(held.logits, decision.temperature), classes)
    return answered(np.equal(said, held.labels), unsure).sentence()


def _judged_reached(found: Figures) -> Reached:
    """From the confusion, whose classes are those that are said, the threshold applied."""
    place = found.classes.index(str(found.decision.positive))
    rows = found.confusion
    return Reached(rows[place][place], sum(row[place] for row in rows), sum(rows[place]))


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"
