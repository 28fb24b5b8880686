"""Training speed of `relish fit --recipe book` against the plain book loop, in turn, on the same pictures.

    python benchmarks/book_speed.py PICTURES [--weights FILE.safetensors] [--rounds 3] [--out book_speed.json]

Each round runs `book_loop.py` as a user would write it (default layout and allocator) and then relish, each in a
process of its own, over three batches of 128 pictures; both f32, both decoding with Pillow in the training process.
Figures are training pictures per second of wall-clock time, decoding included, and their ratio round by round.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from relish.core.devices import processor_name

BATCHES, BATCH = 3, 128


def few_pictures(pictures: Path, root: Path) -> None:
    """Three batches of training pictures, half of each of two classes, and a handful to score."""
    for part, count in (("train", BATCHES * BATCH // 2), ("test", 4)):
        for folder in sorted((pictures / part).iterdir()):
            (root / part / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy(file, root / part / folder.name)


def run(command: list[str]) -> float:
    """Run to the end; the peak memory of the largest child so far, in GiB."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("--weights")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--out", type=Path)
    asked = ask.parse_args()
    more = ["--weights", asked.weights] if asked.weights else []
    plain_script = Path(__file__).with_name("book_loop.py")
    rows = []
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        few_pictures(asked.pictures, root / "few")
        os.environ["RELISH_HOME"] = str(root / "home")
        for number in range(asked.rounds):
            record, out = root / f"plain-{number}.json", root / f"run-{number}"
            run([sys.executable, str(plain_script), str(root / "few"), "--epochs", "1", "--out", str(record), *more])
            plain = json.loads(record.read_text())["epochs"][0]["pictures_per_second"]
            fit = ["-m", "relish", "fit", str(root / "few"), "--epochs", "1", "--out", str(out), "--quiet", *more]
            run([sys.executable, *fit])
            ours = json.loads((out / "evaluation.json").read_text())["pictures_per_second"]
            rows.append({"plain": plain, "relish": ours, "ratio": ours / plain})
            print(
                f"round {number + 1}: plain {plain:.2f}, relish {ours:.2f} pictures/s, ratio {ours / plain:.2f}",
                flush=True,
            )
    ratios = [row["ratio"] for row in rows]
    summary = {
        "processor": processor_name(),
        "threads": os.cpu_count(),
        "weights": asked.weights and Path(asked.weights).name,
        "rounds": rows,
        "ratio": {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)},
        "peak_gib_of_any": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
    }
    print(json.dumps(summary["ratio"]), summary["processor"])
    if asked.out:
        asked.out.write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
