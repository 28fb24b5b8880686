"""Every command, while the system fails under it: no traceback, one or two lines, and finished work stays whole.

A fault is one call of a few functions that everything goes through (opening, renaming and forcing a file to disk,
listing a folder, decoding, allocating, SQLite, the network) that raises what the system would. A first run counts the
calls; then the command is run again from the same state for each position, and that call fails. That takes hours, so
CI takes a sixth of the pairs of command and fault, with two calls of each; `make torture` takes them all.
"""

import builtins
import errno
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import numpy as np
import pytest
import safetensors
import torch
from PIL import ImageFile

import relish
from relish.core.errors import Stopped
from tests.commands import Ended, files_below
from tests.commands import relish as typed
from tests.conftest import TORTURE, draw_dataset

POSITIONS = 2
"""Calls of a kind that fail, one at a time, where not all are tried."""


def system_error(number: int) -> Callable[[Any], Exception]:
    """What the system says of a path."""
    return lambda path: OSError(number, os.strerror(number), str(path))


@dataclass
class Fault:
    """Lets the call at `position` of some functions fail; the others are counted and go through."""

    root: Path
    """Calls about paths elsewhere, such as Python's own modules, do not count."""
    error: Callable[[Any], Exception]
    position: int | None
    calls: int = 0

    def wrapped(self, function: Callable[..., Any], *, about_path: bool) -> Callable[..., Any]:
        """The function, with the fault in it."""

        def called(*args: Any, **more: Any) -> Any:
            subject = args[0] if args else None
            if not about_path or self._is_below(subject):
                self.calls += 1
                if self.calls == self.position:
                    raise self.error(subject)
            return function(*args, **more)

        return called

    def _is_below(self, subject: Any) -> bool:
        if not isinstance(subject, str | bytes | os.PathLike):
            return False
        return Path(os.path.abspath(os.fsdecode(subject))).is_relative_to(self.root)


Patched = tuple[Any, str, bool]
"""An object, the name of its function, and whether the first argument is a path."""


class FaultyConnection(sqlite3.Connection):
    """`sqlite3.Connection` is written in C; only a class of Python's can be patched."""

    def execute(self, *args: Any, **more: Any) -> sqlite3.Cursor:
        return super().execute(*args, **more)


KINDS: dict[str, tuple[Callable[[Any], Exception], tuple[Patched, ...]]] = {
    "open refused": (
        system_error(errno.EACCES),
        ((builtins, "open", True), (io, "open", True), (os, "open", True)),
    ),
    "disk full": (
        system_error(errno.ENOSPC),
        ((os, "fsync", False), (os, "replace", True), (os, "rename", True), (os, "mkdir", True)),
    ),
    "listing fails": (system_error(errno.EIO), ((os, "scandir", True), (os, "listdir", True))),
    "image cannot be decoded": (
        lambda _: OSError("broken data stream when reading image file"),
        ((ImageFile.ImageFile, "load", False),),
    ),
    "image takes too much memory": (lambda _: MemoryError(), ((ImageFile.ImageFile, "load", False),)),
    "array takes too much memory": (
        lambda _: np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(np.uint8)),
        ((np, "zeros", False), (np, "empty", False), (np, "full", False), (np, "concatenate", False)),
    ),
    "tensor takes too much memory": (
        lambda _: RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
        ),
        ((torch.nn.Conv2d, "forward", False), (torch.nn.Linear, "forward", False)),
    ),
    "database fails": (lambda _: sqlite3.OperationalError("disk I/O error"), ((FaultyConnection, "execute", False),)),
    "network fails": (lambda _: httpx.ConnectError("Connection refused"), ((httpx.Client, "send", False),)),
}


