"""Look before training: `show` draws a grid of images, `find_models` and `model_figure` describe source models.

`convert` rewrites a file of weights as safetensors whose header says how to build the network.
"""

import shlex
from pathlib import Path
from typing import Unpack

from PIL import Image

from relish.core.errors import DataError, ModelError, nearest
from relish.core.io import check_target
from relish.core.progress import Progress, default_progress
from relish.data.dataset import TRAIN, WHOLE
from relish.data.depth import AskedRange, range_to_take
from relish.data.loader import epoch_batches, training_batches
from relish.data.sources import DataSource, Reading, ReadingOptions, find_dataset
from relish.data.survey import survey
from relish.data.transforms import book_preprocessing, denormalise, normalise
from relish.models.registry import PACKAGED
from relish.models.saved_model import save_model
from relish.models.source import SourceModel, load_source
from relish.models.summary import Listed, describe, describe_source, list_models
from relish.models.target import make_target
from relish.reporting.grid import first_and_last, image_grid
from relish.training.optim import learning_rates
from relish.training.recipe import named_recipe


def show(
    data: DataSource,
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
    value_range: AskedRange = None,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> Image.Image:
    """The book's grid: the first images of one class above the last ones, last first, of another.

    Args:
        data: anything `fit` takes.
        first: class name of the upper rows; None takes the first class.
        last: class name of the lower rows; None takes the last class.
        rows: of the grid, in images.
        columns: of the grid, in images.
        recipe: show instead the first batch of this recipe's training as the network sees it: cropped, flipped,
            scaled, and back from normalised values.
        source: as in `fit`; used only with `recipe`.
        weights: as in `fit`; used only with `recipe`.
        image_size: as in `fit`; used only with `recipe`.
        seed: of the crops; used only with `recipe`.
        reading: how the dataset is read, as in `fit`.
        value_range: as in `fit`.

    Returns:
        RGB; a notebook shows it.

    Raises:
        DataError: no images, an unknown class, or a grid without a cell.
        RecipeError, ModelError: as in `fit`.
    """
    if rows < 1 or columns < 1:
        raise DataError(f"--rows and --columns must be 1 or above, got {rows} and {columns}.")
    progress = progress or default_progress()
    found = find_dataset(data, reading=Reading(**reading), progress=progress)
    surveyed = survey(found, progress=progress, value_range=range_to_take(value_range))
    dataset, scale = surveyed.dataset, surveyed.value_range
    for warning in dataset.warnings:
        progress.warn(warning)
    if surveyed.depth:
        progress.say(f"values  {surveyed.depth}")
    name = next((name for name in (TRAIN, WHOLE) if name in dataset.splits), next(iter(dataset.splits)))
    split = dataset.splits[name]
    if recipe is None:
        return first_and_last(
            split, dataset.classes, first=first, last=last, rows=rows, columns=columns, value_range=scale
        )
    chosen = named_recipe(recipe)
    config = load_source(source, weights or ("none" if chosen.start == "random" else None)).data_config
    size = image_size or chosen.image_size or config.input_size[1]
    preprocessing = book_preprocessing(size, config.mean, config.std, scale)
    positions = epoch_batches(len(split), rows * columns, seed, epoch=0)[:1]
    (batch,) = training_batches(split, preprocessing, positions, seed=seed, epoch=0)
    shown = denormalise(normalise(batch.images, preprocessing), preprocessing)
    cells = [
        (Image.fromarray(pixels.permute(1, 2, 0).numpy()), dataset.classes[label])
        for pixels, label in zip(shown, batch.labels.tolist(), strict=True)
    ]
    return image_grid([cells[i : i + columns] for i in range(0, len(cells), columns)])


def find_models(query: str) -> list[Listed]:
    """Every source model whose name contains the query.

    Raises:
        ModelError: there is none; the hint names the nearest.
    """
    found = list_models(query)
    if not found:
        if Path(query).exists():
            raise ModelError(
                f'"{query}" is no name of a source model, but there is such a file.',
                hint=f"To see what is in it: relish models --weights {shlex.quote(query)}",
            )
        names = [listed.name.partition("/")[2] or listed.name for listed in list_models()]
        raise ModelError(f'there is no source model like "{query}".', hint=nearest(query, names))
    return found


def model_figure(name: str, weights: str | Path | None, classes: int) -> list[str] | None:
    """A source model and the target model that the book's fine-tuning makes of it, as lines; None for part of a name.

    Without `weights`, a network whose weights are no package is built with random ones: nothing is downloaded.

    Raises:
        ModelError: the weights do not fit.
    """
    # A name without its library is never Gluon's.
    exact = {n for listed in list_models() for n in (listed.name, listed.name.removeprefix("gluon/").partition("/")[2])}
    if name not in exact and weights is None:
        return None
    own = name in ("", *PACKAGED) or weights is not None
    source = load_source(name or None, weights if own else "none")
    target = make_target(source, [f"class {number}" for number in range(classes)], seed=0)
    return [*describe_source(source), "", *describe(target, learning_rates(named_recipe("book")))]


def convert(
    weights: str | Path,
    out: str | Path,
    *,
    source: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SourceModel:
    """Rewrite a file of weights as safetensors, with a header that says how to build its network.

    Args:
        weights: the file to read; it is not changed.
        out: the file to write, `.safetensors`.
        source: the network it must belong to; None takes the one that the file names, or a Gluon file's shapes fit.
        overwrite: replace a file that stands at `out`.

    Returns:
        The model in the file.

    Raises:
        ModelError: the file cannot be read, belongs to another network, or `out` exists or is no `.safetensors` file.
        WriteFailed: no space, no permission.
    """
    file, target, progress = Path(weights), Path(out), progress or default_progress()
    if str(file) == "none":
        raise ModelError("there is nothing to convert: random weights are in no file.", hint="Name a file of weights.")
    if target.exists() and file.exists() and target.samefile(file):
        raise ModelError(f"{target}: is the file to read.", hint="Name another to write.")
    check_target(target, ".safetensors", overwrite=overwrite)
    model = load_source(source, file, progress=progress)
    total = sum(parameter.numel() for parameter in model.network.parameters())
    arguments = "".join(f", {key} {value}" for key, value in model.description.model_args.items())
    classes = f"{model.num_classes} classes" if model.heads else "no classifier"
    progress.say(f"read    {file}: {model.name}{arguments}, {classes}, {total:,} parameters")
    if model.description.library == "gluon" and model.labels is not None:
        progress.say(
            "labels  ImageNet's, in ImageNet's order: a claim, since the file has none. "
            "fit --recipe source-head proves it on your pictures"
        )
    save_model(target, model.network, model.description, {"source": f"{file.name} (SHA-256 {model.sha256})"})
    progress.say(f"next    relish models --weights {target}    or:  relish fit DATA --weights {target}")
    return model
