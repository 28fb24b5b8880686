"""The context of a job: device, processes, workers, progress, and the run that it records events in.

`Context` is enough to compute on images. `RunContext` adds the run folder: each event that a training records there
also goes to the listeners, such as trackers and callbacks. `Workers` are one set of processes for all that a job reads.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.errors import Failed, RelishError, WorkerFailed
from relish.core.progress import SILENT, Muted, Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import STOPPING, accelerator_for

Listener = Callable[[Mapping[str, Any]], None]
"""Called with each event once it is recorded."""
T = TypeVar("T")
R = TypeVar("R")
_MOST_WORKERS = 8

# ---- worker processes -----------------------------------------------------------------------------------------------


SILENT_SECONDS = 60.0
"""A worker from which nothing came for so long is given up: no image takes as long to read."""
_CHUNK = 8
"""Items that a worker is given at a time."""
_AHEAD = 4
"""Chunks for each worker that are computed before they are asked for."""


class Workers:
    """Processes that compute on items, such as reading images; they start when they are first needed.

    They answer through sockets, not through shared memory, of which containers have little. They do not hear SIGINT,
    SIGTERM and SIGHUP, which often go to a whole group of processes: they end with this object or the main process.
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
            while chunk := list(islice(remaining, _CHUNK)):
                waiting.append(team.threads.submit(team.ask, message, chunk))
                if len(waiting) >= _AHEAD * self.count:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _team_for(self, work: Callable[[Any], Any]) -> "tuple[_Team, bytes]":
        try:
            message, inherited = pickle.dumps(work, pickle.HIGHEST_PROTOCOL), None
        except (pickle.PicklingError, AttributeError, TypeError):
            message, inherited = b"", work
        if self._team is None or inherited is not None or not self._team.alive:
            self._team = None  # the former ones end first
            self._team = _Team(self.count, inherited)
        return self._team, message


class _Team:
    """So many processes, and a thread for each that waits for it."""

    def __init__(self, count: int, inherited: Callable[[Any], Any] | None) -> None:
        self._workers: list[_Worker] = []
        self._idle = SimpleQueue[_Worker]()
        Finalize(self, _end, args=(self._workers,), exitpriority=10)  # before multiprocessing waits for them
        try:
            for _ in range(count):
                self._workers.append(_Worker(inherited))
        except OSError as error:
            raise WorkerFailed(
                f"no process can be started that reads pictures ({error.strerror or error}).",
                hint="Without any: --workers 0.",
            ) from error
        for worker in self._workers:
            self._idle.put(worker)
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="relish-workers")

    @property
    def alive(self) -> bool:
        return all(worker.process.is_alive() for worker in self._workers)

    def ask(self, message: bytes, chunk: Sequence[Any]) -> list[Any]:
        """What a worker that is idle makes of each item."""
        worker = self._idle.get()
        try:
            return worker.ask(message, chunk)
        finally:
            self._idle.put(worker)


class _Worker:
    """A process, and this one's end of the socket between them."""

    def __init__(self, inherited: Callable[[Any], Any] | None) -> None:
        forks = sys.platform == "linux"  # elsewhere libraries of the system do not survive it
        context: Any = multiprocessing.get_context("fork" if forks else "spawn")
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SILENT_SECONDS)
        self._told: bytes | None = None
        self.process = context.Process(target=_work, args=(theirs, os.getpid(), inherited), daemon=True)
        with theirs, _signals_blocked(), warnings.catch_warnings():
            # Nothing that another thread may hold a lock of is used in the process.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()

    def ask(self, message: bytes, chunk: Sequence[Any]) -> list[Any]:
        try:
            _send(self.socket, (None if message == self._told else message, chunk))
            self._told = message
            return [self._answer() for _ in chunk]
        except TimeoutError:
            self.process.kill()
            raise WorkerFailed(
                f"process {self.process.pid}, which reads pictures, gave no sign of life for {SILENT_SECONDS:g} s.",
                hint="Does their disk answer?",
            ) from None
        except (EOFError, OSError):
            self.process.join(1.0)
            raise WorkerFailed(
                f"process {self.process.pid}, which read pictures, was ended{_cause(self.process.exitcode)}.",
                hint="Where the system ended it for lack of memory, fewer --workers need less.",
            ) from None

    def _answer(self) -> Any:
        done, value = _receive(self.socket)
        if not done:
            raise value
        return value


def _cause(code: int | None) -> str:
    return f" by {signal.Signals(-code).name}" if code is not None and code < 0 else ""


def _end(workers: "list[_Worker]") -> None:
    for worker in workers:
        worker.process.kill()  # it only reads
    for worker in workers:
        worker.process.join(1.0)
        worker.socket.close()


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


