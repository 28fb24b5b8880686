"""Everything a run needs before its first step: pictures found and looked over, target model made, identity known.

In:   a `Request` and a `Recipe`.
Out:  a `Prepared` run.

Two runs of the same identity are the same run, whichever command asked for them: `compare` and `sweep` reuse one
instead of training it again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from relish.checks.run_checks import brief_findings
from relish.core.context import Context
from relish.core.errors import DataError, RecipeError
from relish.core.io import fingerprint
from relish.core.progress import Bars, Progress
from relish.core.runtime import derive_seed
from relish.core.workers import Workers
from relish.data.dataset import (
    CROSS_VALIDATION,
    TEST,
    TRAIN,
    VALIDATION,
    WHOLE,
    Dataset,
    Split,
    check_trainable,
    split_of,
)
from relish.data.depth import ValueRange, range_to_take
from relish.data.groups import refuse_large_groups
from relish.data.loader import View
from relish.data.sources import Reading, find_dataset
from relish.data.split import NEVER, stratified_folds, usable_folds, with_validation
from relish.data.survey import Survey, survey
from relish.data.transforms import Preprocessing, book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.thresholds import Aim, parse_aim, parse_unsure, positive_class
from relish.evaluation.unfamiliarity import SHARE, parse_share
from relish.models.freeze import freeze
from relish.models.own_module import kept_target
from relish.models.source import SourceModel, load_source
from relish.models.target import TargetModel, make_target
from relish.reporting.check_page import findings_line
from relish.tasks.source_search import AUTO
from relish.tasks.user_code import NOTHING, UserCode
from relish.training.budget import HELD_SHARE
from relish.training.checkpoint import checked_tracker
from relish.training.measure import check_network
from relish.training.probe_stage import FOLDS, all_learned_from
from relish.training.recipe import Recipe
from relish.training.scenes import held_back, seeks_series

SMALLEST_BUDGET = 60
"""Seconds; less than that would be spent on measuring."""
VAL_SPLIT = 0.2
"""Share of the training pictures that is held back where a dataset brings nothing to score on."""


@dataclass(frozen=True, kw_only=True)
class Request(Reading):
    """What was asked for, but for the recipe; saved in the run folder."""

    data: str
    """Folder, archive, address, table or registered name."""
    sha1: str | None = None
    sha256: str | None = None
    source: str | None = None
    """Name of the source model; none: the weights file says it, else the embedded one."""
    weights: str | None = None
    """A weights file, a run folder, `none` for random; none given: the source model's own."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Class name to source class, for heads that begin with source rows."""
    seed: int = 0
    val_split: float | None = None
    """Share of the training pictures held back for scoring; none given: only where nothing else can be scored."""
    strict: bool = False
    """Whether an unreadable picture is an error."""
    judge: str | None = None
    """The split of the run's last number; none: the test split where there is one, else validation."""
    budget: float | None = None
    """Seconds a climb may take, from the first picture that is computed on to the end."""
    target_accuracy: float | None = None
    """On held-out pictures, 0 to 1: a climb ends at the first rung that reaches it."""
    threshold: str | None = None
    """What a threshold is chosen for, such as `precision=0.99:hotdog`; none: the likelier class is said."""
    unsure: str | None = None
    """The accuracy wanted of the answers, such as `accuracy=0.98`; none: the model is never unsure."""
    unknown: str | None = None
    """The share of held-out pictures that may be called unknown, such as `0.01`, or `none`; none given: 0.01."""
    value_range: str | None = None
    """What is black and white in pictures deeper than 8 bits, such as `0..4095`; none: found in all of them."""
    python: Mapping[str, Any] = field(default_factory=dict)
    """What was handed in that no command can type, as `UserCode.words` describes it."""
    track: str | None = None
    """A tracker that is told of the run's figures as it goes, such as `tensorboard`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("source", "weights"):
            if getattr(self, name) == "":
                raise RecipeError(f"--{name} is empty.", hint="Leave it away, or say which.")
        if self.source == AUTO:
            raise RecipeError(
                "--source auto is for relish fit: every other command takes one source model.",
                hint="relish sources DATA says which one suits the pictures.",
            )
        if self.val_split is not None and not 0 < self.val_split < 1:
            raise RecipeError(f"--val-split must be between 0 and 1, got {self.val_split}.")
        if self.budget is not None and not SMALLEST_BUDGET <= self.budget < math.inf:
            raise RecipeError(f"--budget must be {SMALLEST_BUDGET} seconds or more, got {self.budget:g}.")
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise RecipeError(f"--target-accuracy must be above 0 and at most 1, got {self.target_accuracy:g}.")
        if self.track is not None:
            checked_tracker(self.track)
        if self.seed < 0:
            raise RecipeError(f"--seed must be 0 or above, got {self.seed}.")
        _ = self.aim, self.accuracy, self.unknown_share, self.range_to_take  # refused now, if they cannot be read

    @property
    def aim(self) -> Aim | None:
        """What a threshold is chosen for."""
        return None if self.threshold is None else parse_aim(self.threshold)

    @property
    def accuracy(self) -> float | None:
        """The accuracy wanted of the answers that are given."""
        return None if self.unsure is None else parse_unsure(self.unsure)

    @property
    def unknown_share(self) -> float | None:
        """The share of held-out pictures that may be called unknown; None where nothing is called so."""
        return SHARE if self.unknown is None else parse_share(self.unknown)

    @property
    def range_to_take(self) -> ValueRange | Literal["found"]:
        """What is black and white in pictures deeper than 8 bits: what was given, or what is found in them."""
        return range_to_take(self.value_range)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; paths made absolute, so that a run can be resumed from anywhere."""
        return {
            **asdict(self),
            "data": _absolute(self.data),
            "weights": self.weights and _absolute(self.weights),
            "mapping": dict(self.mapping),
            "python": dict(self.python),
        }


