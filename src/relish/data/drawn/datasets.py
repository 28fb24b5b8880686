"""Draw whole datasets: hot dogs against everything else, and everyday things to pretrain on.

Every image is a function of (seed, split, class, index) alone: more images leave the first ones as they were.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from relish.core.errors import DataError
from relish.core.io import atomic_folder
from relish.core.progress import Progress
from relish.core.runtime import rng_for
from relish.data.drawn.scene import HOTDOG, OTHERS, SUBJECTS, Subject, compose


def draw_hotdogs(
    root: Path, *, train: int = 100, test: int = 100, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Draw hot dogs and other foods to root/{train,test}/{hotdog,not-hotdog}/NNN.jpg.

    Args:
        root: a folder that does not exist yet; it appears whole or not at all.
        train: images a class in the training split.
        test: images a class in the test split.

    Returns:
        `root`.

    Raises:
        WriteFailed: `root` exists already, or cannot be written to.
    """

    def subject(name: str, rng: np.random.Generator) -> Subject:
        return HOTDOG if name == "hotdog" else SUBJECTS[OTHERS[int(rng.integers(len(OTHERS)))]]

    counts = {"train": train, "test": test}
    return _draw(root, counts, ("hotdog", "not-hotdog"), subject, ("hotdogs", seed), progress or Progress())


def draw_source_classes(
    root: Path,
    *,
    train: int = 60,
    test: int = 20,
    classes: int = 12,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw a dataset to pretrain on, everyday things in the same scenes: root/{train,test}/CLASS/NNN.jpg.

    Args:
        root: a folder that does not exist yet; it appears whole or not at all.
        train: images a class in the training split.
        test: images a class in the test split.
        classes: how many of `SUBJECTS`, the first ones; a hot dog is not among them.

    Returns:
        `root`.

    Raises:
        DataError: fewer than two classes are asked for, or more than can be drawn.
        WriteFailed: `root` exists already, or cannot be written to.
    """
    if not 2 <= classes <= len(SUBJECTS):
        raise DataError(f"classes={classes}: from 2 to {len(SUBJECTS)} source classes can be drawn.")

    def subject(name: str, _: np.random.Generator) -> Subject:
        return SUBJECTS[name]

    names = tuple(SUBJECTS)[:classes]
    counts = {"train": train, "test": test}
    return _draw(root, counts, names, subject, ("sources", seed), progress or Progress())


def _draw(
    root: Path,
    counts: dict[str, int],
    classes: Sequence[str],
    subject: Callable[[str, np.random.Generator], Subject],
    stream: tuple[str, int],
    progress: Progress,
) -> Path:
    purpose, seed = stream
    with (
        atomic_folder(root) as folder,
        progress.bar("drawing pictures", sum(counts.values()) * len(classes)) as bar,
    ):
        for split, count in counts.items():
            for name in classes:
                target = folder / split / name
                target.mkdir(parents=True)
                for index in range(count):
                    rng = rng_for(seed, f"drawn/{purpose}/{split}/{name}", index)
                    image = compose(subject(name, rng), rng)
                    image.save(target / f"{index:03d}.jpg", quality=int(rng.integers(60, 96)))
                    bar.advance()
    return root
