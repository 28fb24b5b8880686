"""What the benchmarks share: processes with their peak memory, ratios with their spread, results as table and JSON.

Every figure is a ratio of runs made in turn, so that a machine that slows down slows both; the absolute figures stand
beside it with the processor's name. With `--more`, rounds are added to those of the results file.
"""

import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from relish.core.io import write_json
from relish.core.runtime import processor_name

RESULTS = Path(__file__).with_name("results")


def run(command: Sequence[str]) -> tuple[str, float]:
    """Run a program to its end: what it printed, and its own peak resident memory in GiB."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=said, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {child.returncode}:\n{errors.read()[-2000:]}")
        said.seek(0)
        return said.read(), usage.ru_maxrss / 2**20


def spread(values: Sequence[float]) -> str:
    """`3.6 (3.5–3.8)`: the median, the least and the most."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def memory_table(rounds: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Peak memory of each size; `bytes a picture` is the slope from one size to the next."""
    table: list[list[str]] = [["pictures", "peak memory, MiB", "bytes a picture", "seconds"]]
    before: Mapping[str, Any] | None = None
    for row in rounds:
        slope = (row["peak_gib"] - before["peak_gib"]) * 2**30 / (row["pictures"] - before["pictures"]) if before else 0
        told = [f"{row['pictures']:,}", f"{row['peak_gib'] * 1024:.0f}", f"{slope:.0f}" if before else ""]
        table.append([*told, f"{row['seconds']:.0f}"])
        before = row
    return table


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }


def earlier_rounds(name: str, more: bool) -> list[dict[str, Any]]:
    """The rounds that stand in the results file, where more are to be added to them."""
    file = RESULTS / f"{name}.json"
    if not (more and file.is_file()):
        return []
    found: list[dict[str, Any]] = json.loads(file.read_text())["rounds"]
    return found


def finish(name: str, command: str, rounds: list[dict[str, Any]], table: list[list[str]], **figures: Any) -> None:
    """Print a table, and write everything beside it to `results/NAME.json`."""
    for number, row in enumerate(table):
        print("| " + " | ".join(row) + " |")
        if number == 0:
            print("|" + "---|" * len(row))
    about = {"command": command, **machine(), "rounds": rounds, "table": table, **figures}
    write_json(RESULTS / f"{name}.json", about)
    print(f"{about['processor']}, {about['threads']} threads, torch {about['torch']}; {len(rounds)} rounds")
