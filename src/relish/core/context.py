"""What every part of a job is handed: the device and the other processes, the progress, and the run that it records in.

`Context` is enough for whatever computes on images. `RunContext` adds the run folder: what a training records there is
handed on to everyone who listens, trackers and callbacks alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.progress import Muted, Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import accelerator_for

Listener = Callable[[Mapping[str, Any]], None]
"""Called with each event once it is recorded."""
T = TypeVar("T")
_MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a job computes and what it says."""

    accelerator: Accelerator
    progress: Progress
    workers: int = 0
    """Processes that read images; 0: this one does."""

    @classmethod
    def on(cls, device: str = "auto", progress: Progress | None = None, workers: int | None = None) -> "Context":
        """The context of a job.

        Args:
            device: "auto", "cpu", "cuda" or "mps".
            progress: heard in the first process alone; None is silent.
            workers: None: on a CPU none, since its cores are busy computing; else one a thread, 8 at most.

        Raises:
            BadInput: there is no such device.
        """
        accelerator = accelerator_for(device)
        if workers is None:
            workers = 0 if accelerator.device.type == "cpu" else min(_MOST_WORKERS, torch.get_num_threads())
        heard = progress if progress is not None and accelerator.is_main_process else Progress()
        return cls(accelerator=accelerator, progress=heard, workers=workers)

    @property
    def device(self) -> torch.device:
        """Where tensors go."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return bool(self.accelerator.is_main_process)

    @property
    def processes(self) -> int:
        """How many share the work."""
        return int(self.accelerator.num_processes)

    @property
    def process(self) -> int:
        """Which of them this is, from 0."""
        return int(self.accelerator.process_index)

    def from_main(self, make: Callable[[], T]) -> T:
        """What the first process makes, in every process."""
        made: list[Any] = [make() if self.is_main else None]
        if self.processes > 1:
            broadcast_object_list(made)
        found: T = made[0]
        return found

    def any(self, here: bool) -> bool:
        """Whether it is so in any process: all have to agree, or one would wait for the others for ever."""
        if self.processes == 1:
            return here
        return bool(self.accelerator.reduce(torch.tensor([float(here)], device=self.device))[0] > 0)

    def in_run(self, folder: RunFolder, seed: int = 0, listeners: tuple[Listener, ...] = ()) -> "RunContext":
        """The same, with the run that is worked on."""
        return RunContext(
            accelerator=self.accelerator, progress=self.progress, workers=self.workers,
            folder=folder, seed=seed, listeners=listeners,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunContext(Context):
    """One run, or one training within it."""

    folder: RunFolder
    seed: int = 0
    """Of every random draw of the run."""
    listeners: tuple[Listener, ...] = ()
    """Called with each event that is recorded, in the first process."""
    within: RunFolder | None = None
    """Of a training within a run, the folder of the whole."""

    @property
    def resume_command(self) -> str:
        """What to type to resume the whole run."""
        return (self.within or self.folder).resume_command

    def record(self, **event: Any) -> None:
        """Add one event to `metrics.jsonl` and tell the listeners; in the first process alone."""
        if self.is_main:
            self.folder.record(**event)
            self.tell(**event)

    def tell(self, **event: Any) -> None:
        """Tell the listeners of an event that is not kept; a training within the run is named under `stage`."""
        named = event if self.within is None else {**event, "stage": self.folder.path.name}
        for listener in self.listeners if self.is_main else ():
            listener(named)

    def stage(self, name: str) -> "RunContext":
        """A training within the run, in a folder of its own: its lines are not shown, its warnings and bars are."""
        return replace(self, folder=self.folder.stage(name), within=self.folder, progress=Muted(self.progress))
