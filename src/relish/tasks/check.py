"""`check`: look a dataset over before training on it, and change nothing.

A `Check` holds the findings, in words, as JSON, as a page, and as a cleaned table that `fit` takes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from relish.checks.images import ImageSet, image_set
from relish.checks.run_checks import LEFT_OUT, RELABELLED, Checked, CleanedRow, all_findings, cleaned
from relish.core.context import Context
from relish.core.errors import DataError
from relish.core.io import write_text
from relish.core.progress import Progress
from relish.core.runtime import keep_freed_memory
from relish.data.dataset import Dataset, Finding
from relish.data.depth import AskedRange, ValueRange, range_to_take
from relish.data.loader import View
from relish.data.sources import DataSource, Reading, ReadingOptions, find_dataset
from relish.data.survey import survey
from relish.data.table_files import TABLE_SUFFIXES, table_text
from relish.data.transforms import book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.models.source import load_source
from relish.models.target import make_target
from relish.reporting.check_page import findings_text, write_check_page

CROP_SIZE = 5 / 7
"""Of crops, over the source model's own size (160 of 224 px): half the time of whole images, and as good. In nine
copies of 2,000 photographs with ten labels turned 8.2 were doubted beside 50 others; with crops of 224 px, 8.0 beside
51."""
TYPICAL = 4
"""Images of each class that doubtful ones are held against."""


@dataclass(frozen=True, eq=False)
class Check:
    """What a look at a dataset found."""

    findings: tuple[Finding, ...]
    """Suspicions, the gravest first."""
    pictures: int
    """How many files were looked at, those that cannot be opened among them."""
    dataset: Dataset
    """As it was found; nothing in it was changed."""
    checked: Checked
    page: Path | None = None
    value_range: ValueRange | None = None
    """What is black and white in images deeper than 8 bits; None where there are none."""

    def __str__(self) -> str:
        return findings_text(self.findings, self.pictures, self.dataset.source, page=self.page)

    def __repr__(self) -> str:
        return f"<Check of {self.dataset.name}: {len(self.findings)} findings in {self.pictures:,} pictures>"

    def as_json(self) -> dict[str, Any]:
        """The document of `relish check --json`."""
        document = {"findings": [finding.as_json() for finding in self.findings], "pictures": self.pictures}
        if self.value_range is not None:
            document["value_range"] = [self.value_range.low, self.value_range.high]
        return document

    def write_page(self, path: str | Path) -> None:
        """One offline page with the images of each finding side by side.

        Raises:
            WriteFailed: no space or no permission.
        """
        images = self.checked.images
        captions = {
            name: f"{images.classes[label]}, {images.split_names[split]}"
            for name, label, split in zip(images.names, images.labels, images.splits, strict=True)
        }
        write_check_page(
            Path(path),
            self.findings,
            dict(zip(images.names, images.paths, strict=True)),
            captions,
            _typical(self.checked, self.findings),
            heading=f"What a look at {self.dataset.name} found",
            images=self.pictures,
            value_range=self.value_range,
        )

    def write_clean_table(self, path: str | Path, relabel: float | None = None) -> tuple[int, int, Path]:
        """A table of the images that `fit` takes, and beside it the rows that were left out, with the reason.

        Args:
            path: the table, ending in `.csv`. Rows left out go to the same name with `.left-out.csv`; both have the
                same columns, so that a row moved over takes a decision back.
            relabel: give training images their suggested class where the model is at least this sure, 0 to 1.

        Returns:
            How many rows are left out, how many have another label, and where the former are.

        Raises:
            DataError: the path does not end in `.csv`, or is the table that was checked.
            WriteFailed: no space or no permission.
        """
        target = _table_path(path, self.dataset)
        rows = cleaned(self.dataset, self.checked, relabel)
        out = [row for row in rows if row.decision == LEFT_OUT]
        beside = target.with_name(f"{target.stem}.left-out.csv")
        groups = {"group": self.dataset.groups} if self.dataset.groups else {}
        further = {**self.dataset.columns, **groups}
        write_text(beside, _csv(out, beside.parent, further))
        write_text(target, _csv([row for row in rows if row.decision != LEFT_OUT], target.parent, further))
        return len(out), sum(row.decision == RELABELLED for row in rows), beside


def check(
    data: DataSource,
    *,
    source: str | None = None,
    weights: str | Path | None = None,
    html: str | Path | None = None,
    fix: str | Path | None = None,
    relabel: float | None = None,
    sha1: str | None = None,
    sha256: str | None = None,
    value_range: AskedRange = None,
    workers: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> Check:
    """Look for what is wrong with a dataset: broken files, copies, doubtful labels, odd images, uneven classes.

    Args:
        data: anything `fit` takes; also what `fit` refuses, as far as its layout is understood.
        source: the model whose features say which images are alike, as in `fit`.
        weights: of that model, as in `fit`.
        html: a page to write, with the images of each finding side by side.
        fix: a cleaned table to write, see `Check.write_clean_table`.
        relabel: see `Check.write_clean_table`; with `fix` alone.
        sha1: checksum that the archive must have.
        sha256: the same, of the other kind.
        reading: how the dataset is read, as in `fit`.
        value_range: as in `fit`.
        workers: processes that read images.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        What was found. It is a suspicion each: of labels flagged this way, people confirm about half.

    Raises:
        DataError: the layout is not understood, or `fix` cannot be what it should.
        ModelError: as in `fit`.
        WriteFailed: the page or the table cannot be written.
    """
    keep_freed_memory()
    context = Context.on(device, progress, workers)
    progress = context.progress
    if relabel is not None and (fix is None or not 0 < relabel <= 1):
        raise DataError(
            f"--relabel {relabel:g}: it goes with --fix, and is above 0 and at most 1.", hint="Such as --relabel 0.95."
        )
    told, scale = Reading(**reading), range_to_take(value_range)
    found = find_dataset(data, sha1=sha1, sha256=sha256, reading=told, learnable=False, progress=progress)
    if fix is not None:
        _table_path(fix, found)  # refused now, and not after every image has been looked at
    surveyed = survey(found, learnable=False, progress=progress, value_range=scale, workers=context.workers)
    if surveyed.depth:
        progress.say(f"values  {surveyed.depth}")
    images = image_set(surveyed)
    whole, cropped = _features(context, images, surveyed.value_range, source, weights)
    checked = all_findings(found, surveyed, images, whole, cropped)
    page = None if html is None else Path(html)
    made = Check(checked.findings, len(found), found, checked, page, surveyed.value_range)
    if html is not None:
        made.write_page(html)
    if fix is not None:
        out, changed, beside = made.write_clean_table(fix, relabel)
        progress.say(f"clean   {fix}: {len(found) - out:,} pictures, {changed:,} with another label")
        progress.say(f"        {beside}: {out:,} left out, each with the reason; a row moved back is back in")
    return made


def _features(
    context: Context,
    images: ImageSet,
    value_range: ValueRange | None,
    source: str | None,
    weights: str | Path | None,
) -> tuple[Features, Features]:
    """(N, D) float32 of each image whole, squeezed into the square, and of the book's crop of it, smaller.

    The first miss nothing that lies at a border; with both, a probe doubts more of the labels that are wrong.
    """
    model = load_source(source, None if weights is None else str(weights), progress=context.progress)
    target = make_target(model, images.classes or ("none",), head_init="zeros", seed=0)
    config, size = model.data_config, model.data_config.input_size[1]
    backbone, split = Backbone.of(target, context.device), images.as_split()
    smaller = min(size, max(32, round(CROP_SIZE * size / 32) * 32))
    side = smaller if backbone.accepts(smaller) else size
    cropped = book_preprocessing(side, config.mean, config.std, value_range)
    whole = replace(cropped, image_size=size, resize=size)
    contents = dict(zip(images.paths, images.sha256, strict=True))

    views = [View(whole), View(cropped)]
    found, others = features_of(backbone, split, views, contents, context, title="looking at pictures")
    return found, others


def _typical(checked: Checked, findings: Sequence[Finding]) -> dict[str, list[str]]:
    """For each suggested class, the names of images that the probe is surest of and whose label agrees."""
    if checked.predicted is None:
        return {}
    images, predicted = checked.images, checked.predicted
    doubted = {name for finding in findings for name in finding.paths}
    found: dict[str, list[str]] = {}
    for label in {images.classes.index(f.suggested) for f in findings if f.suggested in images.classes}:
        surest = np.argsort(-predicted.probabilities[:, label], kind="stable")
        places = predicted.positions[surest]
        names = [images.names[i] for i in places[images.labels[places] == label]]
        found[images.classes[label]] = [name for name in names if name not in doubted][:TYPICAL]
    return found


def _table_path(path: str | Path, dataset: Dataset) -> Path:
    target = Path(path)
    if target.suffix.lower() != ".csv":
        raise DataError(f"--fix {path}: the cleaned table ends in .csv.", hint="Such as --fix clean.csv.")
    given = Path(dataset.source).expanduser()
    if given.suffix.lower() in TABLE_SUFFIXES and given.resolve() == target.resolve():
        raise DataError(f"--fix {path} is the table that is checked.", hint="Name another one: yours stays as it is.")
    return target


def _csv(rows: Sequence[CleanedRow], folder: Path, further: Mapping[str, Mapping[Path, str]]) -> str:
    head = ("path", "label", "split", *further, "decision", "reason")
    others = ([cells.get(row.path, "") for cells in further.values()] for row in rows)
    named = ((_written(row.path, folder), row.label, row.split) for row in rows)
    decided = ((row.decision, row.reason) for row in rows)
    return table_text([head, *((*a, *b, *c) for a, b, c in zip(named, others, decided, strict=True))])


def _written(path: Path, folder: Path) -> str:
    """Relative to the table where the image lies below it, so that both can be moved together; else absolute."""
    home = Path(os.path.abspath(folder))
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)
