"""How long until the accuracy of the plain book loop's five epochs is reached?

    python benchmarks/time_to_accuracy.py ARCHIVE WORK [--seeds 3] [--book book_loop.json]

ARCHIVE is a zip of `NAME/train/` and `NAME/test/` class folders. First the plain loop of `book_loop.py`, as a user
would write it (default layout and allocator), from unpacked pictures to its last test accuracy; --book takes the
figures of an earlier run on the same machine. Then `relish fit ARCHIVE --target-accuracy A`, A being that accuracy, in
a process of its own with an empty cache: everything counts, from starting Python and unpacking to the judged model.
The worst seed counts. Writes `results/time_to_accuracy.json`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from study import write_results


def book(archive: Path, work: Path) -> dict:
    """The plain loop's figures, with the seconds of its whole process."""
    pictures, out = work / "pictures", work / "book_loop.json"
    if not out.is_file():
        if not pictures.is_dir():
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(pictures)
        (root,) = pictures.iterdir()
        command = [sys.executable, str(Path(__file__).with_name("book_loop.py")), str(root), "--out", str(out)]
        subprocess.run(command, check=True)
    return json.loads(out.read_text())


def relish(archive: Path, work: Path, seed: int, target: float) -> dict:
    """One seed from nothing: seconds of the whole process, and what was reached on the test pictures."""
    out, home = work / f"run-{seed}", work / f"home-{seed}"
    for folder in (out, home):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "relish", "fit", str(archive), "--target-accuracy", f"{target:.4f}"]
    began = time.perf_counter()
    subprocess.run(
        [*command, "--seed", str(seed), "--out", str(out)], check=True, env={**os.environ, "RELISH_HOME": str(home)}
    )
    seconds = time.perf_counter() - began
    top1 = json.loads((out / "evaluation.json").read_text())["top1"]
    return {"seed": seed, "seconds": seconds, "correct": top1["correct"], "count": top1["count"]}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("archive", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--book", type=Path)
    asked = ask.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    plain = json.loads(asked.book.read_text()) if asked.book else book(asked.archive, asked.work)
    last = plain["epochs"][-1]
    target = last["test_correct"] / last["test_count"]
    rows = [relish(asked.archive, asked.work, seed, target) for seed in range(asked.seeds)]
    worst = max(row["seconds"] for row in rows)
    reached = all(row["correct"] / row["count"] >= target for row in rows)
    print(f"plain loop: {target:.4f} ({last['test_correct']} of {last['test_count']}) after {plain['seconds']:.0f} s")
    for row in rows:
        print(f"relish, seed {row['seed']}: {row['correct']} of {row['count']} after {row['seconds']:.0f} s")
    which = "every" if reached else "not every"
    print(f"worst seed: 1/{plain['seconds'] / worst:.1f} of the time; {which} seed reaches it")
    figures = {"accuracy": target, "seconds": plain["seconds"], "correct": last["test_correct"]}
    write_results("time_to_accuracy", {"plain": figures, "relish": rows, "ratio": plain["seconds"] / worst})


if __name__ == "__main__":
    main()