@contextmanager
def failing(kind: str, root: Path, position: int | None) -> Iterator[Fault]:
    """Within it, the calls of a kind are counted, and the one at `position` fails."""
    error, functions = KINDS[kind]
    fault = Fault(root, error, position)
    connect = sqlite3.connect
    with mock.patch.object(sqlite3, "connect", lambda *a, **k: connect(*a, **{"factory": FaultyConnection, **k})):
        patches = [
            mock.patch.object(owner, name, _method(fault, getattr(owner, name), about_path=about_path))
            for owner, name, about_path in functions
        ]
        for patch in patches:
            patch.start()
        try:
            yield fault
        finally:
            for patch in patches:
                patch.stop()


def _method(fault: Fault, function: Callable[..., Any], *, about_path: bool) -> Callable[..., Any]:
    wrapped = fault.wrapped(function, about_path=about_path)

    def called(*args: Any, **more: Any) -> Any:  # a function, so that it binds to an object as the patched one does
        return wrapped(*args, **more)

    return called


COMMANDS: dict[str, tuple[str, ...]] = {
    "fit": ("fit", "images", "--recipe", "book", "--weights", "tiny.safetensors", "--out", "new"),
    "fit auto": ("fit", "images", "--recipe", "auto", "--weights", "tiny.safetensors", "--out", "new"),
    "resume": ("fit", "--resume", "half"),
    "pretrain": ("pretrain", "images", "--source", "timm/test_resnet", "--out", "new"),
    "compare": ("compare", "images", "--recipes", "book,frozen", "--weights", "tiny.safetensors", "--runs", "study"),
    "sweep": ("sweep", "images", "--vary", "lr=1e-4,1e-3", "--weights", "tiny.safetensors", "--runs", "study"),
    "check": ("check", "images", "--html", "check.html", "--fix", "clean.csv"),
    "evaluate": ("evaluate", "run", "images"),
    "decide": ("decide", "run", "--threshold", "f1"),
    "predict": ("predict", "run", "images/test", "--out", "predictions.csv"),
    "predict json": ("predict", "run", "images/test", "--json"),
    "report": ("report", "run"),
    "card": ("card", "run"),
    "export": ("export", "run", "new.onnx", "--data", "images", "--limit", "4"),
    "predict exported": ("predict", "model.onnx", "images/test"),
    "show": ("show", "images", "--out", "pictures.png"),
    "models": ("models", "resnet1"),
    "convert": ("convert", "tiny.safetensors", "new.safetensors", "--source", "timm/test_resnet"),
    "serve": ("serve", "run"),
    "serve exported": ("serve", "model.onnx"),
    "sources": ("sources", "images", "--candidates", "tiny.safetensors", "--image-size", "32", "--runs", "study"),
    "teach": ("teach", "taught", "--weights", "tiny.safetensors"),
}
SMALL = ("--image-size", "32", "--batch-size", "8", "--epochs", "1")
TRAINING = ("fit", "fit auto", "pretrain", "compare", "sweep")
SERVING = ("serve", "serve exported", "teach")


@pytest.fixture(scope="module")
def bench(tmp_path_factory, tiny_source) -> Path:
    """Images, a finished run and its exported file, a run that was stopped, a cache."""
    bench = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bench)
        patch.setenv("RELISH_HOME", str(bench / "home"))
        draw_dataset(Path("images"), train=6, test=3)
        shutil.copy(tiny_source, "tiny.safetensors")
        numbers = {"image_size": 32, "batch_size": 8, "epochs": 1}
        relish.fit(
            "images", recipe="book", weights="tiny.safetensors", settings=numbers, out="run", seed=1, val_split=0.34
        )
        relish.export("run", "model.onnx", data="images", limit=4)
        _stopped_run(numbers)
    return bench


def _stopped_run(numbers: dict[str, Any]) -> None:
    """A run that was stopped at the end of its first epoch."""
    numbers = {**numbers, "epochs": 2}
    stopped = Stopped("stopped in epoch 1 of 2; the work so far is saved.")
    with (
        mock.patch("relish.training.train.CHECKPOINT_SECONDS", 0.0),
        mock.patch("relish.training.train._evaluate", side_effect=stopped),
        pytest.raises(Stopped),
    ):
        relish.fit("images", recipe="book", weights="tiny.safetensors", settings=numbers, out="half", seed=2)


