"""`predict`: what a saved model predicts for images named on the command line, one by one or as a table in a file.

A name is a file, a folder, a glob or `-` for standard input; one that stands for no image gets a row with its error. A
table that was cut short is resumed by the same command.
"""

import codecs
import glob
import io
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relish.core.errors import BadInput, DataError, ImageError, TooLittleMemory, WriteFailed, stopped_by
from relish.core.io import fingerprint, sha256_of_file
from relish.core.progress import SILENT, Bar, Progress, default_progress
from relish.core.run_folder import RunFolder
from relish.data.folder import images_below, matches
from relish.data.image_files import is_image_head
from relish.data.layout import NoImages
from relish.evaluation.prediction import UNLIKE, Prediction
from relish.exporting.onnx_classifier import SUFFIX, OnnxClassifier
from relish.tasks.prediction_table import (
    Journal,
    MissingRows,
    Table,
    columns,
    journal_of,
    looks_like_a_formula,
    table_for,
)

if TYPE_CHECKING:
    from relish.tasks.classifier import Classifier


NamedImage = Path | io.BytesIO | ImageError
"""An image that was named: a file, the bytes of standard input, or why a name stands for none."""

_GO_ON = "Give the same command again to go on."
_ROWS = 64
"""Of a table, between two writes; what a kill can cost."""
_COUNTED = 10_000
"""Images, at most, before the first is read: enough to choose what computes them."""


def predict(
    run: str | Path,
    paths: Iterable[str],
    *,
    nul: bool = False,
    device: str = "auto",
    precision: str = "f32",
    progress: Progress = SILENT,
) -> Iterator[Prediction]:
    """Predictions one by one, so that a folder of any size needs the memory of two batches.

    Args:
        run: as `Classifier.load` takes it, or an exported file, which is read without torch.
        device: as `Classifier.load` takes it; an exported file has its own.
        precision: as `Classifier.load` takes it; an exported file has its own.
        paths: files, folders, globs, `-` for standard input.
        nul: standard input holds paths that end in a NUL each.
        progress: is told at the end which files of folders are no images.

    Raises:
        BadInput: there is no such device or precision.
        RunError, ModelError: the model cannot be loaded.
        DataError: nothing is named.
    """
    names, left_out = _checked(paths), NoImages()
    predictions = _loaded(run, device, precision, names, progress).stream(
        images_named(names, nul=nul, left_out=left_out)
    )
    return _and_then_told(predictions, left_out, progress)


def _and_then_told(predictions: Iterator[Prediction], left_out: NoImages, progress: Progress) -> Iterator[Prediction]:
    yield from predictions
    if left_out.kinds:
        progress.warn(left_out.sentence())


def refuse_choice(run: str | Path, device: str, precision: str = "f32") -> None:
    """Nothing, where an exported file can be run as asked.

    Raises:
        BadInput: it was asked to run elsewhere, or in another precision.
    """
    if device not in ("auto", "cpu"):
        raise BadInput(f"{run}: an exported file runs on the processor, not on {device}.", hint="Omit --device.")
    if precision != "f32":
        raise BadInput(f"{run}: an exported file has its precision inside.", hint="Omit --precision.")


def _loaded(
    run: str | Path, device: str, precision: str, names: Sequence[str], progress: Progress
) -> "Classifier | OnnxClassifier":
    if Path(run).suffix == SUFFIX:
        refuse_choice(run, device, precision)
        return OnnxClassifier(run)
    from relish.core.context import Context  # late: they bring torch with them
    from relish.tasks.classifier import Classifier

    model = Classifier.load(run, device=device, precision=precision)
    context = Context.on(device, progress)
    if "-" not in names and precision == "f32" and context.device.type == "cpu":
        # Of all the images, also where rows of a table are there: what is resumed computes as it began.
        model.hasten(sum(1 for _ in islice(images_named(names), _COUNTED)), context)
    return model


