"""`predict`: what a saved model says of pictures named on the command line.

In:   files, folders, globs, `-` for standard input.
Out:  one `Prediction` for each picture found, in order; what is no picture gets a row with its error. Or all of them as
      a table in a file, which goes on where it was broken off.
Not here: finding the pictures (`given.py`), the forms of table (`reporting/prediction_tables.py`).
"""

import io
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relish.core.errors import BadInput, DataError, ImageError, Stopped, WriteFailed
from relish.core.growing import Growing, Missing, growing
from relish.core.io import fingerprint, sha256_of_file
from relish.core.progress import Bar, Progress
from relish.core.run_folder import RunFolder
from relish.evaluation.prediction import Prediction
from relish.export.reader import SUFFIX, OnnxClassifier
from relish.reporting.prediction_tables import Table, looks_like_a_formula, table_for
from relish.tasks.given import Given, pictures_named

if TYPE_CHECKING:
    from relish.tasks.classifier import Classifier

_GO_ON = "Give the same command again to go on."
_ROWS = 64
"""Of a table, between two writes; what a kill can cost."""


def predict(
    run: str | Path, paths: Iterable[str], *, nul: bool = False, device: str = "auto", precision: str = "f32"
) -> Iterator[Prediction]:
    """Predictions one by one, so that a folder of any size needs the memory of two batches.

    Args:
        run: as `Classifier.load` takes it, or an exported file, which is read without torch.
        device, precision: as `Classifier.load` takes them; an exported file has its own.
        paths: files, folders, globs, `-` for standard input.
        nul: standard input holds paths that end in a NUL each.

    Raises:
        BadInput: there is no such device or precision.
        RunError, ModelError: the model cannot be loaded.
        DataError: nothing is named.
    """
    given = _checked(paths)
    return _loaded(run, device, precision).stream(pictures_named(given, nul=nul))


def refuse_choice(run: str | Path, device: str, precision: str = "f32") -> None:
    """Nothing, where an exported file can be run as asked.

    Raises:
        BadInput: it was asked to run elsewhere, or in another precision.
    """
    if device not in ("auto", "cpu"):
        raise BadInput(f"{run}: an exported file runs on the processor, not on {device}.", hint="Leave --device away.")
    if precision != "f32":
        raise BadInput(f"{run}: an exported file has its precision inside.", hint="Leave --precision away.")


def _loaded(run: str | Path, device: str, precision: str) -> "Classifier | OnnxClassifier":
    if Path(run).suffix == SUFFIX:
        refuse_choice(run, device, precision)
        return OnnxClassifier(run)
    from relish.tasks.classifier import Classifier  # late: it brings torch with it

    return Classifier.load(run, device=device, precision=precision)


@dataclass(frozen=True)
class Written:
    """What came of a table."""

    out: Path
    pictures: int
    """Its rows."""
    unreadable: int
    """Rows that hold an error."""
    unsure: int
    formulas: int
    """Rows of a CSV with a name that a spreadsheet would compute."""
    added: int
    """Rows that this start wrote; the others were there from earlier ones."""
    seconds: float
    """That this start took, from the first picture on."""

    def as_json(self) -> dict[str, Any]:
        """The document that `relish predict --out FILE --json` prints."""
        return {
            "out": str(self.out),
            "pictures": self.pictures,
            "unreadable": self.unreadable,
            "unsure": self.unsure,
            "pictures_per_second": self.added / self.seconds if self.added else None,
        }

    def sentence(self) -> str:
        """Such as `answers.csv: 1,000 pictures, 12 unsure, 2 could not be read; 31.5 pictures/s`."""
        parts = [f"{self.out}: {self.pictures:,} picture{'s' * (self.pictures != 1)}"]
        if self.unsure:
            parts.append(f"{self.unsure:,} unsure")
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
) -> Written:
    """Predictions of any number of pictures as a table; what was broken off goes on, and no row is written twice.

    Args:
        run, paths, nul, device, precision: as `predict` takes them.
        out: a .csv, .jsonl or .parquet file.
        overwrite: replace `out`, and what is left of one that was broken off.

    Raises:
        BadInput: as `predict`; or `out` exists, has another ending, or was begun with another model or other pictures.
        WriteFailed: no space; the rows so far can be gone on from.
        Stopped: by Ctrl-C; likewise.
    """
    given, target, voice = _checked(paths), Path(out), progress or Progress()
    model = _loaded(run, device, precision)
    table = table_for(target, model.classes)
    file = RunFolder(Path(run)).model if Path(run).is_dir() else Path(run)
    about = {"model": sha256_of_file(file), "pictures": fingerprint([given, nul]), "precision": precision}
    began = time.monotonic()
    try:
        with growing(target, about, head=table.head, finish=table.finish, overwrite=overwrite) as rows:
            former = rows.count
            if former:
                voice.say(f"going on with {target}: {former:,} rows are there already")
            with voice.bar("predicting", None, done=former) as bar, _expecting(given, bar):
                try:
                    answers = model.stream(_without_rows(pictures_named(given, nul=nul), rows.missing()))
                    _fill(rows, table, answers, bar)
                except KeyboardInterrupt as error:
                    raise Stopped(f"stopped at {rows.count:,} pictures.", hint=_GO_ON) from error
    except WriteFailed as error:
        raise WriteFailed(error.message, hint=f"{error.hint}\n  {_GO_ON}") from error
    tally = {key: rows.tally.get(key, 0) for key in ("unreadable", "unsure", "formulas")}
    return Written(target, rows.count, **tally, added=rows.count - former, seconds=time.monotonic() - began)


def _checked(paths: Iterable[str]) -> list[str]:
    given = list(paths)
    if not given or "" in given:
        raise DataError(
            "predict needs pictures" + (", and one of the names given is empty." if given else "."),
            hint="Name files, folders, globs, or - for standard input.",
        )
    return given


def _fill(rows: Growing, table: Table, answers: Iterator[Prediction], bar: Bar) -> None:
    began, former = time.monotonic(), rows.count
    while some := list(islice(answers, _ROWS)):
        rows.add(table.rows(some), [one.path for one in some], _tally(some, table))
        rate = (rows.count - former) / (time.monotonic() - began)
        bar.advance(len(some), f"{rate:.0f} pictures/s")


def _tally(answers: Sequence[Prediction], table: Table) -> dict[str, int]:
    return {
        "unreadable": sum(one.error is not None for one in answers),
        "unsure": sum(one.unsure for one in answers),
        "formulas": sum(map(looks_like_a_formula, answers)) if table.formulas else 0,
    }


def _without_rows(pictures: Iterable[Given], missing: Missing) -> Iterator[Given]:
    """The pictures that have no row yet."""
    return (picture for number, picture in enumerate(pictures) if missing(_name(picture, number)))


def _name(picture: Given, number: int) -> str:
    """What its row is called; as `Classifier.stream` calls it."""
    if isinstance(picture, io.BytesIO):
        return f"picture {number + 1}"
    return picture.name if isinstance(picture, ImageError) else str(picture)


@contextmanager
def _expecting(given: list[str], bar: Bar) -> Iterator[None]:
    """Count the pictures beside the work, so that the bar can say what is left; nobody waits for the count."""
    over = threading.Event()

    def count() -> None:
        total = 0
        for _ in pictures_named(given):
            total += 1
            if over.is_set():
                return
        bar.expect(total)

    if bar.shown and "-" not in given:
        threading.Thread(target=count, daemon=True).start()
    try:
        yield
    finally:
        over.set()