@pytest.fixture
def place(bench, tmp_path, monkeypatch) -> Callable[[], Path]:
    """Makes a fresh copy of the bench the current folder."""
    made = iter(range(10**6))

    def fresh() -> Path:
        folder = tmp_path / f"place-{next(made)}"
        shutil.copytree(bench, folder)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("RELISH_HOME", str(folder / "home"))
        return folder

    return fresh


def run(command: str) -> Ended:
    """The command, with small numbers where it trains; a server is made ready, and asked for nothing."""
    ready = mock.patch("relish.server.server.run") if command in SERVING else nullcontext()
    with ready:
        return typed(*COMMANDS[command], *(SMALL if command in TRAINING else ()))


PAIRS = [
    (command, kind)
    for row, command in enumerate(COMMANDS)
    for column, kind in enumerate(KINDS)
    if TORTURE or ((row + column) % 6 == 0 and command not in SERVING)
]


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600 if TORTURE else 600)  # all calls of a pair that trains may take an hour
@pytest.mark.parametrize(("command", "kind"), PAIRS)
def test_a_fault_ends_in_words_and_finished_work_stays_whole(command: str, kind: str, place) -> None:
    """Whichever call it is that fails."""
    with failing(kind, place(), None) as counted:
        whole = run(command)
    assert whole.code == 0, whole.err
    for position in positions(counted.calls):
        folder = place()
        before = files_below(folder)
        with failing(kind, folder, position) as fault:
            ended = run(command)
        assert fault.calls >= position or not ended.code, ended  # a measurement is repeated while there is time
        assert_words(ended, f"{command}, {kind}, call {position} of {counted.calls}")
        assert_whole(before, files_below(folder), f"{command}, {kind}, call {position} of {counted.calls}")
        shutil.rmtree(folder)


def positions(calls: int) -> list[int]:
    """Which of so many calls fail: all, or some that include the first and the last."""
    if TORTURE or calls <= POSITIONS:
        return list(range(1, calls + 1))
    return sorted({round(place) for place in np.linspace(1, calls, POSITIONS)})


def assert_words(ended: Ended, case: str) -> None:
    """The command went through, or says in a few lines why not."""
    assert ended.code in (0, 1, 2), (case, ended)
    assert "Traceback" not in ended.out + ended.err, (case, ended)
    if ended.code:
        _, told, words = ended.err.rpartition("rror: ")
        if not told:  # a picture that could not be read has its row, and is counted
            _, told, words = ended.err.rpartition("arning: ")
        assert told, (case, ended)
        assert 1 <= len(words.strip().splitlines()) <= 5, (case, ended)


MAY_CHANGE = ("metrics.jsonl", "cache.sqlite3", "cache.sqlite3-journal", "plan.json", "time.json")
"""Records that a command adds to, and what is computed again where it is gone."""


def assert_whole(before: dict[str, bytes | None], after: dict[str, bytes | None], case: str) -> None:
    """What was finished is as it was or replaced by something whole, and nothing temporary is left behind."""
    for name, content in before.items():
        path = Path(name)
        if path.name in MAY_CHANGE or path.parts[0] == "half":
            continue
        assert name in after, (case, f"{name} is gone")
        if after[name] != content:
            assert path.parts[0] != "images", (case, name)
            assert path.suffix in (".json", ".html", ".md", ".safetensors"), (case, name)
            assert_readable(path, after[name] or b"", case)
    left = [name for name in after if name.endswith(".tmp") or ".tmp" in Path(name).name]
    assert not left, (case, left)
    for name in after.keys() - before.keys():
        if after[name] is not None and Path(name).suffix in (".json", ".html", ".safetensors"):
            assert_readable(Path(name), after[name] or b"", case)


def assert_readable(path: Path, content: bytes, case: str) -> None:
    """Whole, as far as its kind can tell."""
    if path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".html":
        assert content.rstrip().endswith(b"</html>"), (case, path)
    elif path.suffix == ".safetensors":
        safetensors.deserialize(content)
