"""Parts of a report: images with heat map and nearest training images, other runs on the same images, the command.

What cannot be had (the package for heat maps, an architecture without a feature map, images that are gone) is omitted
with a note; the rest of the report does not depend on it.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from relish.core.context import Context
from relish.core.errors import ImageError, ModelError, RecipeError, RelishError, TooLittleMemory
from relish.core.run_folder import RunFolder
from relish.core.runtime import is_out_of_memory
from relish.data.dataset import class_name, split_of
from relish.data.loader import View
from relish.data.split import evenly_spaced
from relish.data.transforms import evaluation_transform, stacked
from relish.evaluation.explain import heatmaps, last_feature_map, overlay, overlays_unavailable
from relish.evaluation.features import Backbone, Features, Nearest, features_of, nearest
from relish.evaluation.significance import mcnemar
from relish.reporting.page import embed
from relish.reporting.run_page import Example, Thumbnail
from relish.tasks.classifier import Classifier
from relish.tasks.run_results import FinishedRun, Row, RunImages, read_run
from relish.training.recipe import named_recipe

FRAMED_SIDE = 224
"""Longest side of an example in pixels."""
THUMB_SIDE = 128
NEIGHBOURS = 3
MOST_LEARNED = 2000
"""Training images that are searched for the nearest, an even sample of them: a minute's work where their features are
not kept already."""
LIKELIEST = 3


class Examples:
    """Makes examples of the images that a run was evaluated on; what it had to omit is in `notes`."""

    def __init__(self, model: Classifier, run: FinishedRun, context: Context) -> None:
        self.model, self.run, self.context = model, run, context
        self.notes: list[str] = []

    def of(self, positions: Sequence[int]) -> dict[int, Example]:
        """Examples by position in the split; images that are gone have none."""
        found = {p: self.run.images.open(self.run.evaluated[p]["path"]) for p in positions}
        opened = {p: image for p, image in found.items() if image is not None}
        if not opened:
            return {}
        shown = list(opened)
        framed = stacked([evaluation_transform(image, self.model.preprocessing) for image in opened.values()])
        pixels = framed.permute(0, 2, 3, 1).numpy()  # (B, S, S, 3)
        heat = self._heat(framed, [int(self.run.predictions.predicted[p]) for p in shown])
        near = self._neighbours(shown)
        return {
            p: self._example(p, pixels[i], None if heat is None else heat[i], near.get(p, ()))
            for i, p in enumerate(shown)
        }

    def _example(
        self, p: int, pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32] | None, near: Sequence[Thumbnail]
    ) -> Example:
        found, classes = self.run.predictions, self.run.predictions.classes
        row, truth, predicted = found.probabilities[p], classes[found.labels[p]], classes[found.predicted[p]]
        verdict = "rightly" if truth == predicted else "wrongly"
        alt = f"Picture of class {truth}, {verdict} taken for {predicted}, as the network sees it"
        best = np.argsort(-row, kind="stable")[:LIKELIEST]
        return Example(
            shown=Thumbnail(embed(Image.fromarray(pixels), FRAMED_SIDE), self.run.evaluated[p]["path"], alt),
            overlay=None if heat is None else embed(overlay(pixels, heat), FRAMED_SIDE),
            truth=truth,
            predicted=predicted,
            unsure=bool(found.unsure[p]),
            unfamiliarity=None if found.unfamiliarity is None else float(found.unfamiliarity[p]),
            unknown=bool(found.unknown[p]),
            likeliest=tuple((classes[k], float(row[k])) for k in best),
            neighbours=near,
        )

    def _heat(self, framed: Tensor, predicted: list[int]) -> npt.NDArray[np.float32] | None:
        try:
            return self._heat_maps(framed, predicted)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self.notes.append("Heat maps: there was too little memory for them.")
        return None

    def _heat_maps(self, framed: Tensor, predicted: list[int]) -> npt.NDArray[np.float32] | None:
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

    def _neighbours(self, positions: Sequence[int]) -> dict[int, list[Thumbnail]]:
        trained, images = self.run.trained, self.run.images
        some = [trained[i] for i in evenly_spaced(len(trained), MOST_LEARNED)]
        some = [row for row in some if images.has(row["path"])]
        if not some:
            return {}
        asked = [self.run.evaluated[p] for p in positions]
        try:
            found, similarity = self._nearest(some, asked)
        except (ModelError, ImageError, TooLittleMemory) as error:
            self.notes.append(f"Nearest training pictures: {error.message}")
            return {}
        if len(some) < len(trained):
            self.notes.append(
                f"Nearest training pictures were looked for among {len(some):,} of {len(trained):,}, evenly spaced."
            )
        near = {}
        for p, row, places, alikes in zip(positions, asked, found, similarity, strict=True):
            others = [
                (some[k], f"{some[k]['class']}, {alike:.0%} alike") for k, alike in zip(places, alikes, strict=True)
            ]
            near[p] = [pair for pair in others if pair[0]["path"] != row["path"]][:NEIGHBOURS]  # not the image itself
        return {p: thumbnails(images, rows) for p, rows in near.items()}

    def _nearest(self, trained: Sequence[Row], asked: Sequence[Row]) -> Nearest:
        model, images = self.model, self.run.images
        backbone = Backbone(model.network, model.heads, model.source, self.context.device)
        sha256 = {images.path(row["path"]): row["sha256"] for row in [*trained, *asked]}

        def features(rows: Sequence[Row], title: str) -> Features:
            split, view = images.split(rows, self.run.predictions.classes), View(model.preprocessing)
            return features_of(backbone, split, [view], sha256, self.context, title=title)[0]

        kept = features(trained, "features of training pictures")
        return nearest(kept, features(asked, "features of pictures shown"), NEIGHBOURS + self.run.nested)


def thumbnails(images: RunImages, rows: Iterable[tuple[Row, str]]) -> list[Thumbnail]:
    """Small images of rows of `dataset.json`, each with a caption; without those that are gone."""
    return [
        Thumbnail(embed(image, THUMB_SIDE, 80), row["path"], f"Picture of class {row['class']}", caption)
        for row, caption in rows
        if (image := images.open(row["path"])) is not None
    ]


# ---- other runs that were evaluated on the same images --------------------------------------------------------------


MOST = 8
"""Other runs shown, the best of them."""


def runs_beside(run: FinishedRun) -> tuple[list[dict[str, Any]], int]:
    """The run among the others, as the report shows them; nothing where there is no other.

    Returns:
        The runs, best first, and how many more there are.
    """
    evaluated_on = _contents(run.dataset, run.evaluation["split"])
    here = run.folder.path.resolve()
    beside = sorted(other.parent for other in here.parent.glob("*/request.json") if other.parent != here)
    others = [found for path in beside if (found := _run_on(path, evaluated_on)) is not None]
    others.sort(key=lambda other: -other.accuracy.value)
    shown = sorted([run, *others[:MOST]], key=lambda one: -one.accuracy.value)
    return ([_shown(one, run) for one in shown] if others else []), max(0, len(others) - MOST)


def _run_on(path: Path, evaluated_on: list[tuple[str, str]]) -> FinishedRun | None:
    """A run that was evaluated on these very images; a folder that is damaged or unfinished is none."""
    folder = RunFolder(path)
    try:
        if not folder.finished or _contents(folder.read_dataset(), folder.read_evaluation()["split"]) != evaluated_on:
            return None
        return read_run(folder)
    except (RelishError, KeyError, TypeError):
        return None


def _contents(dataset: Mapping[str, Any], split: str) -> list[tuple[str, str]]:
    """(SHA-256, class) of each image of a split, in its order."""
    return [(row["sha256"], class_name(row["class"])) for row in dataset["splits"][split_of(split)]]


def _shown(one: FinishedRun, own: FinishedRun) -> dict[str, Any]:
    names = [run.folder.path.resolve().name for run in (own, one)]
    weights, recipe = one.request.get("weights"), one.recipe
    test = mcnemar(own.predictions.right, one.predictions.right, own.groups)
    source = one.request.get("source") or (Path(weights).name if weights else "embedded")
    return {
        "name": names[1],
        "recipe": recipe.get("name", ""),
        "source": source if recipe.get("start") != "random" else f"{source}, random weights",
        "top1": one.accuracy,
        "sentence": "" if one is own else test.sentence(*names),
    }


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
