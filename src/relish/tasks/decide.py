"""`decide`: choose a run's threshold, and below which probability it is unsure, without training again.

In:   a finished run with answers on held-out pictures.
Out:  the header of its model, its card and its `evaluation.json`, rewritten; the figures before and after.

The tensors stay as they are, and so does what was said of each picture; only what is made of it changes.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from relish.core.errors import RunError
from relish.core.io import write_json
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.evaluation.decision import HEADER_KEY, Decision, decision_from
from relish.evaluation.figures import Figures, figures
from relish.evaluation.held_out import HeldOut, read_held_out, unreached, with_threshold, with_unsure
from relish.evaluation.thresholds import parse_aim, parse_unsure
from relish.models.header import read_header, rewrite_header
from relish.tasks.card import renew_card
from relish.tasks.writing import judged

NONE = "none"
"""Takes a threshold, or the bound below which the model is unsure, away again."""


@dataclass(frozen=True)
class Decided:
    """A run's figures with the decision it had, and with the one it has now."""

    before: Figures
    after: Figures
    held: HeldOut
    split: str
    """What both are judged on."""

    def as_json(self) -> dict[str, Any]:
        """`split`, and `before` and `after` as `relish evaluate --json` has them."""
        return {"split": self.split, "before": self.before.as_json(), "after": self.after.as_json()}


def decide(
    run: str | Path, *, threshold: str | None = None, unsure: str | None = None, progress: Progress | None = None
) -> Decided:
    """Choose on held-out pictures how a finished run's model answers; with neither argument, change nothing.

    Args:
        run: the run folder.
        threshold: with two classes, `precision=0.99`, `recall=0.95` or `f1`, with the class it is about as
            `precision=0.99:hotdog`; "none" says the likelier class again.
        unsure: `accuracy=0.98`; "none" is never unsure again.

    Raises:
        RunError: no such run, not finished, made without held-out pictures, or what is asked for is not reached; then
            everything is left as it was.
        RecipeError: an argument cannot be read, or there are more than two classes.
    """
    folder = RunFolder.open(Path(run))
    evaluation, held = folder.read_evaluation(), read_held_out(folder.held_out)
    classes, standing = tuple(evaluation["classes"]), decision_from(read_header(folder.model))
    chosen = _chosen(folder, standing, held, classes, threshold, unsure)
    with np.load(folder.predictions, allow_pickle=False) as kept:
        labels, logits = kept["labels"], kept["logits"]
    before, after = (figures(logits, labels, classes, decision) for decision in (standing, chosen))
    if chosen != standing:
        with folder.locked():
            # The model first: it is what answers, and a command that is cut short here is simply given again.
            rewrite_header(folder.model, {HEADER_KEY: chosen.as_header()})
            renewed = {**evaluation, **judged(folder, evaluation["split"], after)}
            renew_card(folder, evaluation, renewed, progress or Progress())
            write_json(folder.evaluation, renewed)
    return Decided(before, after, held, evaluation["split"])


def _chosen(
    folder: RunFolder,
    standing: Decision,
    held: HeldOut,
    classes: tuple[str, ...],
    threshold: str | None,
    unsure: str | None,
) -> Decision:
    aim = parse_aim(threshold) if threshold not in (None, NONE) else None
    accuracy = parse_unsure(unsure) if unsure not in (None, NONE) else None
    if threshold is not None and unsure is None and standing.unsure_below is not None:
        raise RunError(
            f"{folder.path}: is unsure below {standing.unsure_below:.4f}, which was chosen for the answers it had.",
            hint="Say anew what is wanted of them: add --unsure accuracy=…, or --unsure none.",
        )
    decision = standing
    if threshold == NONE:
        decision = replace(decision, positive=None, threshold=None, aim=None)
    if unsure == NONE:
        decision = replace(decision, unsure_below=None)
    if aim is not None:
        decision = with_threshold(decision, held, classes, aim)
    if accuracy is not None:
        decision = with_unsure(decision, held, classes, accuracy)
    for words in unreached(decision, held, classes, aim, accuracy):
        raise RunError(
            f"{folder.path}: {words}", hint="Nothing was changed. Ask for less, or train with more pictures."
        )
    return decision
