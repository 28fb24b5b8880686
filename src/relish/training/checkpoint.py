"""What a run keeps on its way: checkpoints, stages, plans, scalars for a tracker; and arithmetic on state dicts.

A checkpoint holds tensors and plain numbers only, so that it is read back without unpickling anything else. Nothing of
the random generators is kept, since every draw of a run is a function of the seed, epoch and image.
"""

import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from torch import Tensor, nn

from relish.core.context import RunContext
from relish.core.errors import BadInput, Diverged, RunError, nearest
from relish.core.io import atomic_path, write_json
from relish.core.run_folder import read_mapping, withdrawn_by
from relish.core.runtime import raise_if_no_memory

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass
class TrainingState:
    """How far a training is: `batch` batches of epoch `epoch` are done (both from 0), and what they added up to."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    """Sum of the losses of this epoch's images so far, in nats."""
    correct: int = 0
    """Of this epoch's images so far, how many were predicted correctly, in train mode, before their step."""
    seen: int = 0
    """Of this epoch's images, how many `loss` and `correct` are of."""
    seconds: float = 0.0
    """Wall-clock time spent training, over every start of the run, evaluation omitted."""

    @property
    def words(self) -> str:
        """Mean loss and accuracy of the epoch so far; empty before they were read."""
        return f"loss {self.loss / self.seen:.3f}  train {self.correct / self.seen:.3f}" if self.seen else ""

    def images_done(self, images: int) -> int:
        """Images seen since the start, where an epoch has so many."""
        return self.epoch * images + self.seen

    def stepped(self, seconds: float) -> None:
        """Count one batch; what it added up to is read less often."""
        self.batch, self.seconds = self.batch + 1, self.seconds + seconds

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.batch, self.loss, self.correct, self.seen = self.epoch + 1, 0, 0.0, 0, 0


def save_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, state: TrainingState) -> None:
    """Write everything that resuming needs, atomically."""
    content = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "state": asdict(state),
    }
    # Given a name, torch writes by itself, and a full disk is an error without a reason.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def load_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> TrainingState | None:
    """Put network and optimiser back where the checkpoint left them; None where there is no checkpoint.

    Raises:
        RunError: the file is damaged, or of another network.
    """
    if not path.is_file():
        return None
    with _readable(path):
        content = _content(path)
        network.load_state_dict(content["network"])
        optimiser.load_state_dict(content["optimiser"])
        return TrainingState(**content["state"])


def load_network(path: Path, network: nn.Module) -> None:
    """Put a network back where the checkpoint left it.

    Raises:
        RunError: the file is missing, damaged, or of another network.
    """
    with _readable(path):
        network.load_state_dict(_content(path)["network"])


def _content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise_if_no_memory(error, f"to load {path}")
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{path} cannot be resumed from ({reason}).", hint="Delete that file, and the run starts over."
        ) from error


# ---- stages, plans and decisions ------------------------------------------------------------------------------------

Plan = TypeVar("Plan", bound="DataclassInstance")


@contextmanager
def stage_once(stage: RunContext, network: nn.Module) -> Iterator[bool]:
    """Whether a training within the run is over already, and then the network is loaded; else it is over afterwards.

    A training that its deadline cut short is over too: it does not go on when the run is resumed.

    Raises:
        Diverged: the work within did, now or before the run was resumed.
    """
    file, hint = stage.folder.path / "ended.json", f"Delete {stage.folder.path}, and it starts over."
    former = stage.from_main(lambda: read_mapping(file, hint=hint) if file.is_file() else None)
    if former is not None:
        if former.get("diverged"):
            raise Diverged(former["diverged"])
        load_network(stage.folder.checkpoint, network)
    try:
        yield former is not None
    except Diverged as error:
        if stage.is_main:
            write_json(file, {"diverged": error.message})
        raise
    if former is None and stage.is_main:
        write_json(file, {"diverged": None})


def decided(run: RunContext, name: str, made: Callable[[], int]) -> int:
    """What was decided under this name, or is now: a run that is resumed does what it began.

    Args:
        made: called in all processes; the first one's counts.
    """

    def kept(value: int) -> int:
        plans = _plans(run)
        write_json(run.folder.plan, {**plans, "decided": {**plans.get("decided", {}), name: value}})
        return value

    known: int | None = run.from_main(lambda: _plans(run).get("decided", {}).get(name))
    if known is None:
        value = made()
        known = run.from_main(lambda: kept(value))
    return known


