"""Pictures a model was asked about, with what speaks for its answer: a heat map, and the pictures it learned from that
look most alike to it.

In:   a finished run, what it answered, which pictures to look at.
Out:  an `Example` each.
Not here: which pictures are worth a look (`evaluation/notable.py`).

Whatever cannot be had here (the package for heat maps, an architecture without a map of the picture, pictures that have
gone) is left out with a note; the rest of the report does not depend on it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from relish.core.errors import ImageError, ModelError
from relish.core.progress import Progress
from relish.data.loader import View
from relish.data.transforms import evaluation_transform, stacked
from relish.evaluation.explanations import heatmaps, last_feature_map, overlays_unavailable
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.neighbours import Nearest, nearest
from relish.reporting.embedding import embedded
from relish.reporting.overlays import overlay
from relish.reporting.predictions_page import evenly_spaced
from relish.reporting.report_page import Example, Shown
from relish.tasks.album import Album
from relish.tasks.run_results import Answers
from relish.tasks.classifier import Classifier

Row = Mapping[str, str]
"""Of `dataset.json`: `path`, `class`, `sha256`."""

FRAMED_SIDE = 224
"""Longest side of an example in pixels."""
THUMB_SIDE = 128
NEIGHBOURS = 3
MOST_LEARNED = 2000
"""Training pictures that are searched for the nearest, an even sample of them: a minute's work where their features are
not kept already."""
LIKELIEST = 3


class Examples:
    """Makes examples of one run's judged pictures; what it had to leave out is in `notes`."""

    def __init__(
        self,
        model: Classifier,
        answers: Answers,
        album: Album,
        judged: Sequence[Row],
        learned: Sequence[Row],
        accelerator: Accelerator,
        progress: Progress,
    ) -> None:
        """
        Args:
            judged, learned: rows of `dataset.json`; those judged in the order of the answers.
        """
        self.model, self.answers, self.album, self.progress = model, answers, album, progress
        self.rows, self.learned, self.accelerator = judged, learned, accelerator
        self.notes: list[str] = []

    def of(self, positions: Sequence[int]) -> dict[int, Example]:
        """Examples by position in the split; pictures that are gone have none."""
        opened = {p: picture for p in positions if (picture := self.album.open(self.rows[p]["path"])) is not None}
        if not opened:
            return {}
        shown = list(opened)
        framed = stacked([evaluation_transform(picture, self.model.preprocessing) for picture in opened.values()])
        pixels = framed.permute(0, 2, 3, 1).numpy()  # (B, S, S, 3)
        heat = self._heat(framed, [int(self.answers.said[p]) for p in shown])
        near = self._neighbours(shown)
        return {
            p: self._example(p, pixels[i], None if heat is None else heat[i], near.get(p, ()))
            for i, p in enumerate(shown)
        }

    def _example(
        self, p: int, pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32] | None, near: tuple[Shown, ...]
    ) -> Example:
        row, classes = self.answers.probabilities[p], self.answers.classes
        truth, said = classes[self.answers.labels[p]], classes[self.answers.said[p]]
        how = "rightly" if truth == said else "wrongly"
        alt = f"Picture of class {truth}, {how} taken for {said}, as the network sees it"
        best = np.argsort(-row, kind="stable")[:LIKELIEST]
        return Example(
            picture=Shown(embedded(Image.fromarray(pixels), FRAMED_SIDE), self.rows[p]["path"], alt),
            overlay=None if heat is None else embedded(overlay(pixels, heat), FRAMED_SIDE),
            truth=truth,
            said=said,
            unsure=bool(self.answers.unsure[p]),
            likeliest=tuple((classes[k], float(row[k])) for k in best),
            neighbours=near,
        )

    def _heat(self, framed: Tensor, said: list[int]) -> npt.NDArray[np.float32] | None:
        network, how = self.model.network, self.model.preprocessing
        if why := overlays_unavailable():
            self.notes.append(f"Heat maps: {why}.")
            return None
        layer = last_feature_map(network, how.image_size)
        if layer is None:
            self.notes.append("Heat maps: this network has no layer laid out over the picture that relish can find.")
            return None
        self.progress.say(f"explain {len(said)} pictures, by Grad-CAM on {layer.layer} ({layer.side} × {layer.side})")
        return heatmaps(network, framed, said, how, layer)

    def _neighbours(self, positions: Sequence[int]) -> dict[int, tuple[Shown, ...]]:
        learned = self.learned
        some = [learned[i] for i in evenly_spaced(len(learned), MOST_LEARNED)]
        some = [row for row in some if self.album.has(row["path"])]
        if not some:
            return {}
        asked = [self.rows[p] for p in positions]
        try:
            found, similarity = self._nearest(some, asked)
        except (ModelError, ImageError) as error:
            self.notes.append(f"Nearest training pictures: {error.message}")
            return {}
        if len(some) < len(learned):
            self.notes.append(
                f"Nearest training pictures were looked for among {len(some):,} of {len(learned):,}, evenly spaced."
            )
        return {
            p: tuple(
                shown
                for place, alike in zip(found[i], similarity[i], strict=True)
                if (shown := thumb(self.album, some[place], f"{some[place]['class']}, {alike:.0%} alike")) is not None
            )
            for i, p in enumerate(positions)
        }

    def _nearest(self, learned: Sequence[Row], asked: Sequence[Row]) -> Nearest:
        model, classes = self.model, self.answers.classes
        backbone = Backbone.of_saved(model.network, len(classes), model.source, self.accelerator.device)
        sha256 = {self.album.path(row["path"]): row["sha256"] for row in [*learned, *asked]}

        def features(rows: Sequence[Row], title: str) -> Features:
            split, how = self.album.split(rows, classes), model.preprocessing
            (found,) = features_of(
                backbone, split, [View(how)], sha256, self.accelerator, progress=self.progress, title=title
            )
            return found

        kept = features(learned, "features of training pictures")
        return nearest(kept, features(asked, "features of pictures shown"), NEIGHBOURS)


def thumb(album: Album, row: Row, words: str = "") -> Shown | None:
    """A small picture of a row of `dataset.json`; None where it is gone."""
    picture = album.open(row["path"])
    if picture is None:
        return None
    return Shown(embedded(picture, THUMB_SIDE, 80), row["path"], f"Picture of class {row['class']}", words)
