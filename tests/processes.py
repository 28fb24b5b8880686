"""Python code in a process of its own, to be killed, signalled or starved, without the seconds that loading takes.

On Linux a server is started once, loads what commands load, and is forked for each process: it has trained nothing,
since a process that has cannot be forked to train. Elsewhere libraries of the system do not survive a fork, and each
process is a fresh one. `tests/cli/test_main.py` types commands into fresh ones everywhere.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

COMMAND = "from relish.cli.main import main; main()"
"""The command line, as code."""


LOADED = [
    *("timm", "scipy.stats", "sklearn.cluster", "sklearn.metrics", "sklearn.neighbors"),
    *(f"relish.{name}" for name in ("cli.main", "tasks.fit", "tasks.evaluate", "tasks.check", "tasks.predict")),
]
"""With all that they import, and what they import as they go."""


PAUSING = """
import os, signal
from relish.core.run_folder import RunFolder
count, record = 0, RunFolder.record

def record_and_wait(folder, **event):
    global count
    record(folder, **event)
    count += 1
    if count == 3:
        os.kill(os.getpid(), signal.SIGSTOP)

RunFolder.record = record_and_wait
"""
"""Code before which a command's own goes: it stops at the third event of its run, and waits there for `ended`."""


def ended(process: Any, seconds: float = 300.0) -> tuple[int, str, str]:
    """The exit code and the output of a process, which goes on where it waits; it has to end in words."""

    def over() -> bool:
        process.send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            told.extend(process.communicate(timeout=0.05))
        return bool(told)

    told: list[str] = []
    wait_until(over, seconds)
    assert "Traceback" not in told[1], told[1]
    return process.returncode, told[0] or "", told[1]


def wait_until(holds: Callable[[], object], seconds: float = 300.0) -> None:
    """Ask again and again until it holds; the limit is there for what will never hold."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@contextmanager
def held_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else is given meanwhile, and that a server which reuses addresses may take."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


class Forked:
    """A forked process, as far as `subprocess.Popen` describes one; a group of its own, its output kept in files."""

    def __init__(self, code: str, arguments: list[str], environment: Mapping[str, str], before: Callable[[], object]):
        self._folder = tempfile.TemporaryDirectory()
        self._output = [Path(self._folder.name) / name for name in ("out", "err")]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        everything = {**os.environ, **environment}
        given = (code, arguments, everything, before, signal.getsignal(signal.SIGHUP), self._output)
        self._process = context.Process(target=_run, args=given)
        self._process.start()
        self.pid: int = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """As of `Popen`."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As of `Popen`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As of `Popen`: of a process that has ended, nothing happens."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As of `Popen`."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """As of `Popen`."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("forked", timeout or 0)
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._output)
        self._folder.cleanup()
        return out, err


def started(code: str, *arguments: object, before: Callable[[], object] = list, **environment: object):
    """Start code with these arguments, in one thread.

    Args:
        before: called in the process before the code; one that can be pickled.
        environment: added to this process's.

    Returns:
        A `Forked` or a `subprocess.Popen`, which are used alike.
    """
    words = [str(one) for one in arguments]
    added = {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in environment.items()}
    if sys.platform == "linux":
        return Forked(code, words, added, before)
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **added},
        preexec_fn=before, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _run(
    code: str, arguments: list[str], environment: Mapping[str, str], before: Callable[[], object],
    hangup: signal.Handlers, output: Sequence[Path],
) -> None:  # fmt: skip
    os.setsid()
    for number, path in enumerate(output, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    signal.signal(signal.SIGHUP, hangup)
    before()
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False) for number in (1, 2)
    )
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    torch.set_num_threads(1)  # the threads of OpenMP do not survive a fork
    try:
        exec(code, {"__name__": "__main__"})  # noqa: S102 - a test's own
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:  # as Python itself ends, where nobody reads what is printed
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
