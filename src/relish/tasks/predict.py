"""`predict`: what a saved model says of pictures named on the command line.

In:   files, folders, globs, `-` for standard input.
Out:  one `Prediction` for each picture found, in order; what is no picture gets a row with its error.
"""

import glob
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from relish.core.errors import DataError
from relish.data.pictures import PICTURE_SUFFIXES
from relish.tasks.classifier import Classifier, Picture, Prediction


def predict(run: str | Path, paths: Iterable[str], *, device: str = "auto") -> Iterator[Prediction]:
    """Predictions one by one, so that a folder of any size needs the memory of one batch.

    Raises:
        RunError, ModelError: the model cannot be loaded.
        DataError: a folder or a glob in which there is no picture.
    """
    given = list(paths)
    if not given:
        raise DataError("predict needs pictures: name a file, a folder, a glob or - for standard input.")
    return Classifier.load(run, device=device).stream(_found(given))


def _found(paths: list[str]) -> Iterator[Picture]:
    for path in paths:
        if path == "-":
            yield from _standard_input()
        elif Path(path).is_dir():
            yield from _any(_inside(Path(path)), f"{path}: there is no picture in this folder.")
        elif glob.has_magic(path) and not Path(path).exists():
            yield from _any(sorted(map(Path, glob.iglob(path, recursive=True))), f"{path}: matches no file.")
        else:
            yield Path(path)


def _inside(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _any(found: list[Path], otherwise: str) -> list[Path]:
    if not found:
        raise DataError(otherwise)
    return found


def _standard_input() -> Iterator[Picture]:
    """One picture's bytes, or one path a line."""
    content = sys.stdin.buffer.read()
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        yield io.BytesIO(content)
        return
    yield from (Path(line.strip()) for line in lines if line.strip())
