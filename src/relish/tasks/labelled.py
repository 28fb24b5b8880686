"""Which labelled pictures a saved model is judged on.

In:   a dataset, and the classes of the model.
Out:  one `Split`, its labels in the order of the model's classes.
"""

from pathlib import Path

import numpy as np

from relish.core.errors import DataError
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.data.dataset import TEST, Dataset, Split
from relish.data.sources import find_dataset
from relish.data.survey import Survey, survey


def pictures_of(
    data: str | Path, classes: tuple[str, ...], split: str | None, voice: Progress
) -> tuple[Survey, Split, str]:
    """A dataset looked over, the readable pictures of its split, and what they are called together.

    Args:
        data: anything `fit` takes.
        classes: of the model.
        split: as `chosen_split` takes it.

    Raises:
        DataError: no such split, or a class that the model does not know.
    """
    looked = survey(find_dataset(data, progress=voice), progress=voice)
    dataset = looked.dataset
    for warning in dataset.warnings:
        voice.warn(warning)
    chosen = labelled_as(classes, dataset, chosen_split(dataset, split))
    return looked, chosen, split or (TEST if TEST in dataset.splits else "every picture")


def run_pictures(folder: RunFolder, split: str, classes: tuple[str, ...]) -> Split:
    """The pictures of a run's split, where they lay when it was made.

    Raises:
        DataError: one of them is not there any more.
    """
    known = folder.read_dataset()
    rows = known["splits"][split]
    paths = tuple(Path(known["root"]) / row["path"] for row in rows)
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise DataError(
            f"{gone[0]}: a picture of the run is not there any more"
            + (f", nor are {len(gone) - 1} others." if len(gone) > 1 else "."),
            hint="Say where they are now: --data DATA.",
        )
    return Split(paths, np.array([classes.index(row["class"]) for row in rows], dtype=np.int64))


def chosen_split(dataset: Dataset, split: str | None) -> Split:
    """The split that is named; None takes the test split where there is one, else every picture.

    Raises:
        DataError: there is no such split.
    """
    if split is not None:
        if split not in dataset.splits:
            raise DataError(f'{dataset.source} has no split "{split}".', hint=f"It has: {', '.join(dataset.splits)}.")
        return dataset.splits[split]
    if TEST in dataset.splits:
        return dataset.splits[TEST]
    parts = list(dataset.splits.values())
    return Split(tuple(path for part in parts for path in part.paths), np.concatenate([part.labels for part in parts]))


def labelled_as(classes: tuple[str, ...], dataset: Dataset, split: Split) -> Split:
    """The same pictures with labels in the order of the model's classes: by name, never by position.

    Raises:
        DataError: the model does not know one of the classes.
    """
    unknown = [dataset.classes[label] for label in np.unique(split.labels) if dataset.classes[label] not in classes]
    if unknown:
        raise DataError(
            f'{dataset.source}: the model does not know the class "{unknown[0]}"'
            + (f" and {len(unknown) - 1} more." if len(unknown) > 1 else "."),
            hint=f"It knows: {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}.",
        )
    place = np.array([classes.index(name) if name in classes else -1 for name in dataset.classes], dtype=np.int64)
    return Split(split.paths, place[split.labels])
