"""Processes that compute on items, such as reading images: one set of them for all that a job reads.

Each has a connection of its own, which ends with it. Those of `concurrent.futures` share one: where a process is killed
while it writes, all wait for the rest of its answer for ever, at the end of this process too.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from relish.core.errors import Failed, RelishError, WorkerFailed
from relish.core.runtime import STOPPING

SILENT_SECONDS = 60.0
"""A worker from which nothing came for so long is given up: no image takes as long to read."""
CHUNK = 8
"""Items that a worker is given at a time."""
_AHEAD = 4
"""Chunks for each worker that are computed before they are asked for."""

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Any], Any]
Tasks = SimpleQueue[tuple[Future[list[Any]], bytes, Sequence[Any]] | None]
"""Where the answer goes, the pickled work, its items; None ends a thread."""


class Workers:
    """Processes that start when they are first needed, and end with this object or the main process.

    They need no shared memory, of which containers have little, and do not hear SIGINT, SIGTERM and SIGHUP, which often
    go to a whole group of processes.
    """

    def __init__(self, count: int = 0) -> None:
        """
        Args:
            count: of processes; with 0 this process computes itself.
        """
        self.count = count
        self._team: _Team | None = None

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`work` of each item, in order, some of them ahead.

        Args:
            work: what cannot be pickled, such as a lambda, is inherited by new processes where the system has fork.

        Raises:
            WorkerFailed: a process was killed, gives no sign of life, or cannot be started; or what `work` raises.
        """
        if not self.count:
            yield from map(work, items)
            return
        team, message = self._team_for(work)
        remaining, waiting = iter(items), deque[Future[list[R]]]()
        try:
            while chunk := list(islice(remaining, CHUNK)):
                waiting.append(Future())
                team.tasks.put((waiting[-1], message, chunk))
                if len(waiting) >= _AHEAD * self.count:
                    yield from team.answer(waiting.popleft())
            while waiting:
                yield from team.answer(waiting.popleft())
        except WorkerFailed:
            self._team = None  # the next job has new ones
            raise
        finally:
            for future in waiting:
                future.cancel()

    def _team_for(self, work: Work) -> "tuple[_Team, bytes]":
        """Processes that are all alive, and the pickled work, empty where they have inherited it."""
        try:
            message, inherited = pickle.dumps(work, pickle.HIGHEST_PROTOCOL), None
        except (pickle.PicklingError, AttributeError, TypeError):
            message, inherited = b"", work
        for worker in self._team.workers if self._team else ():
            if not worker.process.is_alive():  # killed while it had nothing to do
                self._team = None
                raise worker.ended()
        if self._team is None or inherited:
            self._team = None  # the former ones end first, but for those of a `map` that is under way
            self._team = _Team(self.count, inherited)
        return self._team, message


class _Team:
    """So many processes, which take their tasks from one queue."""

    def __init__(self, count: int, inherited: Work | None) -> None:
        self.workers: list[_Worker] = []
        self.tasks = Tasks()
        # The priority: before multiprocessing waits for them.
        Finalize(self, _end, args=(self.workers, self.tasks), exitpriority=10)
        try:
            for _ in range(count):
                self.workers.append(_Worker(self.tasks, inherited))
        except OSError as error:
            raise WorkerFailed(
                f"no process can be started that reads pictures ({error.strerror or error}).",
                hint="Without any: --workers 0.",
            ) from error

    def answer(self, future: Future[list[R]]) -> list[R]:
        """What was asked for, as long as answers come; Ctrl-Z, which stops all processes, ends one wait at most."""
        answers = -1
        while not wait([future], SILENT_SECONDS).done:
            before, answers = answers, sum(worker.answers for worker in self.workers)
            for worker in self.workers if answers == before else ():
                if worker.busy:
                    worker.process.kill()
                    raise WorkerFailed(
                        f"process {worker.process.pid}, which reads pictures, gave no sign of life for "
                        f"{SILENT_SECONDS:g} s.",
                        hint="Does their disk answer?",
                    )
        return future.result()


class _Worker:
    """A process, this one's end of the connection, and a thread that hands it tasks."""

    def __init__(self, tasks: Tasks, inherited: Work | None) -> None:
        forks = sys.platform == "linux"  # elsewhere libraries of the system do not survive it
        context: Any = multiprocessing.get_context("fork" if forks else "spawn")
        self.busy, self.answers = False, 0
        self._told: bytes | None = None
        self._connection, theirs = multiprocessing.Pipe()
        self.process = context.Process(target=_work, args=(theirs, os.getpid(), inherited), daemon=True)
        with theirs, _signals_blocked(), warnings.catch_warnings():
            # Nothing that another thread may hold a lock of is used in the process.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()
        # Not one of an executor's, which this process would wait for when it ends.
        threading.Thread(target=self._serve, args=(tasks,), daemon=True).start()

    def _serve(self, tasks: Tasks) -> None:
        while task := tasks.get():
            future, message, chunk = task
            if future.set_running_or_notify_cancel():
                self.busy = True
                try:
                    future.set_result(self._ask(message, chunk))
                except BaseException as error:
                    future.set_exception(error)
                self.busy = False

    def _ask(self, message: bytes, chunk: Sequence[Any]) -> list[Any]:
        values: list[Any] = []
        error: Exception | None = None
        try:
            self._connection.send((None if message == self._told else message, chunk))
            self._told = message
            while error is None and len(values) < len(chunk):
                value, error = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - between our own processes
                values.append(value)
                self.answers += 1
        except (EOFError, OSError):
            error = self.ended()
        if error is not None:
            self._told = None
            raise error
        return values

    def ended(self) -> WorkerFailed:
        """The error for a process that is no longer there."""
        self.process.join(1.0)
        code = self.process.exitcode or 0
        by = f" by {signal.Signals(-code).name}" if code < 0 else ""
        return WorkerFailed(
            f"process {self.process.pid}, which read pictures, was ended{by}.",
            hint="Where the system ended it for lack of memory, fewer --workers need less.",
        )


def _end(workers: list[_Worker], tasks: Tasks) -> None:
    for worker in workers:
        worker.process.kill()  # it only reads
    for worker in workers:
        tasks.put(None)
        worker.process.join(1.0)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Within `with`, a process that is started inherits that it does not hear `STOPPING`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _work(connection: Connection, main: int, inherited: Work | None) -> None:
    """What a worker process does: answer for each item of each message, until the main process ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if os.name == "posix":
        threading.Thread(target=_end_with, args=(main,), daemon=True).start()
    torch.set_num_threads(1)  # the threads of OpenMP do not survive a fork
    work: Any = None
    with suppress(EOFError, OSError):  # the main process is gone
        while True:
            message, chunk = connection.recv()
            for item in chunk:
                error = None
                try:
                    if message is not None:
                        work = pickle.loads(message) if message else inherited  # noqa: S301 - from the main process
                        message = None
                    answer = pickle.dumps((work(item), None), pickle.HIGHEST_PROTOCOL)
                except Exception as raised:
                    error = _portable(raised)
                    answer = pickle.dumps((None, error))
                connection.send_bytes(answer)
                if error is not None:
                    break


def _end_with(main: int) -> None:
    while os.getppid() == main:
        time.sleep(1.0)
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, or where it cannot be pickled its words."""
    if not isinstance(error, RelishError | MemoryError):
        error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return Failed(f"{type(error).__name__}: {error}")
    return error
