"""Parts of a report: images with heat map and nearest training images, other runs on the same images, the command.

What cannot be had (the package for heat maps, an architecture without a feature map, images that are gone) is omitted
with a note; the rest of the report does not depend on it.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from relish.core.context import Context
from relish.core.errors import ImageError, ModelError, RecipeError, RelishError
from relish.core.run_folder import RunFolder
from relish.data.loader import View
from relish.data.split import evenly_spaced
from relish.data.transforms import evaluation_transform, stacked
from relish.evaluation.explain import heatmaps, last_feature_map, overlay, overlays_unavailable
from relish.evaluation.features import Backbone, Features, Nearest, features_of, nearest
from relish.evaluation.significance import mcnemar
from relish.reporting.page import embed
from relish.reporting.run_page import Example, OtherRun, Thumbnail
from relish.tasks.classifier import Classifier
from relish.tasks.run_results import RunImages, RunPredictions, read_run_predictions
from relish.training.recipe import named_recipe

Row = Mapping[str, str]
"""Of `dataset.json`: `path`, `class`, `sha256`."""

FRAMED_SIDE = 224
"""Longest side of an example in pixels."""
THUMB_SIDE = 128
NEIGHBOURS = 3
MOST_LEARNED = 2000
"""Training images that are searched for the nearest, an even sample of them: a minute's work where their features are
not kept already."""
LIKELIEST = 3


class Examples:
    """Makes examples of the images that a run was evaluated on; what it had to omit is in `notes`.

    `evaluated` and `trained` are rows of `dataset.json`, the former in the order of the predictions.
    """

    def __init__(
        self,
        model: Classifier,
        predictions: RunPredictions,
        run_images: RunImages,
        evaluated: Sequence[Row],
        trained: Sequence[Row],
        context: Context,
    ) -> None:
        self.model, self.predictions, self.run_images, self.context = model, predictions, run_images, context
        self.rows, self.trained = evaluated, trained
        self.notes: list[str] = []

    def of(self, positions: Sequence[int]) -> dict[int, Example]:
        """Examples by position in the split; images that are gone have none."""
        opened = {p: image for p in positions if (image := self.run_images.open(self.rows[p]["path"])) is not None}
        if not opened:
            return {}
        shown = list(opened)
        framed = stacked([evaluation_transform(image, self.model.preprocessing) for image in opened.values()])
        pixels = framed.permute(0, 2, 3, 1).numpy()  # (B, S, S, 3)
        heat = self._heat(framed, [int(self.predictions.predicted[p]) for p in shown])
        near = self._neighbours(shown)
        return {
            p: self._example(p, pixels[i], None if heat is None else heat[i], near.get(p, ()))
            for i, p in enumerate(shown)
        }

    def _example(
        self, p: int, pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32] | None, near: tuple[Thumbnail, ...]
    ) -> Example:
        row, classes = self.predictions.probabilities[p], self.predictions.classes
        truth, predicted = classes[self.predictions.labels[p]], classes[self.predictions.predicted[p]]
        verdict = "rightly" if truth == predicted else "wrongly"
        alt = f"Picture of class {truth}, {verdict} taken for {predicted}, as the network sees it"
        best = np.argsort(-row, kind="stable")[:LIKELIEST]
        return Example(
            shown=Thumbnail(embed(Image.fromarray(pixels), FRAMED_SIDE), self.rows[p]["path"], alt),
            overlay=None if heat is None else embed(overlay(pixels, heat), FRAMED_SIDE),
            truth=truth,
            predicted=predicted,
            unsure=bool(self.predictions.unsure[p]),
            likeliest=tuple((classes[k], float(row[k])) for k in best),
            neighbours=near,
        )

    def _heat(self, framed: Tensor, predicted: list[int]) -> npt.NDArray[np.float32] | None:
        network, preprocessing = self.model.network, self.model.preprocessing
        if why := overlays_unavailable():
            self.notes.append(f"Heat maps: {why}.")
            return None
        layer = last_feature_map(network, preprocessing.image_size)
        if layer is None:
            self.notes.append("Heat maps: this network has no layer laid out over the picture that relish can find.")
            return None
        self.context.progress.say(
            f"explain {len(predicted)} pictures, by Grad-CAM on {layer.layer} ({layer.side} × {layer.side})"
        )
        return heatmaps(network, framed, predicted, preprocessing, layer)

    def _neighbours(self, positions: Sequence[int]) -> dict[int, tuple[Thumbnail, ...]]:
        trained = self.trained
        some = [trained[i] for i in evenly_spaced(len(trained), MOST_LEARNED)]
        some = [row for row in some if self.run_images.has(row["path"])]
        if not some:
            return {}
        asked = [self.rows[p] for p in positions]
        try:
            found, similarity = self._nearest(some, asked)
        except (ModelError, ImageError) as error:
            self.notes.append(f"Nearest training pictures: {error.message}")
            return {}
        if len(some) < len(trained):
            self.notes.append(
                f"Nearest training pictures were looked for among {len(some):,} of {len(trained):,}, evenly spaced."
            )
        return {
            p: tuple(
                shown
                for place, alike in zip(found[i], similarity[i], strict=True)
                if (shown := thumb(self.run_images, some[place], f"{some[place]['class']}, {alike:.0%} alike"))
                is not None
            )
            for i, p in enumerate(positions)
        }

    def _nearest(self, trained: Sequence[Row], asked: Sequence[Row]) -> Nearest:
        model, classes = self.model, self.predictions.classes
        backbone = Backbone(model.network, model.heads, model.source, self.context.device)
        sha256 = {self.run_images.path(row["path"]): row["sha256"] for row in [*trained, *asked]}

        def features(rows: Sequence[Row], title: str) -> Features:
            split, view = self.run_images.split(rows, classes), View(model.preprocessing)
            return features_of(backbone, split, [view], sha256, self.context, title=title)[0]

        kept = features(trained, "features of training pictures")
        return nearest(kept, features(asked, "features of pictures shown"), NEIGHBOURS)


def thumb(run_images: RunImages, row: Row, caption: str = "") -> Thumbnail | None:
    """A small image of a row of `dataset.json`; None where it is gone."""
    image = run_images.open(row["path"])
    if image is None:
        return None
    return Thumbnail(embed(image, THUMB_SIDE, 80), row["path"], f"Picture of class {row['class']}", caption)


# ---- other runs that were evaluated on the same images --------------------------------------------------------------


MOST = 8
"""Other runs shown, the best of them."""


@dataclass(frozen=True, eq=False)
class _Evaluated:
    folder: RunFolder
    recipe: str
    source: str
    predictions: RunPredictions


def runs_beside(folder: RunFolder, predictions: RunPredictions) -> tuple[list[OtherRun], int]:
    """The run among the others; nothing where there is no other.

    Returns:
        The runs, best first, and how many more there are.
    """
    evaluated_on = _evaluated_images(folder, folder.read_evaluation()["split"])
    own = _Evaluated(folder, *_names(folder), predictions)
    here = folder.path.resolve()
    beside = sorted(other.parent for other in here.parent.glob("*/request.json") if other.parent != here)
    others = [found for path in beside if (found := _evaluated_run(path, evaluated_on)) is not None]
    others.sort(key=lambda other: -other.predictions.accuracy.value)
    shown = sorted([own, *others[:MOST]], key=lambda one: -one.predictions.accuracy.value)
    return ([_shown(one, own) for one in shown] if others else []), max(0, len(others) - MOST)


def _evaluated_run(path: Path, evaluated_on: list[tuple[str, str]]) -> _Evaluated | None:
    """A run that was evaluated on these very images; a folder that is damaged or unfinished is none."""
    folder = RunFolder(path)
    if not folder.finished:
        return None
    try:
        evaluation = folder.read_evaluation()
        if _evaluated_images(folder, evaluation["split"]) != evaluated_on:
            return None
        return _Evaluated(folder, *_names(folder), read_run_predictions(folder, evaluation))
    except (RelishError, KeyError, TypeError):
        return None


def _evaluated_images(folder: RunFolder, split: str) -> list[tuple[str, str]]:
    """(SHA-256, class) of each image of a split, in its order."""
    rows: list[dict[str, Any]] = folder.read_dataset()["splits"][split]
    return [(row["sha256"], row["class"]) for row in rows]


def _names(folder: RunFolder) -> tuple[str, str]:
    request, recipe = folder.read_request(), folder.read_recipe()
    weights = request.get("weights")
    source = request.get("source") or (Path(weights).name if weights else "embedded")
    return str(recipe.get("name", "")), source if recipe.get("start") != "random" else f"{source}, random weights"


def _shown(one: _Evaluated, own: _Evaluated) -> OtherRun:
    names = [run.folder.path.resolve().name for run in (own, one)]
    sentence = "" if one is own else mcnemar(own.predictions.right, one.predictions.right).sentence(*names)
    return OtherRun(names[1], one.recipe, one.source, one.predictions.accuracy, sentence)


# ---- the command that makes a run again -----------------------------------------------------------------------------


_NOT_TYPED = ("data", "identity", "judge", "mapping", "strict", "budget", "python")
"""Of a request: what is no option of that name and value."""


def fit_command(request: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """The `relish fit` of a run, or the call that makes it where it was given what no command can type.

    `request` is of `request.json`, `recipe` of `recipe.yaml`.
    """
    if request.get("python"):
        return fit_call(request, recipe)
    words = ["relish", "fit", str(request["data"]), "--recipe", str(recipe["name"])]
    for key in changed_fields(recipe):
        words += ["--set", f"{key}={recipe[key]}"]
    for key, value in request.items():
        if key not in _NOT_TYPED and value not in (None, 0, ""):
            words += [f"--{key.replace('_', '-')}", str(value)]
    for name, row in request.get("mapping", {}).items():
        words += ["--map", f"{name}={row}"]
    if request.get("budget"):
        words += ["--budget", f"{request['budget']:g}s"]
    return shlex.join(words + (["--strict"] if request.get("strict") else []))


def fit_call(request: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """The `relish.fit` of a run, in Python; arguments as in `fit_command`."""
    left_out = ("data", "identity", "judge", "python")
    given = {key: value for key, value in request.items() if key not in left_out and value not in (None, 0, "", {})}
    settings = {key: recipe[key] for key in changed_fields(recipe)}
    python = {key: value for key, value in request["python"].items() if key != "keeps_head"}
    unknown = ("source", "transform", "loss")
    words = [repr(str(request["data"])), f"recipe={recipe['name']!r}"]
    words += [f"{key}={'…' if key in unknown else repr(value)}" for key, value in python.items()]
    words += [f"{key}={value!r}" for key, value in given.items()] + ([f"settings={settings!r}"] if settings else [])
    return f"relish.fit({', '.join(words)})"


def changed_fields(recipe: Mapping[str, Any]) -> list[str]:
    """The fields that differ from the recipe of that name; none where there is no such recipe any more."""
    try:
        usual = named_recipe(str(recipe["name"])).as_dict()
    except RecipeError:
        return []
    return [key for key, value in recipe.items() if key != "name" and value is not None and usual.get(key) != value]
