"""Carry out a prepared run in its folder: train, save, evaluate what was saved, and say what it comes to.

The final figure is never the one that training saw: the model is loaded again from its file and evaluated as it will be
used. `evaluation.json` is the last file that is written.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from torch import nn

from relish.core.context import Context, RunContext
from relish.core.errors import ModelError, TooLittleMemory, WorkerFailed, WriteFailed, stopped_by
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import deterministic, elapsed_before, give_memory_back, is_out_of_memory, keep_elapsed
from relish.data.dataset import NO_IMAGES, VALIDATION, Split, plural
from relish.data.kept import kept_on
from relish.data.loader import DecodedImages, OpenedImages, View
from relish.data.split import evenly_spaced
from relish.data.transforms import Preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.figures import Figures, split_figures
from relish.evaluation.held_out import HeldOut, gap_of, read_held_out, unreached_aims
from relish.evaluation.inference import Logits, split_logits
from relish.evaluation.metrics import Proportion, score
from relish.evaluation.prediction import HEADER_KEY as DECISION_KEY
from relish.evaluation.prediction import softmax
from relish.evaluation.series import find_series
from relish.evaluation.source_rows import prove_rows
from relish.evaluation.unfamiliarity import HEADER_KEY, MOST_IMAGES, fit_unfamiliarity, parted
from relish.models.saved_model import rewrite_header
from relish.models.summary import describe
from relish.reporting.text import calibration_line, decision_lines, group_lines, unknown_lines
from relish.tasks.classifier import Classifier
from relish.tasks.prepare import Prepared
from relish.tasks.run_results import accuracy_words
from relish.tasks.save import describe_run, draw_run, save_run, write_results
from relish.tasks.user_code import own_network, save_source
from relish.training.auto import climb
from relish.training.checkpoint import Tracker
from relish.training.finetune import HELD_OUT
from relish.training.measure import Budget, run_computing
from relish.training.optim import learning_rates
from relish.training.scenes import seeks_series
from relish.training.train import TrainingSetup, train

RUNS = Path("runs")
"""Where run folders go unless told otherwise."""


def new_folder(context: Context, prepared: Prepared, out: Path | None, runs: Path = RUNS) -> RunFolder:
    """A new run folder with what was asked for in it; the same one in every process."""
    request = {**prepared.request.as_dict(), "identity": prepared.identity}
    recipe = prepared.recipe.as_dict()
    stem = f"{prepared.dataset.name}-{prepared.recipe.name}"

    def made() -> RunFolder:
        if out is not None:
            return RunFolder.create(out, request, recipe)
        return RunFolder.create_next(runs, stem, request, recipe)

    return RunFolder(Path(context.from_main(lambda: str(made().path))))


def train_and_evaluate(context: Context, prepared: Prepared, folder: RunFolder) -> Classifier:
    """Train what was prepared, in its folder, from its checkpoint if there is one; save, and evaluate what was saved.

    Raises:
        Diverged, Stopped, ImageError: as the loop does.
        WriteFailed: the disk is full; the run can be resumed from what was saved before.
        TooLittleMemory: also where batches are computed in parts.
        WorkerFailed: a process that reads images has died.
        RunError: another process works in the folder.
    """
    with _opened(context, prepared, folder) as run:
        setup, stage = _setup(run, prepared), folder
        if not prepared.recipe.deterministic:  # whether they fit may be another matter when the run is resumed
            setup = replace(setup, kept=kept_on(run.device, setup.train.paths, run.progress))

        def save(preprocessing: Preprocessing, held: HeldOut | None) -> None:
            if run.is_main:
                save_run(prepared, folder, preprocessing, held)

        if prepared.recipe.method == "train":
            if prepared.recipe.head == "source" and not folder.checkpoint.is_file():
                _say_before(run, prepared, setup)
            images = prepared.recipe.passes * len(setup.train)
            setup = replace(setup, computing=run_computing(run, setup, images))
            logits = train(run, setup)
            save(prepared.preprocessing, _held_out(run, prepared, setup, logits))
            decoded, evaluated_on = setup.decoded, prepared.score_name
        else:
            compared = min(len(setup.train), MOST_IMAGES) if prepared.request.unknown_share else 0
            budget = Budget(
                seconds=prepared.request.budget or math.inf,
                began=time.monotonic() - elapsed_before(folder.stopwatch),
                evaluated=compared + (0 if prepared.nested else len(prepared.final)),
            )
            with keep_elapsed(folder.stopwatch, budget.began) if run.is_main else nullcontext():
                name, decoded = climb(run, setup, budget, save, prepared.request.target_accuracy)
            stage, evaluated_on = RunFolder(folder.stages / name) if name else folder, HELD_OUT
        if run.is_main:
            draw_run(folder, stage, evaluated_on)
        learned = setup.train
        del setup  # and the images that it keeps
        return _evaluate(run, prepared, learned, decoded)


@contextmanager
def _opened(context: Context, prepared: Prepared, folder: RunFolder) -> Iterator[RunContext]:
    """The run, its folder held for this process, its tracker told of its events; errors say how to resume."""
    try:
        with ExitStack() as until_the_end:
            until_the_end.enter_context(deterministic(prepared.recipe.deterministic and context.device.type == "cuda"))
            if not context.is_main:
                yield context.in_run(folder, prepared.request.seed)
                return
            until_the_end.enter_context(folder.locked())
            listeners = prepared.code.callbacks
            if prepared.request.track:
                tracker = Tracker(prepared.request.track, folder.path, context.device.type)
                until_the_end.callback(tracker.end)
                listeners = (tracker.hear, *listeners)
            describe_run(context, prepared, folder)
            if prepared.code.source is not None:
                save_source(folder, prepared.code.source)
            yield context.in_run(folder, prepared.request.seed, listeners)
    except KeyboardInterrupt as error:  # outside the loop, or a second one in it
        raise stopped_by(error, "stopped.", f"Resume with: {folder.resume_command}") from error
    except (WriteFailed, WorkerFailed, TooLittleMemory) as error:
        raise type(error)(error.message, hint=f"{error.hint} Resume with: {folder.resume_command}") from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TooLittleMemory(
            f"{context.device}: too little memory for batches of {prepared.recipe.batch_size} pictures "
            f"of {prepared.preprocessing.image_size} pixels.",
            hint="Fit again with half the --batch-size, or a smaller --image-size. "
            f"Resume with: {folder.resume_command}",
        ) from error


def _setup(run: RunContext, prepared: Prepared) -> TrainingSetup:
    """What is trained on what: the ladder trains on the validation split too, and chooses by it."""
    splits, survey, loss = prepared.dataset.splits, prepared.survey, prepared.code.loss
    setup = TrainingSetup(
        target=prepared.target,
        recipe=prepared.recipe,
        preprocessing=prepared.preprocessing,
        train=prepared.train,
        validation=NO_IMAGES if prepared.nested else splits[prepared.score_name],
        validation_name=prepared.score_name,
        nested=prepared.nested,
        transform=prepared.code.transform,
        loss=copy.deepcopy(loss).to(run.device) if isinstance(loss, nn.Module) else loss,
        opened=OpenedImages(),
    )
    if prepared.recipe.method == "train":
        return replace(
            setup, decoded=DecodedImages(setup.validation.paths, setup.preprocessing, run.folder.path, run.device)
        )
    train, validation = setup.train, NO_IMAGES
    if prepared.final_name != VALIDATION and VALIDATION in splits:
        validation = splits[VALIDATION]
        train = train + validation
    facts = survey.facts_of(train.paths)
    sizes = zip(facts["width"].tolist(), facts["height"].tolist(), strict=True)
    return replace(
        setup, train=train, validation=validation, sha256=survey.sha256, units=survey.units,
        sizes=dict(zip(train.paths, sizes, strict=True)),
        facts=survey.facts if seeks_series(prepared.request.group_by, prepared.dataset) else {},
        final=NO_IMAGES if prepared.nested else prepared.final, final_name=prepared.final_name,
    )  # fmt: skip


def _held_out(run: RunContext, prepared: Prepared, setup: TrainingSetup, logits: Logits | None) -> HeldOut | None:
    """What the network predicts of the validation split, on which it was not trained; None where there is none.

    Args:
        logits: of that split, where they are known.
    """
    if VALIDATION not in prepared.dataset.splits:
        return None
    split = setup.validation
    if logits is None:
        logits = split_logits(
            setup.target.network, split, setup.preprocessing, run, title="held-out pictures",
            heads=setup.target.head_names, decoded=setup.decoded,
        )  # fmt: skip
    return HeldOut(split.labels, logits, tuple(prepared.survey.sha256[path] for path in split.paths))


def _evaluate(run: RunContext, prepared: Prepared, learned: Split, decoded: DecodedImages | None) -> Classifier:
    """The saved model, loaded, with what is unknown to it; evaluated on the final split, its figures written and said.

    Where it learned from every image, the figures are of what was said of each by a model that had not.

    Args:
        learned: the images that it was trained on.
        decoded: images of the run that need not be decoded again, to tell what is unknown.
    """
    run.accelerator.wait_for_everyone()
    give_memory_back()
    model = Classifier.load(run.folder.path, network=own_network(prepared.source), device=run.device.type)
    if decoded is not None and decoded.preprocessing != model.preprocessing:
        decoded = None
    strange = _tell_unknown(run, prepared, model, learned, decoded)
    final, name = prepared.final, prepared.final_name
    if prepared.nested:
        logits = read_held_out(run.folder.held_out).logits
    else:
        model.hasten(len(final), run)
        rows = split_logits(model.scored, final, model.preprocessing, run, title="judging")
        logits, strange = parted(rows, len(model.classes))
    found = split_figures(logits, final, prepared.dataset, model.classes, model.decision, unfamiliarity=strange)
    if run.is_main:
        run.tell(event="judged", split=name, correct=found.top1.correct, count=found.top1.count)
        write_results(prepared, run.folder, found, logits, strange)
        if prepared.nested:
            words = "in nested cross-validation: every picture was learned from"
            run.progress.say(f"accuracy {found.sentence()} {words}")
        else:
            run.progress.say(f"{name} accuracy {found.sentence()}, computed from the saved model")
        for line in group_lines(found):
            run.progress.say(line)
        _say_gap(run, prepared, found.likeliest)
        _say_figures(run, prepared, found)
    run.accelerator.wait_for_everyone()  # so that no process looks for results that are being written
    model.accuracy = accuracy_words(run.folder)
    return model


def _tell_unknown(
    run: RunContext, prepared: Prepared, model: Classifier, learned: Split, decoded: DecodedImages | None
) -> Features | None:
    """Let the saved model tell what is unlike its training images, where it has features to compare.

    Held out are the images of a validation split that it was not trained on; else each training image in turn.

    Returns:
        (N,): the unfamiliarity of each training image, held out in turn; None where not all of them were.
    """
    share, splits, survey = prepared.request.unknown_share, prepared.dataset.splits, prepared.survey
    if share is None:
        return None
    try:
        backbone = Backbone(model.network, model.heads, model.source, run.device)

        def features(split: Split, title: str) -> tuple[Split, Features]:
            some = split.take(evenly_spaced(len(split), MOST_IMAGES))
            views = [View(model.preprocessing)]
            return some, features_of(backbone, some, views, survey.sha256, run, title=title, decoded=decoded)[0]

        some, found = features(learned, "features, to tell what is unknown")
        apart = prepared.recipe.method == "train" and VALIDATION in splits
        held = features(splits[VALIDATION], "features of held-out pictures")[1] if apart else None
        keys = [survey.units[path] for path in some.paths]
        if seeks_series(prepared.request.group_by, prepared.dataset):
            keys = find_series(found, some.labels, survey.facts_of(some.paths)).keys(keys)
        model.unfamiliarity, limit = fit_unfamiliarity(found, keys, share, held)
    except ModelError as error:
        run.progress.say(f"unknown nothing is called so: {error.message}")
        return None
    model.decision = replace(model.decision, unknown_above=limit.above)
    if run.is_main:
        words = {DECISION_KEY: model.decision.as_header(), HEADER_KEY: model.unfamiliarity.as_header()}
        rewrite_header(run.folder.model, words)
    run.progress.say(f"unknown {limit.sentence()}")
    return limit.scores if not apart and limit.held == len(learned) else None


# ---- what a run says before it begins, and beside its accuracy ------------------------------------------------------

MUCH_MORE = 3
"""Where the largest class has more than this many times the pictures of the smallest, balancing is worth a mention."""


def introduce(prepared: Prepared, progress: Progress) -> None:
    """Say what will be learned, from what, starting where: the first lines of every run."""
    dataset = prepared.dataset
    counts = ", ".join(f"{name} {len(split)}" for name, split in dataset.splits.items())
    progress.say(f"data    {dataset.name}: {counts} pictures")
    progress.say(f"classes {_listed(dataset.classes)}")
    if prepared.survey.depth:
        progress.say(f"values  {prepared.survey.depth}")
    if dataset.groups:
        count, groups = len(dataset.groups), plural(len({*dataset.groups.values()}), "group")
        progress.say(f"groups  {groups} of {plural(count, 'picture')}; each stays on one side")
    for warning in dataset.warnings:
        progress.warn(warning)
    progress.say(f"source  {prepared.source.name}: {prepared.source.origin}")
    probed = prepared.recipe.method != "train"
    solved = prepared.recipe.method == "probe" or prepared.recipe.learning_rate is None
    rates = {} if solved else learning_rates(prepared.recipe)
    for line in describe(prepared.target, rates, start="solved for on the backbone's features" if probed else ""):
        progress.say(line)
    if prepared.nested:
        progress.say(
            "few     every picture is learned from; how good the model is comes from nested cross-validation "
            "(--val-split 0.2 sets some aside instead)"
        )
    how = prepared.preprocessing
    progress.say(
        f"input   {how.image_size} px; mean {_numbers(how.mean)}, std {_numbers(how.std)} ({_winner(prepared)})"
    )


def _winner(prepared: Prepared) -> str:
    origin = dict(prepared.source.data_config.origin)
    if prepared.recipe.image_size:
        origin["input_size"] = "user"
    return ", ".join(
        f"{name.replace('input_', '')} from {who}" for name, who in origin.items() if name != "interpolation"
    )


def _listed(classes: tuple[str, ...], most: int = 12) -> str:
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(classes[:most]))
    return shown + (f" … {len(classes) - 1} {classes[-1]}" if len(classes) > most else "")


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)


def _say_before(run: RunContext, prepared: Prepared, setup: TrainingSetup) -> None:
    """Whether the rows are of these classes, and what their head scores before any training (the book's exercise 4)."""
    target, source = prepared.target, prepared.source
    for proof in prove_rows(
        source.network, prepared.train, prepared.preprocessing, run, classes=target.classes, matches=target.matches,
        labels=source.labels,
    ):  # fmt: skip
        run.progress.say(f"proof   {proof.sentence()}")
        if proof.doubtful:
            run.progress.warn(proof.doubt())
        run.record(event="proof", epoch=0, batch=0, **proof.as_json())
    source.network.cpu()  # it is not asked again
    split, name = setup.validation, setup.validation_name
    logits = split_logits(
        setup.target.network, split, setup.preprocessing, run, title="scoring the source rows",
        heads=setup.target.head_names, decoded=setup.decoded,
    )  # fmt: skip
    scores = score(softmax(logits), split.labels, prepared.dataset.classes)
    run.progress.say(f"before training, the head of source rows scores {name} {scores.sentence()}")
    run.record(event="before", epoch=0, batch=0, split=name, **scores.as_json()["top1"])


def _say_gap(run: RunContext, prepared: Prepared, evaluated: Proportion) -> None:
    if prepared.nested:
        return  # there is no other figure
    split = prepared.final_name
    counts = prepared.final.counts(len(prepared.dataset.classes))
    gap = gap_of(run.folder, evaluated, counts.tolist())
    if gap is None:
        return
    if not gap.lower:
        run.progress.say(f"held-out accuracy was {gap.held.value:.3f}: {split} is {_apart(gap.points)}")
        return
    words = (
        f"{split} accuracy is {-gap.points:.1f} points lower than on held-out training pictures "
        f"({gap.held.sentence()}): {gap.reason(split)}"
    )
    if gap.reweighted is None:
        run.progress.warn(
            f"{words}, or pictures of one scene were learned from and held out (relish check shows such series, "
            f"--group-by says what belongs together). Expect no more than the {split} figure in use."
        )
    else:
        run.progress.say(words)


def _say_figures(run: RunContext, prepared: Prepared, found: Figures) -> None:
    """What stands beside the accuracy: copies, uneven classes, how the model decides and what that comes to."""
    fresh = run.folder.read_evaluation()["without_duplicates"]
    if fresh and fresh["left_out"]:
        pictures = "1 picture that has" if fresh["left_out"] == 1 else f"{fresh['left_out']} pictures that have"
        right = Proportion.from_json(fresh).sentence()
        run.progress.say(f"without {pictures} a copy among those learned from: accuracy {right}")
    _say_uneven(run, prepared, found)
    for line in unknown_lines(found):
        run.progress.say(line)
    if found.decision.fitted_on:
        _say_decision(run, prepared, found)
    else:
        run.progress.say("temperature 1: no pictures were held out to fit it on (--val-split 0.2 holds some back)")


def _say_uneven(run: RunContext, prepared: Prepared, found: Figures) -> None:
    if found.uneven:
        sentence = found.balanced_accuracy.sentence()
        which = "" if prepared.nested else f"{prepared.final_name} "
        run.progress.say(f"balanced accuracy {sentence}: the {which}classes are uneven")
    counts = prepared.train.counts(len(found.classes))
    times = counts.max() / counts[counts > 0].min()
    if times > MUCH_MORE and prepared.recipe.balance == "none":
        run.progress.say(
            f"the largest class has {times:.0f} times the training pictures of the smallest: "
            "where every class matters alike, fit again with --set balance=weights"
        )


def _say_decision(run: RunContext, prepared: Prepared, found: Figures) -> None:
    held, request, split = read_held_out(run.folder.held_out), prepared.request, prepared.final_name
    run.progress.say(calibration_line(found))
    for words in unreached_aims(found.decision, held, found.classes, request.aim, request.accuracy):
        run.progress.warn(words)
    for line in decision_lines(found, held, split):
        run.progress.say(line)
    chosen = found.decision.threshold is not None or found.decision.unsure_below is not None
    if (split == VALIDATION and prepared.recipe.method == "train") or (prepared.nested and chosen):
        run.progress.say("these were chosen on the pictures they are judged on here: expect a little less in use")


def _apart(points: float) -> str:
    if abs(points) < 0.05:
        return "the same"
    return f"{abs(points):.1f} points {'higher' if points > 0 else 'lower, within what chance explains'}"
