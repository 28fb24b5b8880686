"""Whether `--budget` holds beside another busy process on the same core.

    python benchmarks/budget_under_load.py DATA WORK [--budget 120] [--image-size 128] [--core 0]

`relish fit DATA` runs on one core, with one thread: alone; beside a process on the same core that does nothing but
count; and beside one that begins when a third of the budget has gone, or ends then. Seconds are wall-clock, from the
line that says that the budget counts from here, to the end of the process. Writes `results/budget_under_load.json`.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

from measuring import finish
from relish.core.run_folder import RunFolder
from relish.core.runtime import processor_name

WAYS = {
    "alone": (None, None),
    "beside it": (0.0, None),
    "from a third on": (1 / 3, None),
    "up to a third": (0.0, 1 / 3),
}
"""When the other process begins and ends, as shares of the budget; None: never."""


class Busy:
    """A process that keeps a core busy."""

    def __init__(self, core: int) -> None:
        self.command = ["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"]
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        self.process = subprocess.Popen(self.command)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def timed(data: str, out: Path, budget: float, side: int, core: int, begins: float | None, ends: float | None) -> float:
    """Seconds of a run from where its budget counts to its end."""
    words = ["taskset", "-c", str(core), sys.executable, "-m", "relish", "fit", data, "--budget", f"{budget:g}s"]
    words += ["--image-size", str(side), "--out", str(out)]
    busy, timers = Busy(core), []
    if begins == 0:
        busy.begin()
    run = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    began = time.monotonic()
    try:
        assert run.stderr is not None
        for line in run.stderr:
            print(f"  {line}", end="", flush=True)
            if line.startswith("start "):
                began = time.monotonic()
                timers = [Timer(budget * begins, busy.begin)] if begins else []
                timers += [] if ends is None else [Timer(budget * ends, busy.end)]
                for timer in timers:
                    timer.start()
        run.wait()
    finally:
        for timer in timers:
            timer.cancel()
        busy.end()
    return time.monotonic() - began


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("data")
    ask.add_argument("work", type=Path)
    ask.add_argument("--budget", type=float, default=120)
    ask.add_argument("--image-size", type=int, default=128)
    ask.add_argument("--core", type=int, default=0)
    asked = ask.parse_args()
    rows, table = [], [["other process", "seconds", "of the budget", "models", "test accuracy"]]
    for way, (begins, ends) in WAYS.items():
        print(way, flush=True)
        name = way.replace(" ", "-")
        os.environ["RELISH_HOME"] = str(asked.work / f"home-{name}")  # nothing is computed yet
        out = asked.work / f"run-{name}"
        seconds = timed(asked.data, out, asked.budget, asked.image_size, asked.core, begins, ends)
        found, stages = RunFolder(out).read_evaluation()["top1"], RunFolder(out).stages
        models = sum(1 for _ in stages.glob("*/ended.json")) if stages.is_dir() else 0
        share = seconds / asked.budget
        rows.append({"way": way, "seconds": seconds, "share": share, "models": models, "accuracy": found["value"]})
        table.append([way, f"{seconds:.0f}", f"{share:.0%}", str(models), f"{found['value']:.3f}"])
    command = f"python benchmarks/budget_under_load.py DATA WORK --budget {asked.budget:g}"
    finish("budget_under_load", command, rows, table, processor=processor_name(), threads=1, of="1 run each")


if __name__ == "__main__":
    main()
