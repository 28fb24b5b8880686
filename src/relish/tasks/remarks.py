"""What a run says beside its accuracy: what its source rows are worth, how far figures lie apart, how it decides.

In:   a `Prepared` run, its folder.
Out:  lines, warnings, and events in `metrics.jsonl`.
Not here: the figures themselves (`running.py`).
"""

from accelerate import Accelerator

from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.data.dataset import VALIDATION
from relish.evaluation.figures import Figures
from relish.evaluation.held_out import gap_of, read_held_out, unreached
from relish.evaluation.inference import predict_split
from relish.evaluation.metrics import Proportion, score
from relish.evaluation.source_rows import prove_rows
from relish.reporting.decisions import reached_words, temperature_words
from relish.tasks.preparing import Prepared

MUCH_MORE = 3
"""Where the largest class has more than this many times the pictures of the smallest, balancing is worth a mention."""


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


def say_gap(prepared: Prepared, folder: RunFolder, judged: Proportion, progress: Progress) -> None:
    """How far the final figure lies from the one that the winning rung was chosen by."""
    split = prepared.final_name
    counts = prepared.dataset.splits[split].counts(len(prepared.dataset.classes))
    gap = gap_of(folder, judged, counts.tolist())
    if gap is None:
        return
    if not gap.lower:
        progress.say(f"held-out accuracy was {gap.held.value:.3f}: {split} is {_apart(gap.points)}")
        return
    words = (
        f"{split} accuracy is {-gap.points:.1f} points lower than on held-out training pictures "
        f"({gap.held.sentence()}): {gap.reason(split)}"
    )
    if gap.mixed is None:
        progress.warn(f"{words}. Expect no more than the {split} figure in use.")
    else:
        progress.say(words)


def say_figures(prepared: Prepared, folder: RunFolder, found: Figures, progress: Progress) -> None:
    """What stands beside the accuracy: copies, uneven classes, how the model decides and what that comes to."""
    fresh = folder.read_evaluation()["without_duplicates"]
    if fresh and fresh["left_out"]:
        pictures = "1 picture that has" if fresh["left_out"] == 1 else f"{fresh['left_out']} pictures that have"
        right = Proportion(fresh["correct"], fresh["count"]).sentence()
        progress.say(f"without {pictures} a copy among those learned from: accuracy {right}")
    _say_uneven(prepared, found, progress)
    if found.decision.fitted_on:
        _say_decision(prepared, folder, found, progress)
    else:
        progress.say("temperature 1: no pictures were held out to fit it on (--val-split 0.2 holds some back)")


def _say_uneven(prepared: Prepared, found: Figures, progress: Progress) -> None:
    if found.scores.uneven:
        sentence = found.balanced_accuracy.sentence()
        progress.say(f"balanced accuracy {sentence}: the {prepared.final_name} classes are uneven")
    counts = prepared.learn.counts(len(found.classes))
    times = counts.max() / counts[counts > 0].min()
    if times > MUCH_MORE and prepared.recipe.balance == "none":
        progress.say(
            f"the largest class has {times:.0f} times the training pictures of the smallest: "
            "where every class matters alike, fit again with --set balance=weights"
        )


def _say_decision(prepared: Prepared, folder: RunFolder, found: Figures, progress: Progress) -> None:
    held, request, split = read_held_out(folder.held_out), prepared.request, prepared.final_name
    progress.say(temperature_words(found))
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
