"""Training speed of relish against the plain book loop, in turn, on the same pictures.

    python benchmarks/book_speed.py PICTURES [--source resnet18] [--rounds 3] [--batches 3] [--more]

Each round runs, each in a process of its own, `book_loop.py` as a user would write it (f32, default layout and
allocator), then `relish fit` as the recipe `book` has it (f32), then the same with `precision=auto`, and then with the
early layers and the norms' statistics still besides, as recipe `auto`, the default, trains; over a few batches of 128
pictures at 224 px. Figures are training pictures per second of wall-clock time, decoding included, the peak
memory of each process, and the ratios to the plain loop round by round. ResNet-18 has random weights.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import earlier_rounds, finish, run, spread

BATCH = 128
FAST = {"precision": "auto", "freeze": "early", "batch_norm": "still"}
"""How recipe `auto` trains, where it differs from the book's in what a step costs."""
ARMS: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("plain PyTorch loop", {}),
    "f32": ("relish, f32", {}),
    "auto": ("relish, precision=auto", {"precision": "auto"}),
    "default": ("the same, early layers still, as recipe auto has it", FAST),
}
"""What each is called in the table, and what it sets beside the book's recipe."""


def few_pictures(pictures: Path, root: Path, count: int) -> None:
    """So many training pictures, half of each of two classes, and a handful to score."""
    for part, each in (("train", count // 2), ("test", 4)):
        for folder in sorted((pictures / part).iterdir()):
            (root / part / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:each]:
                shutil.copy(file, root / part / folder.name)


def one(arm: str, few: Path, work: Path, source: str) -> dict[str, Any]:
    """Pictures per second and peak memory of one process."""
    weights = ["--weights", "none"] if source == "resnet18" else []
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    if arm == "plain":
        script, record = str(Path(__file__).with_name("book_loop.py")), work / "plain.json"
        _, peak = run(
            [sys.executable, script, str(few), "--epochs", "1", "--out", str(record), "--source", source]
        )  # fmt: skip
        speed = json.loads(record.read_text())["epochs"][0]["pictures_per_second"]
        return {"speed": speed, "peak_gib": peak}
    command = ["-m", "relish", "fit", str(few), "--recipe", "book", "--epochs", "1", "--out", str(out)]
    command += ["--quiet", "--source", source]
    settings = [word for name, value in ARMS[arm][1].items() for word in ("--set", f"{name}={value}")]
    _, peak = run([sys.executable, *command, *weights, *settings])
    row = {"speed": json.loads((out / "evaluation.json").read_text())["pictures_per_second"], "peak_gib": peak}
    return {**row, "trial": json.loads((out / "precision.json").read_text())} if settings else row


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("--source", choices=("embedded", "resnet18"), default="embedded")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--batches", type=int, default=3)
    ask.add_argument("--more", action="store_true")
    asked = ask.parse_args()
    name = f"training-{asked.source}"
    rounds = earlier_rounds(name, asked.more)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        few_pictures(asked.pictures, work / "few", asked.batches * BATCH)
        os.environ["RELISH_HOME"] = str(work / "home")
        for number in range(asked.rounds):
            rounds.append({arm: one(arm, work / "few", work, asked.source) for arm in ARMS})
            print(f"round {number + 1}:", {arm: round(rounds[-1][arm]["speed"], 1) for arm in ARMS}, flush=True)
    table = [["training, batch 128, 224 px", "pictures/s", "times as fast as plain", "peak memory, GiB"]]
    for arm, (words, settings) in ARMS.items():
        ratios = [row[arm]["speed"] / row["plain"]["speed"] for row in rounds]
        chosen = f" ({rounds[-1][arm]['trial']['precision']})" if settings else ""
        table.append(
            [
                words + chosen,
                spread([row[arm]["speed"] for row in rounds]),
                spread(ratios),
                spread([row[arm]["peak_gib"] for row in rounds]),
            ]
        )
    finish(name, f"python benchmarks/book_speed.py PICTURES --source {asked.source}", rounds, table)


if __name__ == "__main__":
    main()
