"""Features by PyTorch and through ONNX Runtime, in turn: nothing cached, and with the exported backbone at hand.

    python benchmarks/engines.py DATA [--source embedded] [--image-size 224] [--pictures 1000] [--rounds 3]

Seconds of `features_of`, reading included, and of the processor (all threads together), which says more beside other
work. Writes `results/engines.json`.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from measuring import finish, spread
from relish.core.context import Context
from relish.core.io import sha256_of_file
from relish.core.progress import Screen
from relish.core.runtime import keep_freed_memory
from relish.data.loader import View
from relish.data.sources import find_dataset
from relish.data.split import evenly_spaced
from relish.data.transforms import book_preprocessing
from relish.evaluation import onnx_network
from relish.evaluation.features import Backbone, features_of
from relish.models.source import load_source
from relish.models.target import make_target

ARMS = "PyTorch", "ONNX Runtime, nothing cached", "ONNX Runtime, backbone exported before"


def main(home: Path) -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("data")
    ask.add_argument("--source", default=None)
    ask.add_argument("--image-size", type=int, default=224)
    ask.add_argument("--pictures", type=int, default=1000)
    ask.add_argument("--rounds", type=int, default=3)
    asked = ask.parse_args()
    keep_freed_memory()  # as relish does
    split = find_dataset(asked.data, progress=Screen()).splits["train"]
    split = split.take(evenly_spaced(len(split), asked.pictures))
    source = load_source(asked.source)
    how = book_preprocessing(asked.image_size, source.data_config.mean, source.data_config.std)
    backbone = Backbone.of(make_target(source, ("one", "other"), seed=0))
    sha256, context = {path: sha256_of_file(path) for path in split.paths}, Context.on("cpu")
    fewest, other = onnx_network.FEWEST, home / "exported"

    def timed(arm: str) -> tuple[float, float, np.ndarray]:
        os.environ["RELISH_HOME"] = str(home / "now")
        shutil.rmtree(home / "now", ignore_errors=True)
        onnx_network.FEWEST = len(split) + 1 if arm == ARMS[0] else fewest
        if arm == ARMS[2]:
            shutil.copytree(other, home / "now")
        clock, processor = time.perf_counter(), time.process_time()
        (found,) = features_of(backbone, split, [View(how)], sha256, context)
        return time.perf_counter() - clock, time.process_time() - processor, found

    os.environ["RELISH_HOME"] = str(other)
    onnx_network.EXPORT_SECONDS = 0.0  # where the rule would not export, what that costs is shown
    backbone.hastened(asked.image_size, len(split), context)
    rounds = [{arm: timed(arm) for arm in ARMS} for _ in range(asked.rounds)]
    table = [["", "s", "s of the processor", "times as fast"]]
    for arm in ARMS:
        clock, processor = ([one[arm][i] for one in rounds] for i in (0, 1))
        table.append([arm, spread(clock), spread(processor), spread([r[ARMS[0]][0] / r[arm][0] for r in rounds])])
    differ = float(np.abs(rounds[0][ARMS[0]][2] - rounds[0][ARMS[1]][2]).max())
    largest = float(np.abs(rounds[0][ARMS[0]][2]).max())
    finish(
        "engines", "python benchmarks/engines.py DATA", [{a: r[a][:2] for a in ARMS} for r in rounds], table,
        pictures=len(split), image_size=asked.image_size, features_differ=differ, largest_feature=largest,
    )  # fmt: skip
    print(f"features differ by {differ:.2g} at most; the largest is {largest:.3g}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