@dataclass(frozen=True)
class Prepared:
    """A run that could begin now."""

    request: Request
    recipe: Recipe
    dataset: Dataset
    survey: Survey
    source: SourceModel
    target: TargetModel
    preprocessing: Preprocessing
    identity: str
    """64 hexadecimal digits; equal for runs that are the same."""
    code: UserCode

    @property
    def train(self) -> Split:
        """The images to train on."""
        return self.dataset.splits[TRAIN]

    @property
    def score_name(self) -> str:
        """What is scored after every epoch: validation data where there is some, else, as in the book, test."""
        return VALIDATION if VALIDATION in self.dataset.splits else TEST

    @property
    def nested(self) -> bool:
        """Whether there are training images alone, so that the last number is that of nested cross-validation."""
        return not self.dataset.splits.keys() & {VALIDATION, TEST}

    @property
    def final_name(self) -> str:
        """What the run's last number is computed on: the test split where there is one, unless told otherwise."""
        if self.nested:
            return CROSS_VALIDATION
        return self.request.judge or (TEST if TEST in self.dataset.splits else VALIDATION)

    @property
    def final(self) -> Split:
        """The images of that name."""
        return self.dataset.splits[split_of(self.final_name)]


def prepare(
    context: Context, request: Request, recipe: Recipe, code: UserCode = NOTHING, *, again: bool = False
) -> Prepared:
    """Find and look over the pictures, load the source model, make the target model.

    Args:
        code: what was handed in; `request.python` describes it.
        again: whether what is to be said of the pictures was said before.

    Raises:
        DataError, ModelError, RecipeError, DownloadFailed: as the parts do.
    """
    quiet = replace(context, progress=Bars(context.progress)) if again else context
    looked = prepare_data(quiet, request, [recipe], code)
    with context.accelerator.main_process_first():
        return prepare_run(request, recipe, looked, context.progress, code)


def prepare_data(context: Context, request: Request, recipes: Sequence[Recipe], code: UserCode = NOTHING) -> Survey:
    """The pictures of a request, looked over, with something to score on, unless each of the recipes does without.

    Raises:
        DataError: the layout is not understood, a picture is unreadable under `strict`, a class is too small to split.
        DownloadFailed: an address that cannot be reached, or a wrong checksum.
        ModelError: as `load_source` does, where series are looked for.
    """
    # The first process downloads, extracts and looks over; the others find it done.
    with context.accelerator.main_process_first():
        looked, is_whole = _looked_over(request, context.progress, context.workers)
    if not is_whole:
        return looked
    if request.val_split is None and all_learned_from(looked, recipes):
        check_trainable(looked.dataset)
        (every,) = looked.dataset.splits.values()
        return replace(looked, dataset=looked.dataset.with_splits({TRAIN: every}))
    share = request.val_split or VAL_SPLIT
    if seeks_series(request.group_by, looked.dataset):
        return held_back(context, looked, share, request.seed, _features(context, request, recipes, looked, code))
    return replace(looked, dataset=with_validation(looked.dataset, share, request.seed, looked.units))


