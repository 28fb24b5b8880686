"""Scalars for a tracker, such as TensorBoard, while a run goes on.

In:   a tracker's name, the run folder; then every event that the run records.
Out:  whatever the tracker writes, below the run folder's `tracking/`.

The trackers are Accelerate's. A run, and each model that a climb fine-tunes, is a series of its own; a resumed run goes
on in the same series, from its checkpoint on (TensorBoard's `purge_step` hides what was written behind that place).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from relish.core.errors import BadInput, nearest

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
