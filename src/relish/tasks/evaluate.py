"""`evaluate` a saved model on labelled images, and `decide`: choose a run's threshold without training again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from relish.core.errors import RunError
from relish.core.io import write_json
from relish.core.progress import SILENT, Progress, default_progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import accelerator_for
from relish.data.dataset import split_of
from relish.data.image import open_image
from relish.data.sources import DataSource, Reading, ReadingOptions
from relish.evaluation.figures import Figures, figures, split_figures
from relish.evaluation.grouped import columns_of
from relish.evaluation.held_out import HeldOut, read_held_out, unreached_aims, with_threshold, with_unsure
from relish.evaluation.prediction import HEADER_KEY, Decision, decision_from
from relish.evaluation.thresholds import parse_aim, parse_unsure
from relish.exporting.onnx_classifier import SUFFIX, OnnxClassifier
from relish.models.saved_model import read_header, rewrite_header
from relish.tasks.classifier import Classifier, labelled_images
from relish.tasks.predict import refuse_choice
from relish.tasks.save import judged, renew_card


def evaluate(
    run: str | Path,
    data: DataSource,
    split: str | None = None,
    *,
    by: str | Sequence[str] = (),
    workers: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> Figures | None:
    """As `Classifier.evaluate`, from a path, which may be of an exported file; None in every process but the first.

    Raises:
        RunError, ModelError, DataError: as loading and evaluating do.
        ImageError: an image cannot be opened any more, and the file is an exported one.
    """
    if Path(run).suffix == SUFFIX:
        refuse_choice(run, device)
        return _evaluate_file(OnnxClassifier(run), data, split, Reading(**reading), by, progress or default_progress())
    accelerator = accelerator_for(device)
    voice = (progress or default_progress()) if accelerator.is_main_process else SILENT
    model = Classifier.load(run, device=device)
    found = model.evaluate(data, split, by=by, workers=workers, progress=voice, **reading)
    return found if accelerator.is_main_process else None


def _evaluate_file(
    model: OnnxClassifier, data: DataSource, split: str | None, reading: Reading, by: str | Sequence[str],
    voice: Progress,
) -> Figures:  # fmt: skip
    value_range = model.about.value_range
    surveyed, chosen, part = labelled_images(data, model.classes, value_range, split, voice, reading)
    columns = columns_of(surveyed.dataset, chosen, by)
    voice.say(f"data    {part}, {len(chosen)} pictures")
    found = []
    with voice.bar("evaluating", len(chosen)) as bar:
        for path in chosen.paths:
            pixels = np.asarray(open_image(path, value_range=value_range))
            found.append(model.probabilities(pixels[None]))
            bar.advance()
    logits = np.concatenate([one.logits for one in found])
    strange = [one.unfamiliarity for one in found if one.unfamiliarity is not None]
    unfamiliarity = np.concatenate(strange) if strange else None
    decision = model.about.decision
    return split_figures(logits, chosen, surveyed.dataset, model.classes, decision, columns, unfamiliarity)


# ---- decide ---------------------------------------------------------------------------------------------------------


NONE = "none"
"""Takes a threshold, or the bound below which the model is unsure, away again."""


@dataclass(frozen=True)
class Decided:
    """A run's figures with the decision it had, and with the one it has now."""

    before: Figures
    after: Figures
    held: HeldOut
    split: str
    """Whose images both are of."""

    def as_json(self) -> dict[str, Any]:
        """`split`, and `before` and `after` as `relish evaluate --json` has them."""
        return {"split": self.split, "before": self.before.as_json(), "after": self.after.as_json()}


def decide(
    run: str | Path, *, threshold: str | None = None, unsure: str | None = None, progress: Progress | None = None
) -> Decided:
    """Choose on held-out images how a finished run's model decides; with neither argument, change nothing.

    Args:
        run: the run folder.
        threshold: with two classes, `precision=0.99`, `recall=0.95` or `f1`, with the class it is about as
            `precision=0.99:hotdog`; "none" says the likelier class again.
        unsure: `accuracy=0.98`; "none" is never unsure again.

    Raises:
        RunError: no such run, not finished, made without held-out images, or what is asked for is not reached; then
            everything is left as it was.
        RecipeError: an argument cannot be read, or there are more than two classes.
    """
    folder = RunFolder.open(Path(run))
    evaluation, held = folder.read_evaluation(), read_held_out(folder.held_out)
    classes, standing = tuple(evaluation["classes"]), decision_from(read_header(folder.model))
    chosen = _chosen(folder, standing, held, classes, threshold, unsure)
    with np.load(folder.predictions, allow_pickle=False) as kept:
        labels, logits = kept["labels"], kept["logits"]
        strange = kept["unfamiliarity"] if "unfamiliarity" in kept.files else None
    groups = [row.get("group") for row in folder.read_dataset()["splits"][split_of(evaluation["split"])]]
    before, after = (figures(logits, labels, classes, decision, groups, strange) for decision in (standing, chosen))
    if chosen != standing:
        with folder.locked():
            # The model first: it is what predicts, and a command that is cut short here is simply given again.
            rewrite_header(folder.model, {HEADER_KEY: chosen.as_header()})
            renewed = {**evaluation, **judged(folder, evaluation["split"], after)}
            renew_card(folder, evaluation, renewed, progress or default_progress())
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
    for words in unreached_aims(decision, held, classes, aim, accuracy):
        raise RunError(
            f"{folder.path}: {words}", hint="Nothing was changed. Ask for less, or train with more pictures."
        )
    return decision