@dataclass(frozen=True)
class WrittenTable:
    """What came of a table."""

    out: Path
    pictures: int
    """Its rows."""
    unreadable: int
    """Rows that hold an error."""
    unsure: int
    unknown: int
    """Rows of images unlike anything the model learned from."""
    formulas: int
    """Rows of a CSV with a name that a spreadsheet would compute."""
    added: int
    """Rows that this start wrote; the others were there from earlier ones."""
    seconds: float
    """That this start took, from the first image on."""

    def as_json(self) -> dict[str, Any]:
        """The document that `relish predict --out FILE --json` prints."""
        return {
            "out": str(self.out),
            "pictures": self.pictures,
            "unreadable": self.unreadable,
            "unsure": self.unsure,
            "unknown": self.unknown,
            "pictures_per_second": self.added / self.seconds if self.added else None,
        }

    def sentence(self) -> str:
        """Such as `answers.csv: 1,000 images, 12 unsure, 2 could not be read; 31.5 images/s`."""
        parts = [f"{self.out}: {self.pictures:,} picture{'s' * (self.pictures != 1)}"]
        if self.unsure:
            parts.append(f"{self.unsure:,} unsure")
        if self.unknown:
            parts.append(f"{self.unknown:,} {UNLIKE}")
        if self.unreadable:
            parts.append(f"{self.unreadable:,} could not be read")
        return ", ".join(parts) + (f"; {self.added / self.seconds:.1f} pictures/s" if self.added else "")


def predict_table(
    run: str | Path,
    paths: Iterable[str],
    out: str | Path,
    *,
    nul: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "f32",
    progress: Progress | None = None,
) -> WrittenTable:
    """Predictions of any number of images as a table; what was broken off goes on, and no row is written twice.

    Args:
        run, paths, nul, device, precision: as `predict` takes them.
        out: a .csv, .jsonl or .parquet file.
        overwrite: replace `out`, and what is left of one that was broken off.

    Raises:
        BadInput: as `predict`; or `out` exists, has another ending, or was begun with another model or other images.
        WriteFailed: no space; the rows so far can be resumed.
        Stopped: by Ctrl-C, SIGTERM or SIGHUP; likewise.
        TooLittleMemory: for one picture; likewise.
    """
    names, target, progress = _checked(paths), Path(out), progress or default_progress()
    left_out = NoImages()
    model = _loaded(run, device, precision, names, progress)
    table = table_for(target, model.classes)
    file = RunFolder(Path(run)).model if Path(run).is_dir() else Path(run)
    about = {"model": sha256_of_file(file), "pictures": fingerprint([names, nul]), "precision": precision}
    about["set of columns"] = fingerprint(columns(model.classes))
    began = time.monotonic()
    try:
        with journal_of(target, about, finish=table.finish, overwrite=overwrite) as rows:
            former = rows.count
            if former:
                progress.say(f"resuming {target}: {former:,} rows are there already")
            with progress.bar("predicting", None, done=former) as bar, _expecting(names, bar):
                try:
                    images = images_named(names, nul=nul, left_out=left_out)
                    predictions = model.stream(_without_row(images, rows.missing()))
                    _fill(rows, table, _and_then_told(predictions, left_out, progress), bar)
                except KeyboardInterrupt as error:
                    raise stopped_by(error, f"stopped at {rows.count:,} pictures.", _GO_ON) from error
    except (WriteFailed, TooLittleMemory) as error:
        raise type(error)(error.message, hint=f"{error.hint} {_GO_ON}") from error
    tally = {key: rows.tally[key] for key in ("unreadable", "unsure", "unknown", "formulas")}
    return WrittenTable(target, rows.count, **tally, added=rows.count - former, seconds=time.monotonic() - began)


def _checked(paths: Iterable[str]) -> list[str]:
    names = list(paths)
    if not names or "" in names:
        raise DataError(
            "predict needs pictures" + (", and one of the names given is empty." if names else "."),
            hint="Name files, folders, globs, or - for standard input.",
        )
    return names


def _fill(rows: Journal, table: Table, predictions: Iterator[Prediction], bar: Bar) -> None:
    began, former = time.monotonic(), rows.count
    while some := list(islice(predictions, _ROWS)):
        rows.add(table.rows(some), [one.path for one in some], _tally(some, table))
        rate = (rows.count - former) / (time.monotonic() - began)
        bar.advance(len(some), f"{rate:.0f} pictures/s")


