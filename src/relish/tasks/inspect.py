"""Look before training: `show` draws a grid of images, `find_models` and `model_figure` describe source models.

`convert` rewrites a file of weights as safetensors whose header says how to build the network.
"""

import shlex
from pathlib import Path

from PIL import Image

from relish.core.errors import DataError, ModelError, nearest
from relish.core.progress import Progress
from relish.data.dataset import TRAIN, WHOLE, Dataset, Split
from relish.data.loader import epoch_batches, training_batches
from relish.data.sources import find_dataset
from relish.data.survey import survey
from relish.data.transforms import book_preprocessing, denormalise, normalise
from relish.models.saved_model import save_model
from relish.models.source import SourceModel, load_source
from relish.models.summary import Listed, describe, describe_source, list_models
from relish.models.target import make_target
from relish.reporting.grid import first_and_last, image_grid
from relish.training.optim import learning_rates
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
    return image_grid([cells[i : i + columns] for i in range(0, len(cells), columns)])


def _learned(dataset: Dataset) -> Split:
    for name in (TRAIN, WHOLE):
        if name in dataset.splits:
            return dataset.splits[name]
    return next(iter(dataset.splits.values()))


def find_models(query: str) -> list[Listed]:
    """Every source model whose name holds the query.

    Raises:
        ModelError: there is none; the nearest name is offered.
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
    """What a source model is and what the book's fine-tuning makes of it; None where `name` is only part of a name.

    Without weights the design is shown with random ones: nothing is downloaded to draw a figure.

    Raises:
        ModelError: the weights do not fit.
    """
    # A bare name is never Gluon's.
    exact = {n for listed in list_models() for n in (listed.name, listed.name.removeprefix("gluon/").partition("/")[2])}
    if name not in exact and weights is None:
        return None
    packaged = name in ("", "embedded") or weights is not None
    source = load_source(name or None, weights if packaged else "none")
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
    """Write a file of weights anew, with a header.

    Args:
        weights: the file to read; it is left as it is.
        out: the file to write, `.safetensors`.
        source: the network it must be of; None takes what the file says, as `--weights` does.
        overwrite: replace a file that stands at `out`.
        progress: is told what was read.

    Returns:
        The model that was read and written.

    Raises:
        ModelError: the file cannot be read, is of another network, or `out` cannot be written to so.
        WriteFailed: no space, no permission.
    """
    given, target, voice = Path(weights), Path(out), progress or Progress()
    _check(given, target, overwrite)
    model = load_source(source, given, progress=voice)
    total = sum(parameter.numel() for parameter in model.network.parameters())
    arguments = "".join(f", {key} {value}" for key, value in model.model_args.items())
    voice.say(f"read    {given}: {model.name}{arguments}, {model.num_classes} classes, {total:,} parameters")
    if model.library == "gluon" and model.labels is not None:
        voice.say(
            "labels  ImageNet's, in ImageNet's order: a claim, since the file has none. "
            "fit --recipe source-head proves it on your pictures"
        )
    save_model(target, model.network, model.description, {"source": f"{given.name} (SHA-256 {model.sha256})"})
    voice.say(f"next    relish models --weights {target}    or:  relish fit DATA --weights {target}")
    return model


def _check(given: Path, target: Path, overwrite: bool) -> None:
    if str(given) == "none":
        raise ModelError("there is nothing to convert: random weights are in no file.", hint="Name a file of weights.")
    if target.suffix != ".safetensors":
        raise ModelError(
            f"{target}: is not named .safetensors.", hint=f"Write to {target.with_suffix('.safetensors')}."
        )
    if target.is_dir():
        raise ModelError(f"{target}: is a folder.", hint="Name a file.")
    if target.exists() and given.exists() and target.samefile(given):
        raise ModelError(f"{target}: is the file to read.", hint="Name another to write.")
    if target.exists() and not overwrite:
        raise ModelError(f"{target} exists already.", hint="Name another file, or replace it: --overwrite.")
