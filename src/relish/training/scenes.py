"""What is known of scenes while a probe is chosen: series found and kept together, and what shows that some were not.

A held-out image of a scene that was learned from is answered by memory. So the folds keep series together, a test split
that shares scenes with the training images is told, and so is a cross-validation that lies far from the validation
split that the user made, by which everything is then chosen.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from relish.core.context import Context, RunContext
from relish.core.errors import DataError
from relish.data.dataset import TRAIN, VALIDATION, WHOLE, Dataset, Split
from relish.data.groups import is_group, units_of
from relish.data.split import evenly_spaced, with_validation
from relish.data.survey import Facts, Survey, as_facts
from relish.evaluation.features import Features
from relish.evaluation.grouped import Ints, group_numbers, proportion
from relish.evaluation.held_out import HeldOut
from relish.evaluation.metrics import Proportion
from relish.evaluation.series import Series, find_series
from relish.training.train import TrainingSetup

LOOKED_UP = 300
"""Images of the final split, at most, that are looked up among the training images."""
SHARED = 0.02
"""Share of those in a scene that was learned from, from which there is a warning: some look alike by chance."""
Bools = npt.NDArray[np.bool_]


def seeks_series(group_by: str | None, dataset: Dataset) -> bool:
    """Whether series are looked for: where no groups are known, and nobody said that there are none."""
    return group_by is None and not dataset.groups


def chosen_by(setup: TrainingSetup, split: Split) -> Bools:
    """(N,) bool: the images of the validation split, by which everything is chosen.

    Those that share a unit with another image are not among them; none are, where nothing is beside them.
    """
    given = frozenset(setup.validation.paths)
    units = [setup.units[path] for path in split.paths]
    others = {unit for unit, path in zip(units, split.paths, strict=True) if path not in given}
    own = np.array([unit not in others for unit in units], dtype=np.bool_)
    return own if not own.all() else np.zeros(len(split), dtype=np.bool_)


def groups_of(setup: TrainingSetup, split: Split) -> Ints | None:
    """(N,) int64: the group of each training image, a series or a known one; None where there are none."""
    return _group_numbers(setup.units[path] for path in split.paths)


def _group_numbers(units: Iterable[str]) -> Ints | None:
    return group_numbers([unit if is_group(unit) else None for unit in units])


def accuracy_on(setup: TrainingSetup, split: Split, logits: Features) -> Proportion:
    """The accuracy on training images that were held out, with its interval by group.

    Args:
        logits: (N, K) float32.
    """
    return proportion(logits.argmax(1) == split.labels, groups_of(setup, split))


def accuracy_of(setup: TrainingSetup, held: HeldOut) -> Proportion:
    """The same of images that are known by the SHA-256 of their files."""
    unit_of = {setup.sha256[path]: setup.units[path] for path in setup.train.paths}
    groups = _group_numbers(unit_of[content] for content in held.sha256)
    return proportion(held.logits.argmax(1) == held.labels, groups)


def keep_series_together(setup: TrainingSetup, split: Split, features: Features) -> tuple[TrainingSetup, Series | None]:
    """Look for series among some training images, and make each one unit.

    Args:
        setup: without `facts`, no series are looked for.
        features: (N, D) float32 of the images of `split`.

    Returns:
        The setup with the units; what was found.
    """
    if not setup.facts:
        return setup, None
    series = find_series(features, split.labels, facts_of(setup, split))
    contents = [setup.sha256[path] for path in split.paths]
    found = units_of(dict(zip(split.paths, contents, strict=True)), series.names(split.paths, contents))
    return replace(setup, units={**setup.units, **found}), series


def held_back(context: Context, looked: Survey, share: float, seed: int, features: Features | None) -> Survey:
    """Hold a share of the images back, and keep the series that are found among them together.

    The series become the dataset's groups; without features, and where there are copies alone, they do not. Where so
    nothing could be held back, they are divided.

    Args:
        features: (N, D) float32 of the images to be divided.

    Raises:
        DataError: as `with_validation` does.
    """
    dataset = looked.dataset
    split = dataset.splits[TRAIN if TRAIN in dataset.splits else WHOLE]
    series = find_series(features, split.labels, looked.facts_of(split.paths))
    names = series.names(split.paths, [looked.sha256[path] for path in split.paths])
    together = replace(looked, dataset=replace(dataset, groups=names))
    try:
        divided = with_validation(together.dataset, share, seed, together.units)
    except DataError:
        divided = with_validation(dataset, share, seed, looked.units)
        if series.scenes:
            context.progress.warn("series of one scene are divided: kept together, nothing could be held back.")
    else:
        say_series(context, series)
    return replace(looked, dataset=divided if series.scenes else replace(divided, groups={}))


def say_series(context: Context, series: Series) -> None:
    """In one line how many images are in series; nothing where there are none."""
    if words := series.sentence():
        context.progress.say(f"series  {words}: each stays on one side (--group-by none turns that off)")


def facts_of(setup: TrainingSetup, split: Split) -> Facts:
    """(N,), recorded by the survey."""
    return as_facts(setup.facts[path] for path in split.paths)


def looked_up(setup: TrainingSetup) -> Split:
    """The images of the final split that are looked up among the training images."""
    return setup.final.take(evenly_spaced(len(setup.final), LOOKED_UP))


def warn_of_shared_scenes(
    run: RunContext, setup: TrainingSetup, train: Split, features: Features, final: Split, others: Features
) -> None:
    """Warn where images to evaluate on look like scenes that were learned from.

    Args:
        features: (N, D) float32 of the training images.
        final: some images of the final split.
        others: (n, D) float32 of these.
    """
    both = train + final
    series = find_series(np.concatenate([features, others]), both.labels, facts_of(setup, both), sure=True)
    given = frozenset(setup.validation.paths)
    of_final = np.arange(len(both)) >= len(train)
    of_validation = np.array([path in given for path in both.paths], dtype=np.bool_) & ~of_final
    for name, mine, learned in (
        (VALIDATION, of_validation, ~of_final & ~of_validation),
        (setup.final_name, of_final, ~of_final),
    ):
        shared = sum(int(mine[group].sum()) for group in series.scenes if learned[group].any())
        if shared > max(1, SHARED * mine.sum()):
            run.progress.warn(
                f"{shared} of {int(mine.sum()):,} {name} pictures looked up seem to show scenes that are learned from: "
                f"on new scenes the model will be worse than the {name} figure says. relish check shows them."
            )


def warn_where_apart(run: RunContext, crossed: Proportion, own: Proportion) -> None:
    """Say where cross-validation and the user's own validation split lie further apart than their intervals explain."""
    if crossed.interval[0] > own.interval[1]:
        why = (
            "pictures of one scene are held out and learned from (--group-by says which belong together), or the "
            "validation pictures are of another kind"
        )
    elif crossed.interval[1] < own.interval[0]:
        why = "validation pictures show scenes that are learned from too, or they are of an easier kind"
    else:
        return
    run.progress.warn(
        f"cross-validation says {crossed.sentence()}, the validation split {own.sentence()}. Such a distance usually "
        f"means that {why}. Everything is chosen by the validation split."
    )
