"""A run folder: everything one `fit` made, under fixed names.

    request.json         what was asked for: data, source model, seed, and the run's identity
    recipe.yaml          every setting of the training
    classes.json         class names, in the order of the outputs
    sources.json         with --source auto, which source models were tried, which was taken and why
    source.safetensors   the module that was handed in, where one was, as it was then
    dataset.json         every image's path, class, split and SHA-256
    check.json           findings of a first look at the images
    precision.json       with precision=auto, which one was chosen and why
    engine.json          for many images on a processor, PyTorch or ONNX Runtime, by backbone and size
    plan.json            what the ladder does within its time
    stopwatch.json       how long a climb of the ladder has taken, over all of its starts
    environment.json     processor, threads, versions, command
    metrics.jsonl        one line for each event, only ever appended to
    stages/              of a climb, a folder for each model that was fine-tuned
    checkpoints/         where an interrupted run resumes
    curves.svg           the book's three curves
    model.safetensors    the target model, with class names and preprocessing in its header
    held_out.npz         its logits on images held out in training, where there were some
    predictions.npz      its predictions on the final split
    tracking/            with --track, what the tracker keeps
    report.html          one page about the run, by `relish report`
    README.md            the model card: what the model is and how good it is
    evaluation.json      the final number, computed from the saved model

The last of them is written last, so a run that has it is finished.
"""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from relish.core.errors import RunError, WriteFailed, nearest
from relish.core.io import append_line, atomic_folder, holder_of, sign_lock, write_json, write_yaml


