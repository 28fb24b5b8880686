"""Every command ends in words: asked to stop, left without memory, or with a reader that is gone.

The slow ones start processes of their own, as a shell, a scheduler or the OOM killer meets them.
"""

import ctypes
import json
import os
import pty
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from torch import nn

from relish.core.run_folder import RunFolder
from tests.commands import Ended, done, files_below, refused, relish
from tests.conftest import draw, draw_dataset
from tests.processes import COMMAND, PAUSING, ended, started, wait_until

pytestmark = pytest.mark.usefixtures("hears_sighup")

BOOK = ("--recipe", "book", "--image-size", 32, "--batch-size", 4, "--epochs", 6, "--lr", "1e-3")
OF_A_RUN = [
    ("fit", "colours"), ("pretrain", "colours"), ("check", "colours"), ("compare", "colours"),
    ("sweep", "colours", "--vary", "lr=1e-5..1e-1"),
]  # fmt: skip
OF_A_MODEL = [
    ("evaluate", "run", "colours"), ("predict", "run", "colours"), ("predict", "run", "colours", "--out", "a.csv"),
    ("report", "run"), ("export", "run", "model.onnx"), ("serve", "run"), ("decide", "run"),
]  # fmt: skip


@pytest.fixture
def inside(tmp_path, monkeypatch) -> Path:
    """A folder with `colours`, as the current one."""
    draw_dataset(tmp_path / "colours", train=3, test=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def acting(act):
    """The stand-in of a function that a command goes through early."""

    def stand_in(*_: object, **__: object) -> None:
        act()
        raise AssertionError("it goes on")

    return stand_in


def where_data_is_looked_for(monkeypatch, act) -> None:
    for place in ("relish.tasks.prepare.find_dataset", "relish.tasks.check.find_dataset"):
        monkeypatch.setattr(place, acting(act))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
@pytest.mark.parametrize("words", OF_A_RUN, ids=lambda words: words[0])
def test_a_signal_before_a_run_is_one_word_and_its_own_exit_code(words, number, code, inside, monkeypatch):
    where_data_is_looked_for(monkeypatch, lambda: signal.raise_signal(number))
    before = files_below(inside)
    assert relish(*words) == Ended(code, "", "stopped.\n")
    assert files_below(inside) == before


def no_memory() -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 8 GB")


@pytest.mark.parametrize("words", OF_A_RUN, ids=lambda words: words[0])
def test_a_lack_of_memory_is_one_line_wherever_it_comes(words, inside, monkeypatch):
    where_data_is_looked_for(monkeypatch, no_memory)
    assert "too little memory" in refused(*words, code=1)


# ---- a model that is made already -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory, home_of_module):
    """A folder with `colours` and a finished `run` on them."""
    folder = tmp_path_factory.mktemp("made")
    draw_dataset(folder / "colours", train=5, test=4)
    words = ("--recipe", "book", "--image-size", 32, "--batch-size", 4, "--epochs", 1, "--val-split", 0.4)
    done("fit", folder / "colours", "--weights", tiny_source, *words, "--out", folder / "run")
    return folder


@pytest.fixture
def beside(made, monkeypatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize("words", OF_A_MODEL, ids=lambda words: words[0])
def test_a_model_that_memory_lacks_for_is_one_line(words, beside, monkeypatch):
    monkeypatch.setattr("torch.nn.Conv2d.forward", acting(no_memory))
    monkeypatch.setattr("relish.core.run_folder.RunFolder.read_evaluation", acting(no_memory))
    assert "too little memory" in refused(*words, code=1)


def test_an_evaluation_is_done_in_smaller_parts(beside, monkeypatch):
    def figures():
        """To six digits: how a batch is divided may change the last ones, by the processor."""
        return json.loads(
            done("evaluate", "run", "colours", "--json").out, parse_float=lambda text: f"{float(text):.6g}"
        )

    whole = figures()
    real, sizes = nn.Conv2d.forward, []

    def forward(layer, images):
        sizes.append(len(images))
        if len(images) > 3:
            no_memory()
        return real(layer, images)

    monkeypatch.setattr("torch.nn.Conv2d.forward", forward)
    assert figures() == whole
    assert (sizes[0], min(sizes)) == (8, 2)


def test_heat_maps_that_memory_lacks_for_are_left_out_of_the_report(beside, monkeypatch, tmp_path):
    pytest.importorskip("pytorch_grad_cam")
    monkeypatch.setattr("relish.tasks.report_examples.heatmaps", acting(no_memory))
    ended = done("report", "run", "--out", tmp_path / "report.html")
    assert "Heat maps: there was too little memory for them." in ended.err


# ---- processes of their own -----------------------------------------------------------------------------------------


def typed(words, home: Path, before: Callable[[], object] = list, code: str = COMMAND):
    """The command line in a group of processes of its own."""
    return started(code, *words, before=before, RELISH_HOME=home)


def paused(words, home: Path, run: Path, before: Callable[[], object] = list):
    """The same of a command whose run is under way, and waits at its third event."""
    process = typed(words, home, before, PAUSING + COMMAND)
    wait_until(lambda: process.poll() is not None or events(run / "metrics.jsonl") >= 3)
    assert process.poll() is None, process.communicate()
    return process


def events(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.is_file() else 0


def is_gone(reader: int) -> bool:
    return not Path(f"/proc/{reader}/exe").exists()


def readers_of(process) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.fixture
def data(tmp_path):
    return draw_dataset(tmp_path / "pictures", train=20, test=4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the readers are found in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_saves_and_says_how_to_go_on(number, code, data, tiny_source, tmp_path):
    home, run = tmp_path / "home", tmp_path / "run"
    process = paused(("fit", data, "--weights", tiny_source, *BOOK, "--workers", 2, "--out", run), home, run)
    readers = readers_of(process)
    assert len(readers) == 2
    os.killpg(process.pid, number)
    os.killpg(process.pid, number)  # as `timeout` does
    found, _, words = ended(process)
    assert found == code, words
    assert f"Resume with: relish fit --resume {run}" in words
    wait_until(lambda: all(map(is_gone, readers)))
    found, _, words = ended(typed(("fit", "--resume", run), home))
    assert (found, RunFolder(run).finished) == (0, True)
    assert "resuming from epoch" in words


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the readers are found in /proc")
def test_a_reader_that_the_system_kills_is_one_line(data, tiny_source, tmp_path):
    home, run = tmp_path / "home", tmp_path / "run"
    process = paused(("fit", data, "--weights", tiny_source, *BOOK, "--workers", 2, "--out", run), home, run)
    os.kill(readers_of(process)[0], signal.SIGKILL)
    found, _, words = ended(process)
    assert found == 1, words
    assert "was ended by SIGKILL" in words
    assert f"Resume with: relish fit --resume {run}" in words
    assert "resuming from epoch" in ended(typed(("fit", "--resume", run), home))[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="written for Linux's terminals")
def test_a_terminal_that_is_closed_leaves_its_run_saved(data, tiny_source, tmp_path):
    home, run = tmp_path / "home", tmp_path / "run"
    terminal, theirs = pty.openpty()
    words = ("fit", data, "--weights", tiny_source, *BOOK, "--workers", 2, "--out", run)
    over = threading.Event()
    reader = threading.Thread(target=_drain, args=(terminal, over))
    reader.start()
    try:
        process = paused(words, home, run, partial(_log_in, os.ttyname(theirs)))
    finally:
        over.set()
        reader.join()
        os.close(theirs)
        os.close(terminal)  # the system sends SIGHUP
    found, _, _ = ended(process)
    assert found == 129
    assert "resuming from epoch" in ended(typed(("fit", "--resume", run), home))[2]


def _log_in(terminal: str) -> None:
    """Make the terminal of this name this process's own."""
    os.login_tty(os.open(terminal, os.O_RDWR))


def _drain(terminal: int, over: threading.Event) -> None:
    """Read what comes, so that nobody waits for a terminal that nobody reads."""
    while not over.is_set():
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 4096)


SMALL_SHM = """
mount --make-rprivate / && mount --bind /dev/shm /mnt && mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 1
for folder in /mnt/pytest-of-*; do  # where the tests' own folders may lie
  [ ! -d "$folder" ] || { mkdir "/dev/shm/${folder##*/}" && mount --bind "$folder" "/dev/shm/${folder##*/}"; } || exit 1
done
"""
_OWN_MOUNTS = 0x20000


def with_little_shared_memory() -> None:
    """Give this process, and those it starts, a /dev/shm of 64 KB."""
    assert ctypes.CDLL(None).unshare(_OWN_MOUNTS) == 0
    subprocess.run(["bash", "-c", SMALL_SHM], check=True)
    assert shutil.disk_usage("/dev/shm").total == 65536  # noqa: S108


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm")
@pytest.mark.parametrize("command", ["fit", "check", "evaluate"])
def test_shared_memory_as_small_as_a_containers_is_enough(command, made, data, tiny_source, tmp_path):
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a smaller /dev/shm takes the right to mount one")
    words = {
        "fit": ("fit", data, "--weights", tiny_source, *BOOK, "--out", tmp_path / "run"),
        "check": ("check", data, "--weights", tiny_source),
        "evaluate": ("evaluate", made / "run", data),
    }[command]
    found, _, said = ended(typed((*words, "--workers", 2), tmp_path / "home", with_little_shared_memory))
    assert found == 0, said


def limited_to(gibibytes: float) -> Callable[[], None]:
    most = int(gibibytes * 2**30)
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to this limit")
def test_what_ulimit_leaves_too_little_memory_is_one_line_whenever_it_lacks(tmp_path, tiny_source):
    for name in ("blue", "red"):
        for number in range(4):
            draw(tmp_path / "large" / name / f"{number}.png", (60, 60, 190), number)
    run, home = tmp_path / "run", tmp_path / "home"
    words = ("fit", tmp_path / "large", "--weights", tiny_source, "--recipe", "book", "--image-size", 2048)
    words = (*words, "--batch-size", 8, "--out", run)
    for gibibytes in (1, 4.8):  # torch's libraries alone take more than the first
        fresh = [sys.executable, "-c", COMMAND, *map(str, words)]  # a forked one has these libraries already
        environment = {**os.environ, "RELISH_HOME": str(home), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            fresh,
            env=environment,
            preexec_fn=limited_to(gibibytes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        found, _, said = ended(process)
        assert found == 1, said
        assert "too little memory" in said
        assert len(said.partition("error: ")[2].splitlines()) <= 2
    assert f"relish fit --resume {run}" in said
