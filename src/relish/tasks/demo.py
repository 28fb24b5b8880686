"""`demo`: the four steps on drawn images, with no network and nothing but what is installed.

The recipes are the book's with other numbers: for 200 small images instead of 2,000, the batch is smaller and the
rates are higher, all by the same factor, so that what is compared stays comparable.
"""

from dataclasses import dataclass
from pathlib import Path

from relish.core.errors import WriteFailed
from relish.core.io import atomic_path
from relish.core.progress import Progress, default_progress
from relish.data.dataset import TEST, TRAIN
from relish.data.drawn.datasets import draw_hotdogs
from relish.data.folder import index_folder
from relish.models.source import load_source
from relish.models.summary import describe
from relish.models.target import make_target
from relish.reporting.grid import first_and_last
from relish.reporting.predictions_page import write_predictions_page
from relish.tasks.compare import Comparison, compare
from relish.tasks.run_results import read_run_predictions
from relish.training.optim import learning_rates
from relish.training.recipe import named_recipe

TRAIN_PICTURES, TEST_PICTURES = 100, 100
"""Drawn of each class."""
FASTER = 8.0
"""The rates over the book's."""
NUMBERS = {"image_size": 128, "batch_size": 16, "epochs": 4}
"""Small enough for two slow cores: three runs in about two minutes."""


@dataclass(frozen=True)
class Demo:
    """What the demo made."""

    folder: Path
    comparison: Comparison
    wrote: tuple[Path, ...]


def demo(folder: str | Path = "relish-demo", *, seed: int = 0, progress: Progress | None = None) -> Demo:
    """Draw images, fine-tune on them, compare with the same network from scratch and with a frozen backbone.

    Args:
        folder: made anew; where it exists, the next free number is added to its name.
        seed: of the images and of the training.

    Raises:
        WriteFailed: no space, no permission.
    """
    progress = progress or default_progress()
    root = _next_free(Path(folder))
    progress.say(f"Everything this demo makes goes to {root}/, and every figure is measured now.\n")
    progress.say(
        f"Drawing pictures: {TRAIN_PICTURES} of hot dogs and of other foods to learn from, {TEST_PICTURES} to test."
    )
    images = draw_hotdogs(root / "pictures", train=TRAIN_PICTURES, test=TEST_PICTURES, seed=seed, progress=progress)
    dataset = index_folder(images, name="hotdogs", source=str(images))
    grid = root / "pictures.png"
    with atomic_path(grid) as temporary:
        first_and_last(dataset.splits[TRAIN], dataset.classes, rows=4).save(temporary, format="PNG")

    book = [named_recipe(name) for name in ("book", "book-scratch", "frozen")]
    recipes = [recipe.with_settings({**NUMBERS, "learning_rate": recipe.rate * FASTER}) for recipe in book]
    source = load_source()
    progress.say(f"\nStep 1  A source model: {source.name}, {source.origin}")
    progress.say("Steps 2 and 3  The target model: everything copied, and a new output layer for the new classes")
    for line in describe(make_target(source, dataset.classes, seed=seed), learning_rates(recipes[0])):
        progress.say(line)
    progress.say("\nStep 4  Fine-tune it; beside it the same network from scratch, and with a frozen backbone")
    found = compare(images, recipes=recipes, runs=root / "runs", progress=progress)
    if found is None:
        raise RuntimeError("the demo runs in one process")
    page = root / "predictions.html"
    run = found.sides[0].outcomes[0].folder
    kept = read_run_predictions(run, run.read_evaluation())
    write_predictions_page(
        page, dataset, dataset.splits[TEST], kept.probabilities, title="Drawn hot dogs", unknown=kept.unknown
    )
    return Demo(root, found, (grid, found.folder / "curves.svg", found.folder / "compare.txt", page))


def _next_free(folder: Path) -> Path:
    """The folder itself, or with the smallest number from 2 that is free; made here, so that it is nobody else's."""
    number = 1
    while True:
        root = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            root.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise WriteFailed(f"{root}: cannot be made ({error.strerror}).", hint="Name another --out.") from error
        else:
            return root
