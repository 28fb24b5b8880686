"""`show`: look at pictures before training on them, as they are or as the network will see them.

In:   a dataset; for the network's view also a recipe and a source model.
Out:  one picture, a grid.
"""

from pathlib import Path

from PIL import Image

from relish.core.errors import DataError
from relish.core.progress import Progress
from relish.data.dataset import TRAIN, WHOLE, Dataset, Split
from relish.data.loader import epoch_batches, training_batches
from relish.data.sources import find_dataset
from relish.data.survey import survey
from relish.data.transforms import book_preprocessing, denormalise, normalise
from relish.models.source import load_source
from relish.reporting.grid import first_and_last, picture_grid
from relish.training.recipe import named_recipe


def show(
    data: str | Path,
    *,
    first: str | None = None,
    last: str | None = None,
    rows: int = 2,
    columns: int = 8,
    recipe: str | None = None,
    source: str | None = None,
    weights: str | Path | None = None,
    image_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Image.Image:
    """The book's grid: the first pictures of one class over the last ones, last first, of another.

    Args:
        data: anything `fit` takes.
        first, last: class names; None takes the first and the last class.
        rows, columns: how many pictures.
        recipe: show instead the first training pictures of this recipe exactly as the network sees them: cropped,
            flipped, scaled, and back from normalised values.
        source, weights, image_size: as in `fit`; with `recipe` alone.
        seed: of the crops; with `recipe` alone.

    Returns:
        RGB; a notebook displays it by itself.

    Raises:
        DataError: no pictures, an unknown class, or no room for any picture.
        RecipeError, ModelError: as in `fit`.
    """
    if rows < 1 or columns < 1:
        raise DataError(f"--rows and --columns must be 1 or above, got {rows} and {columns}.")
    dataset = survey(find_dataset(data, progress=progress or Progress()), progress=progress).dataset
    for warning in dataset.warnings:
        (progress or Progress()).warn(warning)
    split = _learned(dataset)
    if recipe is None:
        return first_and_last(split, dataset.classes, first=first, last=last, rows=rows, columns=columns)
    chosen = named_recipe(recipe)
    config = load_source(source, weights or ("none" if chosen.start == "random" else None)).data_config
    size = image_size or chosen.image_size or config.input_size[1]
    how = book_preprocessing(size, config.mean, config.std)
    positions = epoch_batches(len(split), rows * columns, seed, epoch=0)[:1]
    (batch,) = training_batches(split, how, positions, seed=seed, epoch=0)
    seen = denormalise(normalise(batch.images, how), how)
    cells = [
        (Image.fromarray(pixels.permute(1, 2, 0).numpy()), dataset.classes[label])
        for pixels, label in zip(seen, batch.labels.tolist(), strict=True)
    ]
    return picture_grid([cells[i : i + columns] for i in range(0, len(cells), columns)])


def _learned(dataset: Dataset) -> Split:
    for name in (TRAIN, WHOLE):
        if name in dataset.splits:
            return dataset.splits[name]
    return next(iter(dataset.splits.values()))
