"""`sources`: which source model suits the user's images, by a trial of several on at most 1,000 of the training images.

Each candidate's backbone gives features of the same images, and relish's own probe is cross-validated on them, with the
same folds for all, so the candidates are compared image by image. Images of the test split are never among them.
Features and finished trials are cached: a trial that was killed goes on where it was, and `fit` finds the features.
"""

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

import torch

from relish.core.cache import Cache
from relish.core.context import Context
from relish.core.errors import DataError, DownloadFailed, ModelError, RecipeError, TooLittleMemory, WriteFailed
from relish.core.io import fingerprint, write_json, write_text
from relish.core.progress import Progress
from relish.core.runtime import give_memory_back, is_out_of_memory, keep_freed_memory, processor_name
from relish.data.dataset import NO_IMAGES, TRAIN, Split, check_trainable, plural
from relish.data.depth import AskedRange, range_option
from relish.data.groups import is_group, units_of
from relish.data.loader import View
from relish.data.sources import DataSource, ReadingOptions, as_options, data_name
from relish.data.split import stratified_folds, stratified_sample, usable_folds
from relish.data.survey import Survey
from relish.data.transforms import Preprocessing, book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of, features_to_compute
from relish.evaluation.grouped import Bools, Ints, group_numbers
from relish.evaluation.series import find_series
from relish.models.candidates import CANDIDATES, ON_REQUEST, Candidate, candidate, licence_of, megabytes_to_fetch
from relish.models.summary import multiply_accumulates
from relish.models.target import make_target
from relish.reporting import plots
from relish.reporting.svg import write_svg
from relish.tasks.experiments import looked_over, study_folder
from relish.tasks.prepare import Request, prepare_data
from relish.tasks.run import RUNS
from relish.tasks.source_search import Bounds, Consent, FoundSource, Search
from relish.tasks.source_trials import Omitted, SourceTrials, Trial, omitted_as_json, omitted_in_words
from relish.tasks.user_code import UserCode
from relish.training.linear_probe import cross_validate
from relish.training.measure import check_network, forward_seconds, step_seconds
from relish.training.probe_stage import FOLDS
from relish.training.recipe import Recipe, named_recipe
from relish.training.scenes import say_series, seeks_series
from relish.training.train import TrainingSetup

IMAGES = 1000
"""Training images that a trial is made on, at most."""
LASTING = 0.3
"""Seconds that passes are repeated for, to know the time of one."""
FAILURES = (ModelError, RecipeError, DownloadFailed, WriteFailed, TooLittleMemory)
"""What ends the trial of one candidate, and not the others'."""
_KIND, _RULES = "trial of a source", 1
"""Of the cache's entries; raise the number when a trial measures otherwise than before."""


