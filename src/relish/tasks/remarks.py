"""What a run says beside its figures: what its source rows are worth, and how far two figures lie apart.

In:   a `Prepared` run, its folder.
Out:  lines, warnings, and events in `metrics.jsonl`.
Not here: the figures themselves (`running.py`).
"""

from accelerate import Accelerator

from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.data.dataset import VALIDATION
from relish.evaluation.figures import Figures
from relish.evaluation.held_out import read_held_out, unreached
from relish.evaluation.metrics import Proportion, score
from relish.evaluation.predictions import predict_split
from relish.evaluation.rows import prove_rows
from relish.report.decisions import reached_words, temperature_words
from relish.tasks.preparing import Prepared


def say_before(
    prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int
) -> None:
    """Whether the rows are of these classes, and what their head scores before any training (the book's exercise 4)."""
    _prove_rows(prepared, folder, accelerator, progress, workers)
    split = prepared.dataset.splits[prepared.score_name]
    found = predict_split(
        prepared.target.network, split, prepared.preprocessing, accelerator, workers=workers, progress=progress,
        title="scoring the source rows",
    )  # fmt: skip
    scores = score(found, split.labels, prepared.dataset.classes)
    progress.say(f"before training, the head of source rows scores {prepared.score_name} {scores.sentence()}")
    if accelerator.is_main_process:
        folder.record(event="before", epoch=0, batch=0, split=prepared.score_name, **scores.as_json()["top1"])


def say_gap(folder: RunFolder, judged: Proportion, split: str, progress: Progress) -> None:
    """How far the final figure lies from the one that the winning rung was chosen by."""
    kept = [r for r in folder.records() if r["event"] == "rung" and r.get("kept", True)]
    if not kept:
        return
    held = Proportion(kept[-1]["correct"], kept[-1]["count"])
    points = 100 * (judged.value - held.value)
    if judged.interval[1] < held.interval[0]:
        progress.warn(
            f"{split} accuracy is {-points:.1f} points lower than on held-out training pictures ({held.sentence()}): "
            f"the {split} pictures are of another kind. Expect no more than the {split} figure in use."
        )
    else:
        progress.say(f"held-out accuracy was {held.value:.3f}: {split} is {_apart(points)}")


def say_figures(prepared: Prepared, folder: RunFolder, found: Figures, progress: Progress) -> None:
    """What stands beside the accuracy: copies, uneven classes, how the model decides and what that comes to."""
    split, fresh = prepared.final_name, folder.read_evaluation()["without_duplicates"]
    if fresh and fresh["left_out"]:
        pictures = "1 picture that has" if fresh["left_out"] == 1 else f"{fresh['left_out']} pictures that have"
        progress.say(
            f"without {pictures} a copy among those learned from: accuracy "
            f"{Proportion(fresh['correct'], fresh['count']).sentence()}"
        )
    if found.scores.uneven:
        progress.say(f"classes are uneven: balanced accuracy {found.balanced_accuracy.sentence()}")
    if not found.decision.fitted_on:
        progress.say("temperature 1: no pictures were held out to fit it on (--val-split 0.2 holds some back)")
        return
    progress.say(temperature_words(found))
    held, request = read_held_out(folder.held_out), prepared.request
    for words in unreached(found.decision, held, found.classes, request.aim, request.accuracy):
        progress.warn(words)
    for line in reached_words(found, held, split):
        progress.say(line)
    if split == VALIDATION and prepared.recipe.method == "train":
        progress.say("these were chosen on the pictures they are judged on here: expect a little less in use")


def _apart(points: float) -> str:
    if abs(points) < 0.05:
        return "the same"
    return f"{abs(points):.1f} points {'higher' if points > 0 else 'lower, within what chance explains'}"


def _prove_rows(
    prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int
) -> None:
    target, source = prepared.target, prepared.source
    for proof in prove_rows(
        source.network, prepared.learn, prepared.preprocessing, accelerator, classes=target.classes,
        matches=target.matches, labels=source.labels, workers=workers, progress=progress,
    ):  # fmt: skip
        progress.say(f"proof   {proof.sentence()}")
        if proof.doubtful:
            progress.warn(proof.doubt())
        if accelerator.is_main_process:
            folder.record(event="proof", epoch=0, batch=0, **proof.as_json())
    source.network.cpu()  # it has said all it is asked