def kept_plan(run: RunContext, name: str, kind: type[Plan], made: Callable[[], Plan]) -> Plan:
    """The plan kept under this name, or one made and kept now: the first process's, in all of them.

    What was trained by a plan that is gone, or was another version's, is trained anew, and its figures are withdrawn.
    """

    def kept() -> dict[str, Any]:
        plans = _plans(run)
        if plans.get(name, {}).keys() != {field.name for field in fields(kind)}:
            shutil.rmtree(run.folder.stages, ignore_errors=True)
            if any(withdrawn_by(name, event) for event in run.folder.records()):
                run.record(event="planned", epoch=0, batch=0, plan=name)
            still = {key: value for key, value in plans.get("decided", {}).items() if not key.startswith(name)}
            before = {**plans, "decided": still} if name != "probe" else {}  # what comes after the probe rests on it
            plans = {**before, name: asdict(made())}
            write_json(run.folder.plan, plans)
        found: dict[str, Any] = plans[name]
        return found

    return kind(**run.from_main(kept))


def _plans(run: RunContext) -> dict[str, Any]:
    """What the run's plans are, by name, and what was `decided`."""
    file = run.folder.plan
    return read_mapping(file, hint="Delete it, and the run is planned afresh.") if file.is_file() else {}


# ---- a tracker ------------------------------------------------------------------------------------------------------


TENSORBOARD = "tensorboard"


def checked_tracker(name: str) -> str:
    """The tracker's name, once it is known and its package is there.

    Raises:
        BadInput: there is no such tracker, or its package is not installed.
    """
    known = [str(one.value) for one in LoggerType if one != LoggerType.ALL]
    if name not in known:
        hint = " ".join(filter(None, [nearest(name, known), f"Trackers: {', '.join(known)}."]))
        raise BadInput(f'--track: there is no tracker "{name}".', hint=hint)
    if name not in [str(getattr(one, "value", one)) for one in get_available_trackers()]:
        package = "'relish-vision[tensorboard]'" if name == TENSORBOARD else name.replace("_", "-")
        raise BadInput(f"--track {name}: its package is not installed.", hint=f"pip install {package}")
    return name


class Tracker:
    """Hands a run's events on, as scalars."""

    def __init__(self, name: str, run: Path, device: str) -> None:
        """
        Args:
            name: of `checked_tracker`.
            run: the run folder.
            device: the kind of device the run is on, such as "cpu".
        """
        self.name, self.run, self.device = name, run, device
        self._series: dict[str, Accelerator] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        """Log one event of the run's `metrics.jsonl`, or of a stage's, under `stage`."""
        scalars = scalars_of(event)
        resumed = event["event"] == "resumed"
        if scalars or resumed:
            series = self._of(event.get("stage", self.run.name), event["step"] + 1 if resumed else None)
            series.log(scalars, step=event.get("step", 0))

    def end(self) -> None:
        """Write down what is still held."""
        for series in self._series.values():
            for tracker in series.trackers:
                tracker.finish()

    def _of(self, name: str, purge: int | None) -> Accelerator:
        if name not in self._series:
            series = Accelerator(
                cpu=self.device == "cpu", log_with=self.name, project_dir=str(self.run / "tracking")
            )  # never asked to compute anything
            more = {TENSORBOARD: {"purge_step": purge}} if purge is not None else {}
            series.init_trackers(name, init_kwargs=more)
            self._series[name] = series
        return self._series[name]


def scalars_of(event: Mapping[str, Any]) -> dict[str, float]:
    """What of an event is a number worth drawing, by the name it is drawn under."""
    match event["event"]:
        case "train":
            return {
                "train/loss": event["loss"],
                "train/accuracy": event["accuracy"],
                "train/learning rate": event["learning_rate"],
            }
        case "score":
            return {f"{event['split']}/accuracy": event["correct"] / event["count"]}
        case "rung":
            return {f"rung/{event['rung']}": event["correct"] / event["count"]}
        case "judged":
            return {f"judged/{event['split']} accuracy": event["correct"] / event["count"]}
    return {}


# ---- state dicts ----------------------------------------------------------------------------------------------------


State = dict[str, Tensor]
"""Every tensor of a network by name, statistics and counters included."""


def state_of(network: nn.Module) -> State:
    """A copy of a network's numbers."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def between(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> State:
    """`share` of the way from one state to another, 0 to 1; counters are the second's."""
    return {
        name: torch.lerp(first[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in second.items()
    }


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> State:
    """The mean of each number over all states; counters are the first's."""
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in states[0].items()
    }