def sources(
    data: DataSource,
    *,
    candidates: Sequence[str | Path] | None = None,
    fetch: Consent = False,
    image_size: int | None = None,
    seed: int = 0,
    value_range: AskedRange = None,
    workers: int | None = None,
    device: str = "auto",
    runs: str | Path = RUNS,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> SourceTrials | None:
    """Try several source models on some of the training images, and compare them image by image.

    Args:
        data: anything `fit` takes.
        candidates: names as `--source` takes them, files of weights, run folders, "NAME=FILE"; None: those of
            `relish.models.candidates`.
        fetch: whether weights that are not on this machine may be fetched; a function is asked once, with the question.
            Never where HF_HUB_OFFLINE is set.
        image_size: side of the network's square, in pixels; None: each network's own.
        seed: of the choice of images and of the folds.
        value_range: as in `fit`.
        runs: the folder that the table, the chart and the figures are written into, in one of their own.
        reading: how the dataset is read, as in `fit`.

    Returns:
        What was found; None in every process but the first.

    Raises:
        ModelError: no candidate could be tried; each is named with its reason.
        DataError: what `fit` raises; or there is no class with two different images.
    """
    keep_freed_memory()
    context = Context.on(device, progress, workers)
    recipe = named_recipe("auto").with_settings({} if image_size is None else {"image_size": image_size})
    request = Request(data=data_name(data), seed=seed, value_range=range_option(value_range), **reading)
    chosen = CANDIDATES if candidates is None else [candidate(name) for name in dict.fromkeys(map(str, candidates))]
    to_try, omitted = _at_hand(context, chosen, fetch)
    looked = looked_over(context, request, [recipe])
    check_trainable(looked.dataset)
    pool = _Pool(context, looked, seed, seeks_series(request.group_by, looked.dataset))
    context.progress.say(f"images   {len(pool.split):,} of {len(looked.dataset.splits[TRAIN]):,} training pictures")
    keys, trials = _trials(context, pool, recipe, to_try, omitted)
    if not trials:
        raise ModelError("none of the candidates could be tried.", hint="\n  ".join(omitted_in_words(omitted)))
    if not context.is_main:
        return None
    identity = fingerprint(sorted(keys))
    folder = study_folder(Path(runs), f"{looked.dataset.name}-sources", identity)
    found = SourceTrials(
        request.data, tuple(trials), tuple(omitted), len(pool.split), _machine(context), folder,
        as_options({**reading, "value_range": range_option(value_range)}),
    )  # fmt: skip
    _write(found, identity)
    return found


def _trials(
    context: Context,
    pool: "_Pool",
    recipe: Recipe,
    to_try: Sequence[Candidate],
    omitted: list[Omitted],
    bounds: Bounds | None = None,
) -> tuple[list[str], list[Trial]]:
    """The identities and the trials of those that come to an end, the most accurate first; others go to `omitted`."""
    found: list[tuple[str, Trial]] = []
    for one in to_try:
        try:
            found.append(_tried(context, pool, recipe, one, bounds))
        except Exception as error:
            if not (isinstance(error, FAILURES) or is_out_of_memory(error)):
                raise
            reason = error.message if isinstance(error, FAILURES) else "too little memory."
            omitted.append((one.name, reason, None))
            context.progress.warn(f"{one.name} is omitted: {reason}")
        give_memory_back()
    found.sort(key=lambda pair: (-pair[1].accuracy.value, pair[1].forward_ms))
    return [key for key, _ in found], [trial for _, trial in found]


def _write(found: SourceTrials, identity: str) -> None:
    write_text(found.folder / "sources.txt", "\n".join(found.lines()) + "\n")
    write_json(found.folder / "study.json", {"identity": identity, **found.as_json()})
    if chart := plots.source_models({one.name: (one.forward_ms, one.accuracy) for one in found.trials}):
        write_svg(chart, found.folder / "sources.svg")


# ---- one that `fit` takes by itself ---------------------------------------------------------------------------------

SHARE = 0.25
"""Of a budget, what looking for a source may take."""


def find_source(context: Context, request: Request, recipe: Recipe, code: UserCode, search: Search) -> FoundSource:
    """Look for the source that suits a run's training images: the rule is that of `SourceTrials.advised`.

    Args:
        request: without a source. Of its budget, the search takes a share.

    Raises:
        ModelError: none is within the limits, or could be tried; each is named with its reason.
    """
    among, above = search.chosen()
    to_try, omitted = _at_hand(context, among, search.fetch)
    omitted = [*above, *omitted]
    looked = prepare_data(context, request, [recipe], code)
    check_trainable(looked.dataset)
    began, say = time.monotonic(), context.progress.say
    share = SHARE * (request.budget or math.inf)
    bounds = Bounds(search=search, ends=began + share)
    pool = _Pool(context, looked, request.seed, seeks_series(request.group_by, looked.dataset))
    within = f", at most {share:.0f} s, {SHARE:g} of the budget" if request.budget else ""
    say(f"search  for a source: {plural(len(to_try), 'candidate')} on {len(pool.split):,} training pictures{within}")
    sized = named_recipe("auto").with_settings({"image_size": recipe.image_size} if recipe.image_size else {})
    _, trials = _trials(context, pool, sized, to_try, omitted, bounds)
    record = context.from_main(lambda: _record(context, trials, omitted, len(pool.split), bounds))
    one = next(one for one in to_try if one.name == record["taken"])
    seconds = context.from_main(lambda: time.monotonic() - began)
    say(f"taken   {record['why']} {record['larger']}".rstrip())
    return FoundSource(candidate=one, seconds=seconds, record={**record, "asked": search.asked(), "seconds": seconds})


def _record(
    context: Context, trials: Sequence[Trial], omitted: Sequence[Omitted], images: int, bounds: Bounds
) -> dict[str, Any]:
    if trials:
        found = SourceTrials("", tuple(trials), tuple(omitted), images, _machine(context))
        context.progress.say(found.table())
        if doubt := bounds.doubt(found.advised.name):
            context.progress.warn(doubt)
        return {**found.as_json(), "taken": found.advised.name, "why": found.why, "larger": found.larger}
    if not bounds.late:
        raise ModelError("no source can be taken.", hint="\n  ".join(omitted_in_words(omitted)))
    taken = min(bounds.late, key=lambda one: bounds.measured[one.name][0]).name
    why = f"{taken} is the quickest; there was no time to compare any."
    return {"sources": [], "omitted": omitted_as_json(omitted), "images": 0, "taken": taken, "why": why, "larger": ""}


# ---- which can be tried ---------------------------------------------------------------------------------------------


def _at_hand(context: Context, chosen: Sequence[Candidate], fetch: Consent) -> tuple[list[Candidate], list[Omitted]]:
    """The candidates to try, and those to omit; whether weights may be fetched is asked once."""
    from huggingface_hub import constants  # late: half a second

    to_try: list[Candidate] = []
    left = ON_REQUEST if chosen is CANDIDATES else ()
    omitted: list[Omitted] = [(one.name, f"not tried unless named: its licence is {one.licence}", None) for one in left]
    sizes: dict[str, float] = {}
    for one in chosen:
        try:
            size = megabytes_to_fetch(one)
        except ModelError as error:
            omitted.append((one.name, error.message, None))
            context.progress.warn(f"{one.name} is omitted: {error.message}")
            continue
        to_try.append(one)
        if size is not None:
            sizes[one.name] = size
    if not sizes or _may_fetch(context, sizes, False if constants.HF_HUB_OFFLINE else fetch):
        return to_try, omitted
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "--yes fetches it"
    omitted += [(name, f"not on this machine; {why}", size) for name, size in sizes.items()]
    return [one for one in to_try if one.name not in sizes], omitted


def _may_fetch(context: Context, sizes: dict[str, float], fetch: Consent) -> bool:
    if fetch is False:
        return False
    named = ", ".join(f"{name} ({size:.0f} MB)" for name, size in sizes.items())
    context.progress.say(f"to fetch: {named}; about {sum(sizes.values()):,.0f} MB in all")
    return fetch is True or context.from_main(lambda: fetch("Fetch them?"))


# ---- a trial --------------------------------------------------------------------------------------------------------


class _Pool:
    """The images of all trials, and their folds, which the first trial's features complete.

    Args:
        seeks_series: whether series are looked for, by the features of the first candidate.
    """

    def __init__(self, context: Context, looked: Survey, seed: int, seeks_series: bool) -> None:
        train = looked.dataset.splits[TRAIN]
        contents = [looked.sha256[path] for path in train.paths]
        self.context, self.looked, self.seed = context, looked, seed
        self.split: Split = train.take(stratified_sample(train.labels, contents, IMAGES, seed))
        self.units = [looked.units[path] for path in self.split.paths]
        self._seeks = seeks_series

    def keep_series_together(self, features: Features) -> None:
        """Make each series among the images one unit, as the ladder does; the first features decide for all trials.

        Args:
            features: (N, D) float32.
        """
        if not self._seeks:
            return
        self._seeks, paths = False, self.split.paths
        series = find_series(features, self.split.labels, self.looked.facts_of(paths))
        contents = [self.looked.sha256[path] for path in paths]
        together = units_of(dict(zip(paths, contents, strict=True)), series.names(paths, contents))
        before, self.units = self.units, [together[path] for path in paths]
        if (self.folds >= 0).any():
            say_series(self.context, series)
        else:
            self.units = before
            self.context.progress.warn("series of one scene are divided: kept together, nothing could be held out.")

    @property
    def folds(self) -> Ints:
        """(N,) int64: the fold that each image is held out with, below 0 for none."""
        labels = self.split.labels
        return stratified_folds(labels, self.units, usable_folds(labels, self.units, FOLDS), self.seed)

    def groups(self, held: Bools) -> Ints | None:
        """The group of each image held out; None where there are none."""
        keys = [unit if is_group(unit) else None for unit, one in zip(self.units, held, strict=True) if one]
        return group_numbers(keys)

    def identity(self) -> list[Any]:
        """What a trial depends on, but for the candidate and the machine."""
        labels, looked = self.split.labels.tolist(), self.looked
        images = [[looked.sha256[path], label] for path, label in zip(self.split.paths, labels, strict=True)]
        return [images, self.units, self.seed, list(looked.dataset.classes)]


def _tried(
    context: Context, pool: _Pool, recipe: Recipe, one: Candidate, bounds: Bounds | None = None
) -> tuple[str, Trial]:
    """The identity of the trial of one candidate, and the trial, from the cache or made now.

    Within bounds, its time is measured now, before its features are computed and afterwards.

    Raises:
        ModelError, RecipeError, DownloadFailed, WriteFailed, TooLittleMemory: it cannot be tried.
        DataError: no image can be held out from its class.
    """
    with context.accelerator.main_process_first():
        source, size = one.load(recipe.image_size, context.progress)
    target = make_target(source, pool.looked.dataset.classes, head_init="zeros", seed=0)
    config = source.data_config
    how = book_preprocessing(size, config.mean, config.std, pool.looked.value_range)
    check_network(target, recipe, size, len(pool.split))
    backbone = Backbone.of(target, context.device)
    digest = backbone.digest()
    file_bytes = 4 * sum(tensor.numel() for tensor in target.network.state_dict().values())

    def measured() -> float:
        return context.from_main(lambda: _predict_ms(context, backbone, pool.split, how))

    if bounds is not None:
        bounds.check(one, file_bytes, before := measured())
        if bounds.ends < math.inf:
            missing = features_to_compute(backbone, pool.split, View(how), pool.looked.sha256, context)
            bounds.check_time(one, before, missing, context.from_main(lambda: bounds.ends - time.monotonic()))
    (features,) = features_of(
        backbone, pool.split, [View(how)], pool.looked.sha256, context, title=f"features ({one.name})"
    )
    pool.keep_series_together(features)
    machine = [_machine(context), torch.__version__]
    key = fingerprint([_RULES, digest, how.as_dict(), pool.identity(), machine, asdict(one)])
    if (known := context.from_main(lambda: _recalled(context, key))) is not None:
        context.progress.say(f"kept     {one.name}")
        if bounds is not None:
            known = replace(known, forward_ms=measured())
            bounds.check(one, file_bytes, known.forward_ms)
        return key, known
    context.progress.say(f"trying   {one.name}")
    right, held = _held_out(pool, backbone, features)
    groups = pool.groups(held)
    setup = TrainingSetup(target=target, recipe=recipe, preprocessing=how, train=pool.split, validation=NO_IMAGES)
    trial = Trial(
        name=one.name, options=one.options + (f" --image-size {size}" if recipe.image_size or one.image_size else ""),
        family=one.family, top1=one.top1, licence=licence_of(one), image_size=size,
        parameters=sum(parameter.numel() for parameter in target.network.parameters()),
        macs=multiply_accumulates(target.network, size),
        file_bytes=file_bytes, forward_ms=measured(),
        step_ms=1000 * step_seconds(context, setup, LASTING),
        right=tuple(right.tolist()), groups=None if groups is None else tuple(groups.tolist()),
    )  # fmt: skip
    if context.is_main:
        Cache(context.progress).remember(_KIND, {bytes.fromhex(key): json.dumps(asdict(trial)).encode()})
    if bounds is not None:
        bounds.check(one, file_bytes, trial.forward_ms)
    return key, trial


def _held_out(pool: _Pool, backbone: Backbone, features: Features) -> tuple[Bools, Bools]:
    """Whether the probe is right on each image held out, and (N,) bool which images those are."""
    folds = pool.folds
    if not (folds >= 0).any():
        raise DataError(
            "no class has two different pictures to learn from.",
            hint="Copies of a picture count as one, so do those of a group. Add others.",
        )
    classes = len(pool.looked.dataset.classes)
    found = cross_validate(features, pool.split.labels, classes, folds, bias=backbone.head.bias is not None)
    return found.logits.argmax(1) == pool.split.labels[found.held], found.held


def _predict_ms(context: Context, backbone: Backbone, split: Split, how: Preprocessing) -> float:
    """Of an image of many, through ONNX Runtime where prediction would take that."""
    quick = backbone.hastened(how.image_size, len(split), context)
    return 1000 * forward_seconds(quick, split, how, [how.image_size], context.workers, lasting=LASTING)[how.image_size]


def _machine(context: Context) -> str:
    """What times are measured on."""
    name = torch.cuda.get_device_name() if context.device.type == "cuda" else processor_name()
    return f"{name}, {context.device.type}, {plural(torch.get_num_threads(), 'thread')}"


def _recalled(context: Context, key: str) -> Trial | None:
    for _, value in Cache(context.progress).recall(_KIND, [bytes.fromhex(key)]):
        with suppress(ValueError, TypeError, KeyError):
            known = json.loads(value)
            groups = known["groups"] and tuple(known["groups"])
            return Trial(**{**known, "right": tuple(known["right"]), "groups": groups})
    return None