def _looked_over(request: Request, progress: Progress, workers: Workers) -> tuple[Survey, bool]:
    """The pictures of a request, looked over, and whether some have still to be held back."""
    dataset = find_dataset(request.data, sha1=request.sha1, sha256=request.sha256, reading=request, progress=progress)
    scale = request.range_to_take
    looked = survey(dataset, strict=request.strict, progress=progress, value_range=scale, workers=workers)
    looked = replace(looked, findings=brief_findings(dataset, looked))
    for finding in looked.findings:
        if finding.kind == "shared-group":
            progress.warn(f"{finding.message} {finding.advice}")
    line, grave = findings_line([f for f in looked.findings if f.kind != "shared-group"], request.data)
    if line:
        (progress.warn if grave else progress.say)(line)
    alone = WHOLE in looked.dataset.splits or not {TEST, VALIDATION} & set(looked.dataset.splits)
    if TRAIN not in looked.dataset.splits and not alone:
        raise DataError(f"{request.data}: there is a split to score on but none to learn from.")
    return looked, alone or request.val_split is not None


DIVIDED_BY_FEATURES = 20_000
"""Images, at most, whose features are computed before some are held back; of more, copies alone are kept together."""


def _features(
    context: Context, request: Request, recipes: Sequence[Recipe], looked: Survey, code: UserCode
) -> Features | None:
    """Of the images to be divided; None where no recipe has a use for them, time is short, or it would take long."""
    split = looked.dataset.splits[TRAIN if TRAIN in looked.dataset.splits else WHOLE]
    recipe = next((recipe for recipe in recipes if recipe.method != "train"), None)
    if recipe is None or request.budget is not None or len(split) > DIVIDED_BY_FEATURES:
        return None
    source = _source(request, recipe, code, context.progress)
    backbone = Backbone.of(_target(request, recipe, source, looked.dataset.classes, code), context.device)
    view = View(_preprocessing(recipe, source, looked))
    return features_of(backbone, split, [view], looked.sha256, context, title="features (series)")[0]


def prepare_run(
    request: Request, recipe: Recipe, looked: Survey, progress: Progress, code: UserCode = NOTHING
) -> Prepared:
    """The target model of one recipe, for pictures that were looked over already.

    Raises:
        ModelError, RecipeError: the source model, its weights or the recipe do not fit.
    """
    if recipe.method != "ladder" and (request.budget is not None or request.target_accuracy is not None):
        raise RecipeError(
            f"--budget and --target-accuracy are for a climb, not for recipe {recipe.name}.",
            hint="Leave them away, or take --recipe auto.",
        )
    if recipe.method != "train" and (recipe.head != Recipe().head or request.mapping):
        raise RecipeError(
            f"recipe {recipe.name} solves for its head: where the head would start makes no difference.",
            hint="Leave --head-init and --map away, or take --recipe source-head.",
        )
    _check_pairs(request, recipe, looked)
    _check_decision(request, recipe, looked.dataset)
    _check_code(request, recipe, code)
    source = _source(request, recipe, code, progress)
    target = _target(request, recipe, source, looked.dataset.classes, code)
    freeze(target, recipe.freeze)
    how = _preprocessing(recipe, source, looked)
    size = how.image_size
    check_network(target, recipe, size, len(looked.dataset.splits[TRAIN]))
    if recipe.method != "train":
        Backbone.of(target)(
            torch.zeros(1, 3, size, size, dtype=torch.uint8), how
        )  # refused before there is a run folder
    identity = _identity(request, recipe, looked, source)
    return Prepared(request, recipe, looked.dataset, looked, source, target, how, identity, code)


def _source(request: Request, recipe: Recipe, code: UserCode, progress: Progress) -> SourceModel:
    # A run from random weights takes the source model's design only: there is no need to fetch its weights.
    weights = request.weights or ("none" if recipe.start == "random" else None)
    source = code.source or load_source(request.source, weights, progress=progress)
    return source.at_size(recipe.image_size).with_user(mean=code.mean, std=code.std)


