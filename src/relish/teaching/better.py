"""Make it better: `relish fit` of the folder as a process of its own at low priority, and what came of it.

Its run lies in `FOLDER/.relish/runs`. Its outcome is set beside the probe's on the same images, which neither had seen:
the run's held-out images and the probe's answers of them in cross-validation.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from relish.core.errors import RelishError, visible
from relish.core.run_folder import RunFolder
from relish.data.set_aside import OWN
from relish.evaluation.grouped import group_numbers, proportion
from relish.evaluation.held_out import read_held_out
from relish.evaluation.significance import mcnemar
from relish.teaching.learning import Learner, figure
from relish.teaching.library import Conflict

NICE = 10
"""How much the process gives way to others, the page's among them, on POSIX."""
_NOTE = "better"
"""The journal's note of the run that was begun last."""
_LAST_SECONDS = 20.0
"""A process that is asked to end has so long to save its work, where the page's server ends too."""


class Work:
    """A `relish` command as a process at low priority, whose lines are followed.

    Args:
        line: called with each line that it says.
        ended: called with its exit code.
    """

    def __init__(self, words: Sequence[str], line: Callable[[str], None], ended: Callable[[int], None]) -> None:
        self._line, self._ended = line, ended
        self._process = subprocess.Popen(
            [sys.executable, "-m", "relish", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C ends the server, which then asks this one to save its work
        )  # fmt: skip
        with suppress(OSError, AttributeError):  # gone already; not on Windows
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
        self._thread = threading.Thread(target=self._follow, name="work", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to save its work and end."""
        with suppress(OSError):
            self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """Wait for its end; after so long it is ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self._process.poll() is None:
            self._process.kill()
        self._thread.join(seconds)

    def _follow(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it was asked for
        for line in self._process.stderr:
            if words := line.decode(errors="replace").strip():
                self._line(visible(words, keep="")[:300])
        self._process.stderr.close()
        self._ended(self._process.wait())


class Better:
    """Making the model of a folder better, one run at a time.

    Args:
        options: of `relish fit`.
        changed: called whenever there is something new to show.
    """

    def __init__(self, learner: Learner, options: Sequence[str], changed: Callable[[], None]) -> None:
        self._learner, self._changed = learner, changed
        self._options = options
        self._lock = threading.RLock()
        self._work: Work | None = None
        self._began = 0.0
        self._phase, self._line, self._reason = "idle", "", ""
        self._outcome: dict[str, Any] | None = None
        note = learner.library.journal.note(_NOTE) or {}
        self.run: Path | None = Path(learner.library.folder, note["run"]) if note else None
        self._minutes, self._before = float(note.get("minutes", 0)), float(note.get("elapsed", 0))
        if self.run is not None:
            self._phase = "done" if (self.run / "evaluation.json").is_file() else "stopped"

    def start(self, minutes: float) -> None:
        """Begin a new run.

        Raises:
            Conflict: one is under way, or there is nothing to learn from.
        """
        with self._lock:
            self._refuse_while_running()
            if self._learner.solved is None:
                raise Conflict("there is nothing to learn from yet.", hint="Two classes with a few pictures each.")
            runs = self._learner.library.folder / OWN / "runs"
            number = 1 + len(list(runs.glob("better-*")))
            self.run, self._minutes, self._before, self._outcome = runs / f"better-{number}", minutes, 0.0, None
            self._begin(self._fit_words())

    def resume(self) -> None:
        """Go on with the run that was stopped.

        Raises:
            Conflict: there is none.
        """
        with self._lock:
            self._refuse_while_running()
            if self.run is None or self._phase not in ("stopped", "failed"):
                raise Conflict("there is nothing to go on with.")
            begun = (self.run / "request.json").is_file()
            self._begin(["fit", "--resume", str(self.run)] if begun else self._fit_words())

    def stop(self) -> None:
        """Stop the run, its work saved.

        Raises:
            Conflict: none is under way.
        """
        with self._lock:
            if self._work is None:
                raise Conflict("nothing is under way.")
            self._phase = "stopping"
            self._work.stop()
        self._changed()

    def close(self) -> None:
        """Stop what is under way and wait for its end."""
        work = self._work
        if work is not None:
            with suppress(Conflict):
                self.stop()
            work.wait(_LAST_SECONDS)

    def commands(self) -> list[str]:
        """What to type for the same."""
        return [shlex.join(["relish", "fit", str(self._learner.library.folder), *self._options])]

    def state(self) -> dict[str, Any]:
        """What the page is told."""
        elapsed = self._elapsed
        if self._phase == "done" and self._outcome is None:
            self._outcome = self._compared()
        return {
            "phase": self._phase,
            "minutes": self._minutes,
            "elapsed": round(elapsed, 1),
            "left": round(max(0.0, 60 * self._minutes - elapsed), 1),
            "line": self._line,
            "reason": self._reason,
            "outcome": self._outcome,
        }

    @property
    def is_better(self) -> bool:
        """Whether the run is done and beat the probe."""
        return bool(self._phase == "done" and self._outcome and self._outcome["verdict"] == "better")

    @property
    def _elapsed(self) -> float:
        return self._before + (time.monotonic() - self._began if self._work is not None else 0.0)

    def _fit_words(self) -> list[str]:
        folder, seconds = str(self._learner.library.folder), f"{round(60 * self._minutes)}s"
        return ["fit", folder, "--budget", seconds, "--out", str(self.run), *self._options]

    def _refuse_while_running(self) -> None:
        if self._work is not None:
            raise Conflict("a run is under way.", hint="Stop it first.")

    def _begin(self, words: Sequence[str]) -> None:
        self._phase, self._line, self._reason, self._began = "running", "", "", time.monotonic()
        self._remember()
        self._work = Work(words, self._said, self._ended)
        self._changed()

    def _said(self, line: str) -> None:
        self._line = line
        self._changed()

    def _ended(self, code: int) -> None:
        with self._lock:
            self._before, self._work = self._elapsed, None
            if code == 0:
                self._phase, self._outcome = "done", None
            elif self._phase == "stopping":
                self._phase = "stopped"
            else:
                self._phase, self._reason = "failed", self._line.removeprefix("error: ")
            with suppress(Exception):  # the folder is being closed
                self._remember()
        self._changed()

    def _remember(self) -> None:
        library = self._learner.library
        if self.run is not None:
            run = self.run.relative_to(library.folder).as_posix()
            library.journal.note(_NOTE, {"run": run, "minutes": self._minutes, "elapsed": self._before})

    def _compared(self) -> dict[str, Any] | None:
        """The run beside the probe on the images that neither had seen; None where there are none."""
        solved = self._learner.solved
        if solved is None or self.run is None:
            return None
        try:
            folder = RunFolder.open(self.run)
            held, classes = read_held_out(folder.held_out), json.loads(folder.classes.read_text(encoding="utf-8"))
        except (RelishError, OSError, ValueError):
            return None
        row_of = {sha256: row for row, sha256 in enumerate(solved.examples.contents)}
        both = [(place, row_of[sha256]) for place, sha256 in enumerate(held.sha256) if sha256 in row_of]
        names = solved.examples.classes
        both = [
            (place, row) for place, row in both if classes[held.labels[place]] == names[solved.examples.labels[row]]
        ]
        if not both:
            return None
        places, rows = np.array(both).T
        of_run = (held.logits.argmax(1) == held.labels)[places]
        of_probe, groups = solved.right[rows], group_numbers([solved.examples.units[row] for row in rows])
        test = mcnemar(of_probe, of_run, groups)
        ahead = "better" if of_run.sum() > of_probe.sum() else "worse"
        return {
            "probe": figure(proportion(of_probe, groups)),
            "run": figure(proportion(of_run, groups)),
            "only_probe": test.only_first,
            "only_run": test.only_second,
            "p": test.p_value,
            "verdict": ahead if test.differs else "no_difference",
            "run_name": self.run.name,
        }
