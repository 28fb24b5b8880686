"""What every test stands on: a home of its own, small pictures, a tiny source model, no network.

Pictures are noise around a colour per class: a tiny network learns them in a few steps.
"""

import gc
import json
import os
import random
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from relish.core.errors import DataError
from relish.core.progress import Progress
from relish.data.dataset import Dataset

SHARED = Path(os.environ.get("RELISH_SHARED", Path(__file__).resolve().parents[2] / "shared"))
"""Real pictures and weights, where there are any."""
TORTURE = "RELISH_TORTURE" in os.environ
"""Whether everything is tried, by `make torture`, and not only what CI has the time for."""

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - only its user can open what is made
"""A folder in memory, on Linux, where folders cost least."""
ROOM = 6 * 2**30
"""Bytes that have to be free there: about three times what the tests ever hold at once."""


def pytest_configure() -> None:
    """Folders of tests lie in memory where there is room: a run forces some forty files to the disk, one by one."""
    if IN_MEMORY is not None and shutil.disk_usage(IN_MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", IN_MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What only a GPU can show is skipped where there is none."""
    for item in () if torch.cuda.is_available() else items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_unconfigure() -> None:
    """Modules written in C++ say so where they are not let go in the end."""
    gc.unfreeze()


# A slow machine is no failure, and neither is chance: the same examples each time, new ones under RELISH_TORTURE.
settings.register_profile(
    "relish", deadline=None, derandomize=not TORTURE, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("relish")


def imports_stay() -> None:
    """What was imported is no longer looked through for garbage, which each run does in the end: it would take as long
    as the rest of a small one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _imports_stay() -> None:
    imports_stay()


def seed_all() -> None:
    """Put every global generator where it always is, whatever was drawn before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _module_begins_alike() -> None:
    seed_all()


@pytest.fixture(autouse=True)
def _test_begins_alike() -> None:
    """Also where a test draws without a seed, and whichever tests ran before."""
    seed_all()


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    """No test sees what another one, or the user, has cached."""
    monkeypatch.setenv("RELISH_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def home_of_module(tmp_path_factory) -> Iterator[None]:
    """The same for what is made once for the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def _on_the_processor(request, monkeypatch):
    """Beside a GPU too: expectations that hold bit for bit are a processor's. Tests marked `cuda` may use it."""
    if not request.node.get_closest_marker("cuda"):
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def hears_sighup() -> Iterator[None]:
    """Also under nohup, which has it ignored."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.fixture
def shared() -> Path:
    """The folder of real data, or a skip that says so."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real pictures in {SHARED} (RELISH_SHARED)")
    return SHARED


def unpacked_case(shared: Path, name: str, folder: Path) -> Path:
    """One of the small inputs in `cases/`, unpacked into a folder; or a skip that says so."""
    archive = shared / "cases" / f"{name}.tar.gz"
    if not archive.is_file():
        pytest.skip(f"needs {archive}")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder


class Heard(Progress):
    """Keeps the lines and the warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, line: str = "") -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.warnings.append(line)


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 32)) -> Path:
    """A noisy picture around a colour; PNG, so that its pixels are what was drawn."""
    noise = np.random.default_rng(seed).normal(0, 30, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


def touch(root: Path, *names: str) -> None:
    """Empty files at these paths: a dataset is indexed without opening any."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def labelled(dataset: Dataset, split: str = "all") -> dict[str, str]:
    """The pictures of a split, each with the name of its class."""
    found = dataset.splits[split]
    return {dataset.label(p): dataset.classes[i] for p, i in zip(found.paths, found.labels, strict=True)}


def refusal_of(call: Callable[..., object], *given: object, **named: object) -> str:
    """The words of the `DataError` in which a call ends."""
    with pytest.raises(DataError) as caught:
        call(*given, **named)
    return str(caught.value)


def same_tensors(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two state dicts have the same names and equal tensors."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


COLOURS = {"blue": (60, 60, 190), "green": (60, 180, 60), "red": (190, 60, 60)}


SQUARE = (36, 36)
"""Width and height of pictures that the ladder does not compare ways of framing on, which takes most of its time where
there are so few of them."""


def draw_dataset(
    root: Path,
    train: int = 10,
    test: int = 6,
    classes: tuple[str, ...] = ("blue", "red"),
    size: tuple[int, int] = (40, 32),
) -> Path:
    """`train/` and `test/` of class folders, so many pictures a class."""
    for part, count in (("train", train), ("test", test)):
        for place, name in enumerate(classes):
            for number in range(count):
                seed = number + 1000 * place + (500_000 if part == "test" else 0)
                draw(root / part / name / f"{number:03}.png", COLOURS[name], seed, size)
    return root


@pytest.fixture
def colours(tmp_path) -> Path:
    """A dataset of two classes: 20 training and 12 test pictures."""
    return draw_dataset(tmp_path / "colours")


@pytest.fixture
def squares(tmp_path) -> Path:
    """The same of square pictures."""
    return draw_dataset(tmp_path / "squares", size=SQUARE)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory) -> Path:
    """A source model file, built by its header alone: timm's `test_resnet` with random weights and three classes."""
    from relish.models.saved_model import ModelDescription, save_model
    from relish.models.source import load_source

    source = load_source("timm/test_resnet", "none", seed=3)
    description = ModelDescription(
        library="timm", architecture="test_resnet", num_classes=3, labels=("red", "apple", "pear")
    )
    torch.manual_seed(3)
    source.network.reset_classifier(3)  # type: ignore[operator]
    path = tmp_path_factory.mktemp("source") / "tiny.safetensors"
    save_model(path, source.network, description, {})
    imports_stay()  # timm's networks are some hundred modules
    return path


SMALL = {"image_size": 32, "batch_size": 8, "epochs": 2}
"""Settings for runs that only have to run."""


def read_json(path: Path):
    """What a JSON file holds."""
    return json.loads(path.read_text())
