"""How long until the accuracy of the plain book loop's five epochs is reached?

    python benchmarks/time_to_accuracy.py ARCHIVE WORK [--seeds 3] [--target 0.91]

ARCHIVE is a zip of `NAME/train/` and `NAME/test/` class folders. The plain loop is that of `book_loop.py`. Its time is
five times that of one epoch, scoring included, as a user would write it (default layout and allocator); its accuracy
is that of five epochs with `--quick`, which is the same arithmetic in less time. relish is
`fit ARCHIVE --target-accuracy A`, A being the loop's last test accuracy or --target, in a process of its own with an
empty cache: everything counts, from starting Python and unpacking to the judged model. The worst seed counts. What is
finished is kept in WORK. Writes
`results/time_to_accuracy.json`.
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

from measuring import finish

EPOCHS = 5


def plain_loop(archive: Path, work: Path, name: str, *options: str) -> list[dict]:
    """The epochs of the plain loop, run once."""
    pictures, out = work / "pictures", work / f"{name}.json"
    if not out.is_file():
        if not pictures.is_dir():
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(pictures)
        (root,) = pictures.iterdir()
        script = str(Path(__file__).with_name("book_loop.py"))
        subprocess.run([sys.executable, script, str(root), "--out", str(out), *options], check=True)
    return json.loads(out.read_text())["epochs"]


def relish(archive: Path, work: Path, seed: int, target: float) -> dict:
    """One seed from nothing: seconds of the whole process, and what was reached on the test pictures."""
    out, home, kept = work / f"run-{seed}", work / f"home-{seed}", work / f"relish-{seed}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    for folder in (out, home):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "relish", "fit", str(archive), "--target-accuracy", f"{target:.4f}"]
    began = time.perf_counter()
    subprocess.run(
        [*command, "--seed", str(seed), "--out", str(out)], check=True, env={**os.environ, "RELISH_HOME": str(home)}
    )
    seconds = time.perf_counter() - began
    top1 = json.loads((out / "evaluation.json").read_text())["top1"]
    row = {"seed": seed, "seconds": seconds, "target": target, "correct": top1["correct"], "count": top1["count"]}
    kept.write_text(json.dumps(row))
    return row


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("archive", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--target", type=float)
    asked = ask.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    rows = []
    if asked.target:
        rows = [relish(asked.archive, asked.work, seed, asked.target) for seed in range(asked.seeds)]
    last = plain_loop(asked.archive, asked.work, "plain-five", "--quick", "--epochs", str(EPOCHS))[-1]
    wanted = last["test_correct"] / last["test_count"]
    seconds = EPOCHS * plain_loop(asked.archive, asked.work, "plain-epoch", "--epochs", "1")[0]["seconds"]
    rows = rows or [relish(asked.archive, asked.work, seed, wanted) for seed in range(asked.seeds)]
    worst = max(row["seconds"] for row in rows)
    reached = all(row["correct"] / row["count"] >= wanted for row in rows)
    table = [["from zip to judged model", "test pictures right", "seconds", "of the plain loop's time"]]
    table.append(
        [f"plain loop, {EPOCHS} epochs", words(last["test_correct"], last["test_count"]), f"{seconds:.0f}", "1"]
    )
    for row in rows:
        told = f"relish, seed {row['seed']}"
        table.append(
            [told, words(row["correct"], row["count"]), f"{row['seconds']:.0f}", f"1/{seconds / row['seconds']:.1f}"]
        )
    finish(
        "time_to_accuracy", "python benchmarks/time_to_accuracy.py ARCHIVE WORK", rows, table,
        of=f"{asked.seeds} seeds", plain_seconds=seconds, plain_correct=last["test_correct"],
        reached_by_every_seed=reached, worst_ratio=seconds / worst,
    )  # fmt: skip


def words(correct: int, count: int) -> str:
    return f"{correct} of {count} ({correct / count:.3f})"


if __name__ == "__main__":
    main()