class RunFolder:
    """The paths of one run. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.request = path / "request.json"
        self.recipe = path / "recipe.yaml"
        self.classes = path / "classes.json"
        self.dataset = path / "dataset.json"
        self.check = path / "check.json"
        self.precision = path / "precision.json"
        self.engine = path / "engine.json"
        self.plan = path / "plan.json"
        self.stopwatch = path / "stopwatch.json"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.stages = path / "stages"
        self.source = path / "source.safetensors"
        self.sources = path / "sources.json"
        self.checkpoint = path / "checkpoints" / "latest.pt"
        self.curves = path / "curves.svg"
        self.model = path / "model.safetensors"
        self.held_out = path / "held_out.npz"
        self.predictions = path / "predictions.npz"
        self.card = path / "README.md"
        self.evaluation = path / "evaluation.json"

    @classmethod
    def create(cls, path: Path, request: dict[str, Any], recipe: dict[str, Any]) -> "RunFolder":
        """A new run folder with its request and recipe, or none at all.

        Raises:
            RunError: something stands at `path` already; it is never overwritten.
            WriteFailed: it cannot be written.
        """
        cls.refuse_existing(path)
        with atomic_folder(path) as made:
            write_json(made / "request.json", request)
            write_yaml(made / "recipe.yaml", recipe)
        return cls(path)

    @classmethod
    def refuse_existing(cls, path: Path) -> None:
        """Check that a new run can be made at `path`.

        Raises:
            RunError: something stands there already.
        """
        if path.exists():
            resume = f", or resume it: {cls(path).resume_command}" if cls(path).request.is_file() else "."
            hint = f"Name another folder with --out{resume}"
            raise RunError(f"{path} exists already, and a run is never overwritten.", hint=hint)

    @classmethod
    def create_next(cls, parent: Path, stem: str, request: dict[str, Any], recipe: dict[str, Any]) -> "RunFolder":
        """A new run folder `parent/stem-N`, with the smallest N from 1 that is free."""
        number = 1
        while True:
            path = parent / f"{stem}-{number}"
            if not path.exists():
                try:
                    return cls.create(path, request, recipe)
                except WriteFailed:
                    if not path.exists():  # otherwise another process took this number just now
                        raise
            number += 1

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder.

        Raises:
            RunError: there is no such folder, or it is not a run folder.
        """
        folder = cls(path)
        if not path.exists():
            raise RunError(f"{path}: there is no such run.", hint=_runs_beside(path))
        if not folder.request.is_file() or not folder.recipe.is_file():
            raise RunError(
                f"{path} is not a run folder: it has no request.json and recipe.yaml.", hint=_runs_beside(path / "any")
            )
        return folder

    @property
    def resume_command(self) -> str:
        """The command that resumes this run, or the call where it was begun with what no command can type."""
        given = []
        with suppress(RunError):
            given = given_in_python(self.read_request().get("python", {}))
        if given:
            return ", ".join([f'relish.fit(resume="{self.path}"', *(f"{name}=…" for name in given)]) + ")"
        return f"relish fit --resume {shlex.quote(str(self.path))}"

    @property
    def finished(self) -> bool:
        """Whether the run has ended; `evaluation.json` is its last file."""
        return self.evaluation.is_file()

    @property
    def diverged(self) -> bool:
        """Whether the run ended because its loss was no longer finite."""
        return any(event["event"] == "diverged" for event in self.records())

    def read_request(self) -> dict[str, Any]:
        """The fields of the request."""
        return read_mapping(self.request)

    def read_recipe(self) -> dict[str, Any]:
        """The fields of the recipe."""
        return read_mapping(self.recipe, yaml.safe_load)

    def read_dataset(self) -> dict[str, Any]:
        """Every image's path, class, split and SHA-256."""
        return read_mapping(self.dataset)

    def read_evaluation(self) -> dict[str, Any]:
        """The final figures.

        Raises:
            RunError: the run is not finished.
        """
        if not self.finished and self.diverged:
            raise RunError(f"{self.path} has no model: its training diverged.", hint="Fit again with a lower --lr.")
        if not self.finished:
            raise RunError(f"{self.path} is not finished.", hint=f"Resume it: {self.resume_command}")
        return read_mapping(self.evaluation)

    def read_sources(self) -> dict[str, Any] | None:
        """The search for a source model; None where there was none."""
        return read_mapping(self.sources) if self.sources.is_file() else None

    def read_check(self) -> dict[str, Any] | None:
        """The `findings` of the check before training and the count of `pictures`; None where there was none."""
        return read_mapping(self.check) if self.check.is_file() else None

    def record(self, **event: Any) -> None:
        """Append one event to `metrics.jsonl`."""
        append_line(self.metrics, json.dumps(event, allow_nan=False))

    def stage(self, name: str) -> "RunFolder":
        """The folder of a training within the run, made where there is none."""
        stage = RunFolder(self.stages / name)
        stage.path.mkdir(parents=True, exist_ok=True)
        return stage

    def records(self) -> list[dict[str, Any]]:
        """The events that hold: without those that a resumed or newly planned run repeats, and without a cut line."""
        events: list[dict[str, Any]] = []
        if not self.metrics.is_file():
            return events
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut by a kill; the resumed run recorded the event again
            if event["event"] == "resumed":
                place = (event["epoch"], event["batch"])
                events = [e for e in events if (e["epoch"], e["batch"]) <= place]
            elif event["event"] == "planned":
                events = [e for e in events if not withdrawn_by(event["plan"], e)]
            events.append(event)
        return events

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process, however that ends.

        Raises:
            RunError: another process holds it.
        """
        file = self.path / ".lock"
        lock = FileLock(file, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.path}: {holder_of(file)} is working on this run.", hint="Wait for it.") from None
        try:
            sign_lock(file)
            yield
        finally:
            lock.release()


def withdrawn_by(plan: str, event: Mapping[str, Any]) -> bool:
    """Whether an event is a rung's that no longer holds once the plan of this stage, or of one before it, is new."""
    return event["event"] == "rung" and (plan == "probe" or event["rung"] != "probe")


def given_in_python(python: Mapping[str, Any]) -> list[str]:
    """The arguments of `fit`, of `python` in a request, that relish can neither build nor keep in a file."""
    own = str(python.get("source", "")).startswith("own/")
    return [name for name in ("source", "transform", "loss") if name in python and (name != "source" or own)]


def read_mapping(path: Path, read: Callable[[str], Any] = json.loads, *, hint: str = "") -> dict[str, Any]:
    """The mapping in a file of a run, by default of JSON.

    Raises:
        RunError: the file cannot be read, or holds something else; `hint` is the error's.
    """
    try:
        content = read(path.read_text(encoding="utf-8"))
    except Exception as error:  # of deep nesting, and whatever PyYAML's constructors meet in a value of another kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"{path} cannot be read ({reason}).", hint=hint) from error
    if not isinstance(content, dict):
        raise RunError(f"{path} does not hold what a run folder's file should.", hint=hint)
    return content


def _runs_beside(path: Path, most: int = 8) -> str:
    """A hint that names the runs beside a path that is none: the nearest by name, or the first few."""
    found = sorted(request.parent.name for request in path.parent.glob("*/request.json"))
    if not found:
        return "Give the folder that relish fit made, such as runs/photos-auto-1."
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return nearest(path.name, found) or f"Runs in {path.parent}: {', '.join(found[:most])}{more}."
