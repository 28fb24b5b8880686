"""Take it away: the run folder with its report, one ONNX file with its certificate, or a web page, as zips to download.

Both are made by the commands that a user would type, as processes of their own: the run that was judged better than the
probe, else `relish fit FOLDER --recipe probe`, whose features are in the cache.
"""

import hashlib
import re
import shlex
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from relish.core.errors import Failed, RelishError
from relish.core.io import atomic_path, sha256_of_file
from relish.data.archive import short_name
from relish.data.set_aside import OWN, read_splits
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.exporting.web_page import has_web_runtime, write_web_page
from relish.server.limits import Refusal
from relish.teaching.better import Better, Work
from relish.teaching.learning import Learner
from relish.teaching.library import Conflict

KINDS = ("onnx", *(["web"] if has_web_runtime() else []), "run")
"""What can be taken away, as the page orders it: a web page where onnxruntime-web came with this installation."""
_NOT_TAKEN = ("checkpoints", "stages")
"""Folders of a run that only resuming needs."""


@dataclass
class Export:
    """One thing to take away, and how far it is."""

    kind: str
    phase: str = "making"
    name: str = ""
    bytes: int = 0
    reason: str = ""
    url: str = ""
    certificate: dict[str, int] | None = None
    """Of how many images the file's predictions were compared, `of`, and how many agreed, `agree`."""


class Takeaway:
    """Makes what is to be taken away, one thing at a time.

    Args:
        options: of `relish fit`.
        changed: called whenever there is something new to show.
    """

    def __init__(self, learner: Learner, better: Better, options: Sequence[str], changed: Callable[[], None]) -> None:
        self._learner, self._better, self._changed = learner, better, changed
        self._options = options
        self._made: dict[str, Export] = {}
        self._thread: threading.Thread | None = None
        self._work: Work | None = None

    def make(self, kind: str) -> None:
        """Begin to make it.

        Raises:
            Conflict: something is being made, or there is nothing to learn from.
            Refusal: it cannot be made here.
        """
        if kind not in KINDS:
            raise Refusal(422, f"{kind} cannot be made here.")
        if self._thread is not None and self._thread.is_alive():
            raise Conflict("something is being made already.", hint="Wait for it.")
        if self._learner.solved is None:
            raise Conflict("there is nothing to take away yet.", hint="Two classes with a few pictures each.")
        self._made[kind] = Export(kind)
        self._thread = threading.Thread(target=self._make, args=(self._made[kind],), name="takeaway", daemon=True)
        self._thread.start()

    def state(self) -> list[dict[str, Any]]:
        """What the page is told."""
        return [asdict(one) for one in self._made.values()]

    def file(self, name: str) -> Path:
        """The file to send.

        Raises:
            Refusal: 404, there is none of that name.
        """
        path = self._folder / name
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.zip", name) or not path.is_file():
            raise Refusal(404, "there is no such file.", hint="Make it first.")
        return path

    def commands(self) -> list[str]:
        """What to type for the same."""
        return [shlex.join(["relish", "export", "RUN", f"{self._name}.onnx"])]

    def close(self) -> None:
        """End what is being made."""
        if self._work is not None:
            self._work.stop()
        if self._thread is not None:
            self._thread.join(10)

    @property
    def _folder(self) -> Path:
        return self._learner.library.folder / OWN / "exports"

    @property
    def _name(self) -> str:
        return short_name(self._learner.library.folder.name)

    def _make(self, export: Export) -> None:
        try:
            run, target = self._run(), self._folder / f"{self._name}-{export.kind}.zip"
            self._folder.mkdir(parents=True, exist_ok=True)
            report, evaluation = run / "report.html", run / "evaluation.json"
            if not report.is_file() or report.stat().st_mtime_ns < evaluation.stat().st_mtime_ns:
                self._relish(["report", str(run), "--quiet"])
            if export.kind == "run":
                _pack(target, _files_of(run, self._name))
            else:
                onnx = self._folder / f"{self._name}.onnx"
                if not _is_of(onnx, run):
                    self._relish(["export", str(run), str(onnx), "--overwrite", "--quiet"])
                agreed = OnnxClassifier(onnx, threads=1).about.certificate["agreed"]
                export.certificate = {"agree": agreed["correct"], "of": agreed["count"]}
                if export.kind == "web":
                    page = onnx.with_suffix(".html")
                    write_web_page(onnx, page)
                    _pack(target, {page.name: page})
                else:
                    papers = ("README.md", "report.html", "classes.json")
                    _pack(target, {onnx.name: onnx} | {one: run / one for one in papers if (run / one).is_file()})
            export.name, export.bytes = target.name, target.stat().st_size
            export.phase, export.url = "ready", f"api/download/{target.name}"
        except Exception as error:  # whatever it is, the page says it
            export.phase, export.reason = "failed", str(error).splitlines()[0][:300]
        self._changed()

    def _run(self) -> Path:
        """The run to take: the better one, or one of the probe for the images as they are now, in their classes."""
        if self._better.is_better and self._better.run is not None:
            return self._better.run
        library = self._learner.library
        images = [(name, shelf.stamp) for name, shelf in sorted(library.content.classes.items())]
        of = repr((images, sorted(read_splits(library.folder).items()), self._options))
        stamp = hashlib.sha256(of.encode()).hexdigest()[:12]
        run = library.folder / OWN / "runs" / f"probe-{stamp}"
        if not (run / "evaluation.json").is_file():
            number = 1
            while run.exists():
                number += 1
                run = run.with_name(f"{run.name.partition('+')[0]}+{number}")
            words = ["fit", str(library.folder), "--recipe", "probe", "--out", str(run), "--quiet", *self._options]
            self._relish(words)
        return run

    def _relish(self, words: Sequence[str]) -> None:
        """Run a command to its end.

        Raises:
            Failed: with its last words, where it failed.
        """
        lines, codes, done = [""], list[int](), threading.Event()

        def ended(code: int) -> None:
            codes.append(code)
            done.set()

        self._work = Work(words, lines.append, ended)
        done.wait()
        self._work = None
        if codes[0]:
            said = next((line for line in lines if line.startswith("error: ")), lines[-1])
            raise Failed(said.removeprefix("error: ") or f"relish {words[0]} ended with {codes[0]}")


def _is_of(onnx: Path, run: Path) -> bool:
    """Whether an exported file is of the model of a run."""
    try:
        return OnnxClassifier(onnx, threads=1).about.model_sha256 == sha256_of_file(run / "model.safetensors")
    except (RelishError, OSError):
        return False


def _files_of(run: Path, name: str) -> dict[str, Path]:
    """The files of a run folder by their names in a zip."""
    paths = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix != ".lock")
    below = [path.relative_to(run) for path in paths]
    return {f"{name}/{path.as_posix()}": run / path for path in below if path.parts[0] not in _NOT_TAKEN}


def _pack(target: Path, files: dict[str, Path]) -> None:
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, path in files.items():
            packed.write(path, name)