def _preprocessing(recipe: Recipe, source: SourceModel, looked: Survey) -> Preprocessing:
    config = source.data_config
    return book_preprocessing(recipe.image_size or config.input_size[1], config.mean, config.std, looked.value_range)


def _target(
    request: Request, recipe: Recipe, source: SourceModel, classes: tuple[str, ...], code: UserCode
) -> TargetModel:
    if code.keeps_head:
        return kept_target(source, classes)
    return make_target(
        source,
        classes,
        head_init=recipe.head,
        seed=derive_seed(request.seed, "target"),
        mapping=request.mapping,
        unmatched=recipe.unmatched,
        random_weights=recipe.start == "random",
    )


def _check_pairs(request: Request, recipe: Recipe, looked: Survey) -> None:
    """Whether cross-validation can hold out an image of a class and learn from another: now, not in a run folder."""
    if recipe.method == "train":
        return
    dataset, splits = looked.dataset, looked.dataset.splits
    held_back = VALIDATION in splits and (request.judge == VALIDATION or TEST not in splits)
    alone = held_back or VALIDATION not in splits
    whole = splits[TRAIN] if alone else splits[TRAIN] + splits[VALIDATION]
    refuse_large_groups(dataset, whole, looked.units, HELD_SHARE, each_class=False)
    units = [looked.units[path] for path in whole.paths]
    folds = usable_folds(whole.labels, units, FOLDS)
    if (stratified_folds(whole.labels, units, folds, request.seed) == NEVER).all():
        besides = ", besides those held back to measure on" if held_back else ""
        raise DataError(
            f"{dataset.name}: recipe {recipe.name} needs two different pictures of a class to learn from; here "
            f"every class has one{besides}.",
            hint="Copies of a picture count as one, so do those of a group. Add pictures, or take --recipe book.",
        )


def _check_decision(request: Request, recipe: Recipe, dataset: Dataset) -> None:
    """Whether a threshold, or a bound below which to be unsure, can be chosen: now, and not after training."""
    if request.threshold is None and request.unsure is None:
        return
    if recipe.method == "train" and VALIDATION not in dataset.splits:
        raise RecipeError(
            f"--threshold and --unsure are chosen on held-out pictures, and recipe {recipe.name} holds none back here.",
            hint="Add --val-split 0.2, or take --recipe auto.",
        )
    if request.aim is not None:
        positive_class(request.aim, dataset.classes)


def _check_code(request: Request, recipe: Recipe, code: UserCode) -> None:
    if code.source is not None and (request.source or request.weights):
        raise RecipeError("the source model is handed in, and named or read from a file too.", hint="Omit weights=.")
    if code.keeps_head and (recipe.start == "random" or recipe.head != Recipe().head or request.mapping):
        raise RecipeError(
            f"a target model keeps its weights and its output layer, and recipe {recipe.name} begins with others.",
            hint="Hand in the source model, or choose the layer in target_model(…, head_init=…).",
        )
    if code.loss is not None and recipe.balance not in ("none", "sampling"):
        raise RecipeError(
            f"balance={recipe.balance} changes the cross-entropy, and loss= replaces it.",
            hint="Take balance=sampling, or weigh the classes in the loss.",
        )


def _identity(request: Request, recipe: Recipe, looked: Survey, source: SourceModel) -> str:
    dataset = looked.dataset
    splits = {
        name: sorted(
            (dataset.label(path), dataset.classes[label], looked.sha256[path])
            for path, label in zip(split.paths, split.labels.tolist(), strict=True)
        )
        for name, split in dataset.splits.items()
    }
    built = source.description
    model = [built.library, built.architecture, built.model_args, source.sha256, recipe.start == "random"]
    named = ("budget", "target_accuracy", "threshold", "unsure", "unknown", "value_range", "python", "group_by")
    limits = {name: getattr(request, name) for name in named}
    limits["groups"] = sorted((dataset.label(path), group) for path, group in dataset.groups.items())
    asked = {name: limit for name, limit in limits.items() if limit}
    return fingerprint([recipe.identity(), request.seed, request.judge, splits, model, dict(request.mapping), asked])


def _absolute(given: str) -> str:
    return str(Path(given).resolve()) if Path(given).exists() else given