def _tally(predictions: Sequence[Prediction], table: Table) -> dict[str, int]:
    return {
        "unreadable": sum(one.error is not None for one in predictions),
        "unsure": sum(one.unsure for one in predictions),
        "unknown": sum(one.unknown for one in predictions),
        "formulas": sum(map(looks_like_a_formula, predictions)) if table.formulas else 0,
    }


def _without_row(images: Iterable[NamedImage], missing: MissingRows) -> Iterator[NamedImage]:
    """The images that have no row yet."""
    return (image for number, image in enumerate(images) if missing(_name(image, number)))


def _name(image: NamedImage, number: int) -> str:
    """What its row is called; as `Classifier.stream` calls it."""
    if isinstance(image, io.BytesIO):
        return f"picture {number + 1}"
    return image.name if isinstance(image, ImageError) else str(image)


@contextmanager
def _expecting(names: list[str], bar: Bar) -> Iterator[None]:
    """Count the images beside the work, so that the bar can say what is left; nobody waits for the count."""
    over = threading.Event()

    def count() -> None:
        total = 0
        for _ in images_named(names):
            total += 1
            if over.is_set():
                return
        bar.expect(total)

    if bar.shown and "-" not in names:
        threading.Thread(target=count, daemon=True).start()
    try:
        yield
    finally:
        over.set()


# ---- the images that names on a command line stand for ------------------------------------------------------------


_BLOCK = 2**16
_TELLING = 64
"""Bytes that tell an image from text: every format's header has some that are none within them."""


def images_named(words: Sequence[str], *, nul: bool = False, left_out: NoImages | None = None) -> Iterator[NamedImage]:
    """Every image named, in order; folders are walked through while they are asked for.

    Args:
        nul: standard input holds paths that end in a NUL each, as `find -print0` writes them, instead of lines.
        left_out: counts the files of folders that are no images.
    """
    for word in words:
        if word == "-":
            yield from _standard_input(nul=nul)
        elif glob.has_magic(word) and not os.path.lexists(word):
            found = (image for match in matches(word) for image in _one(Path(match), left_out))
            yield from _or_error(found, word)
        else:
            yield from _one(Path(word), left_out)


def _one(path: Path, left_out: NoImages | None) -> Iterator[NamedImage]:
    if os.path.isdir(path):
        yield from _or_error(images_below(path, left_out), str(path), "there is no picture in this folder")
    else:
        yield path


def _or_error(found: Iterator[NamedImage], name: str, reason: str = "matches no file") -> Iterator[NamedImage]:
    empty = True
    for one in found:
        empty = False
        yield one
    if empty:
        yield ImageError(name, reason)


def _standard_input(*, nul: bool) -> Iterator[NamedImage]:
    """Paths, read as they are asked for; or, where it begins like no text, one image's bytes."""
    stream: io.BufferedReader = sys.stdin.buffer  # type: ignore[assignment]
    head = b""
    while len(head) < _TELLING and (more := stream.read1(_BLOCK)):
        head += more
    if nul or (_is_text(head) and not is_image_head(head)):  # a PPM may be text
        names = _separated(head, stream, b"\0" if nul else b"\n")
        paths = (Path(os.fsdecode(name)) for name in names if name.strip())
        yield from _or_error(paths, "-", "standard input is empty")
    else:
        yield io.BytesIO(head + stream.read())


def _separated(head: bytes, stream: io.BufferedReader, separator: bytes) -> Iterator[bytes]:
    rest = head
    while True:
        *names, rest = rest.split(separator)
        yield from names if separator == b"\0" else (name.strip() for name in names)
        more = stream.read1(_BLOCK)
        if not more:
            break
        rest += more
    yield rest if separator == b"\0" else rest.strip()


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character that the block cuts is no error
    except UnicodeDecodeError:
        return False
    return b"\0" not in head  # no path has one, and nearly every image does