def _work(connection: socket.socket, main: int, inherited: Callable[[Any], Any] | None) -> None:
    """What a worker process does: answer for each item of each message, until the main process ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if os.name == "posix":
        threading.Thread(target=_end_with, args=(main,), daemon=True).start()
    torch.set_num_threads(1)  # the threads of OpenMP do not survive a fork
    work: Any = None
    try:
        while True:
            message, chunk = _receive(connection)
            if message is not None:
                work = pickle.loads(message) if message else inherited  # noqa: S301 - from the main process
            for item in chunk:
                done, value = _outcome(work, item)
                _send(connection, (done, value))
                if not done:
                    break
    except (EOFError, OSError):
        return  # the main process is gone


def _end_with(main: int) -> None:
    while os.getppid() == main:
        time.sleep(1.0)
    os._exit(1)


def _outcome(work: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    """Whether `work` could be done, with its result or the error."""
    try:
        return True, work(item)
    except Exception as error:
        if not isinstance(error, RelishError | MemoryError):
            error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        except Exception:
            return False, Failed(f"{type(error).__name__}: {error}")
        return False, error


def _send(connection: socket.socket, content: object) -> None:
    data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    connection.sendall(struct.pack("!Q", len(data)))
    connection.sendall(data)


def _receive(connection: socket.socket) -> Any:
    (size,) = struct.unpack("!Q", _bytes(connection, 8))
    return pickle.loads(_bytes(connection, size))  # noqa: S301 - between our own processes


def _bytes(connection: socket.socket, count: int) -> bytearray:
    content = bytearray(count)
    left = memoryview(content)
    while left:
        received = connection.recv_into(left)
        if not received:
            raise EOFError
        left = left[received:]
    return content


# ---- jobs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a job computes, and where its messages go."""

    accelerator: Accelerator
    progress: Progress
    workers: Workers = field(default_factory=Workers)
    """That read images; by default this process reads them."""

    @classmethod
    def on(cls, device: str = "auto", progress: Progress | None = None, workers: int | None = None) -> "Context":
        """The context of a job.

        Args:
            device: "auto", "cpu", "cuda" or "mps".
            progress: used in the first process only; None is silent.
            workers: None: on a CPU 0, since its cores are busy computing; else one a thread, 8 at most.

        Raises:
            BadInput: there is no such device.
        """
        accelerator = accelerator_for(device)
        if workers is None:
            workers = 0 if accelerator.device.type == "cpu" else min(_MOST_WORKERS, torch.get_num_threads())
        shown = progress if progress is not None and accelerator.is_main_process else SILENT
        return cls(accelerator=accelerator, progress=shown, workers=Workers(workers))

    @property
    def device(self) -> torch.device:
        """The device that tensors are computed on."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return bool(self.accelerator.is_main_process)

    @property
    def processes(self) -> int:
        """The number of processes that share the work."""
        return int(self.accelerator.num_processes)

    @property
    def process(self) -> int:
        """The number of this process among them, from 0."""
        return int(self.accelerator.process_index)

    def from_main(self, make: Callable[[], T]) -> T:
        """The object that the first process makes, in every process."""
        made: list[Any] = [make() if self.is_main else None]
        if self.processes > 1:
            broadcast_object_list(made)
        first: T = made[0]
        return first

    def any(self, here: bool) -> bool:
        """Whether `here` is true in any process: all must agree, or one would wait for the others for ever."""
        if self.processes == 1:
            return here
        return bool(self.accelerator.reduce(torch.tensor([float(here)], device=self.device))[0] > 0)

    def in_run(self, folder: RunFolder, seed: int = 0, listeners: tuple[Listener, ...] = ()) -> "RunContext":
        """This context with a run folder."""
        return RunContext(**vars(self), folder=folder, seed=seed, listeners=listeners)


@dataclass(frozen=True, kw_only=True)
class RunContext(Context):
    """The context of a run, or of a training within one."""

    folder: RunFolder
    seed: int = 0
    """Of every random draw of the run."""
    listeners: tuple[Listener, ...] = ()
    """Called with each event that is recorded, in the first process."""
    within: RunFolder | None = None
    """Of a training within a run, the run's folder."""

    @property
    def resume_command(self) -> str:
        """The command that resumes the whole run."""
        return (self.within or self.folder).resume_command

    def record(self, **event: Any) -> None:
        """Append one event to `metrics.jsonl` and call the listeners; in the first process only."""
        if self.is_main:
            self.folder.record(**event)
            self.tell(**event)

    def tell(self, **event: Any) -> None:
        """Call the listeners with an event, not recorded here; a training within the run is named under `stage`."""
        named = event if self.within is None else {**event, "stage": self.folder.path.name}
        for listener in self.listeners if self.is_main else ():
            listener(named)

    def stage(self, name: str) -> "RunContext":
        """A training within the run, in a folder of its own; its lines are not shown, its warnings and bars are."""
        return replace(self, folder=self.folder.stage(name), within=self.folder, progress=Muted(self.progress))
