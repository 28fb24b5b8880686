"""The context of a job: device, processes, workers, progress, and the run that it records events in.

`Context` is enough to compute on images. `RunContext` adds the run folder: each event that a training records there
also goes to the listeners, such as trackers and callbacks.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.progress import SILENT, Muted, Progress, default_progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import accelerator_for, usable_cores
from relish.core.workers import Workers

Listener = Callable[[Mapping[str, Any]], None]
"""Called with each event once it is recorded."""
T = TypeVar("T")


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
            progress: used in the first process only; None is silent, but in a notebook one live bar.
            workers: None: on a CPU 0, since its cores are busy computing; else one a core, which the processes of this
                machine share.

        Raises:
            BadInput: there is no such device.
        """
        accelerator = accelerator_for(device)
        if workers is None:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's word for processes on this machine
            workers = 0 if accelerator.device.type == "cpu" else max(1, usable_cores() // here)
        shown = (progress or default_progress()) if accelerator.is_main_process else SILENT
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
