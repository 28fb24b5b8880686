"""Python code in a process of its own, to be killed, signalled or starved, without the seconds that loading takes.

On Linux the process is forked, as relish forks its readers, and has the modules that this one has loaded; elsewhere
libraries of the system do not survive that, and it is a fresh one. `tests/cli/test_main.py` types commands into fresh
ones everywhere.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TextIO

import torch
from accelerate.state import AcceleratorState

COMMAND = "from relish.cli.main import main; main()"
"""The command line, as code."""


class Forked:
    """A forked process, as far as `subprocess.Popen` describes one; a group of its own, its output kept in files."""

    def __init__(self, code: str, arguments: list[str], environment: Mapping[str, str], before: Callable[[], object]):
        self._output = [tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") for _ in "12"]  # noqa: SIM115
        given = (code, arguments, environment, before, self._output)
        self._process = multiprocessing.get_context("fork").Process(target=_run, args=given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads of pytest's hold no lock that it needs
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
        """As of `Popen`."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """As of `Popen`."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """As of `Popen`."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("forked", timeout or 0)
        texts = []
        for stream in self._output:
            with stream:
                stream.seek(0)
                texts.append(stream.read())
        return texts[0], texts[1]


def started(code: str, *arguments: object, before: Callable[[], object] = lambda: None, **environment: object):
    """Start code with these arguments, in one thread.

    Args:
        before: called in the process before the code.
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
    code: str, arguments: list[str], environment: Mapping[str, str], before: Callable[[], object], output: list[TextIO]
) -> None:
    os.setsid()
    for number, stream in enumerate(output, 1):
        os.dup2(stream.fileno(), number)
    before()
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False) for number in (1, 2)
    )
    os.environ.update(environment)
    warnings.resetwarnings()  # they fail a test, and no user's process
    sys.argv = ["-c", *arguments]
    torch.set_num_threads(1)  # the threads of OpenMP do not survive a fork
    AcceleratorState._reset_state(reset_partial_state=True)  # it may be one of several processes
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
