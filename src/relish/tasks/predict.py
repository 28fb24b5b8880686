"""`predict`: what a saved model says of pictures named on the command line.

In:   files, folders, globs, `-` for standard input.
Out:  one `Prediction` for each picture found, in order; what is no picture gets a row with its error.
"""

import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from relish.core.errors import BadInput, DataError, PictureError
from relish.data.pictures import PICTURE_SUFFIXES, PictureSource
from relish.evaluation.prediction import Prediction
from relish.export.reader import SUFFIX, OnnxClassifier


def predict(
    run: str | Path, paths: Iterable[str], *, device: str = "auto", precision: str = "f32"
) -> Iterator[Prediction]:
    """Predictions one by one, so that a folder of any size needs the memory of one batch.

    Args:
        run: as `Classifier.load` takes it, or an exported file, which is read without torch.
        device, precision: as `Classifier.load` takes them; an exported file has its own.
        paths: files, folders, globs, `-` for standard input.

    Raises:
        BadInput: there is no such device or precision.
        RunError, ModelError: the model cannot be loaded.
        DataError: nothing is named.
    """
    given = list(paths)
    if not given or "" in given:
        raise DataError(
            "predict needs pictures" + (", and one of the names given is empty." if given else "."),
            hint="Name files, folders, globs, or - for standard input.",
        )
    if Path(run).suffix == SUFFIX:
        refuse_choice(run, device, precision)
        return OnnxClassifier(run).stream(_found(given))
    from relish.tasks.classifier import Classifier  # late: it brings torch with it

    return Classifier.load(run, device=device, precision=precision).stream(_found(given))  # type: ignore[arg-type]


def refuse_choice(run: str | Path, device: str, precision: str = "f32") -> None:
    """Nothing, where an exported file can be run as asked.

    Raises:
        BadInput: it was asked to run elsewhere, or in another precision.
    """
    if device not in ("auto", "cpu"):
        raise BadInput(f"{run}: an exported file runs on the processor, not on {device}.", hint="Leave --device away.")
    if precision != "f32":
        raise BadInput(f"{run}: an exported file has its precision inside.", hint="Leave --precision away.")


def _found(paths: list[str]) -> Iterator[PictureSource | PictureError]:
    """Every picture named; a name that stands for none is handed on as its error, and stops nothing."""
    for path in paths:
        if path == "-":
            yield from _standard_input()
        elif glob.has_magic(path) and not os.path.lexists(path):
            matches = sorted(glob.iglob(path, recursive=True))
            for match in matches:
                yield from _one(Path(match))
            if not matches:
                yield PictureError(path, "matches no file")
        else:
            yield from _one(Path(path))


def _one(path: Path) -> Iterator[PictureSource | PictureError]:
    if not os.path.isdir(path):
        yield path
        return
    found = (p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    pictures = sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))
    yield from pictures
    if not pictures:
        yield PictureError(str(path), "there is no picture in this folder")


def _standard_input() -> Iterator[PictureSource | PictureError]:
    """One picture's bytes, or one path a line."""
    content = sys.stdin.buffer.read()
    if not content.strip():
        yield PictureError("-", "standard input is empty")
    elif _is_text(content):
        yield from (Path(line.strip()) for line in content.decode().splitlines() if line.strip())
    else:
        yield io.BytesIO(content)


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content  # no path has one, and nearly every picture does
