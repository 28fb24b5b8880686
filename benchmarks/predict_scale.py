"""`relish predict --out` against the number of pictures: peak memory and speed, at 1,000, 10,000 and 100,000.

    python benchmarks/predict_scale.py [--sizes 1000 10000 100000]     memory against rows
    python benchmarks/predict_scale.py --speed FOLDER [--rounds 3]     speed on real photographs
    python benchmarks/predict_scale.py --huge                          memory with pictures of 119 million pixels
    python benchmarks/predict_scale.py --batch                         what one picture takes, against the estimate

For memory the pictures are small ones, hard links to a thousand that were drawn once, and the network is timm's
`test_resnet` at 32 px: what is measured is everything around the network. For speed the network is the embedded one,
and the other arm opens each picture between two batches, in the thread that computes. Every figure comes from a process
of its own.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from measuring import finish, machine, run, spread
from memory_flat import draw, link

_NETWORKS = (
    "resnet18",
    "resnet50",
    "tf_efficientnet_lite0",
    "convnext_tiny",
    "vit_small_patch16_224",
    "mobilenetv3_large_100",
    "densenet121",
)


def save(path: Path, source: str, size: int, weights: str | None = None) -> None:
    """A model of two classes, its head random."""
    from relish.models.saved_model import save_model
    from relish.models.source import load_source

    model = load_source(source, weights)
    torch.manual_seed(0)
    model.network.reset_classifier(2)
    config = model.data_config.with_user(input_size=(3, size, size))
    description = replace(model.description, num_classes=2, labels=("a", "b"), data_config=config)
    save_model(path, model.network, description, {})


def table(model: str, folder: str, out: str, threads: str) -> None:
    """One arm: predictions into a table; with no threads, pictures are opened one by one between the batches."""
    from relish.tasks import classifier, predict

    if threads == "0":
        from relish.evaluation.inference import _ready

        classifier.read_ahead = lambda pictures, how, ahead: ((str(p), _ready(p, how)) for p in pictures)
    written = predict.predict_table(model, [folder], out, device="cpu")
    # Not the system's count of a process's peak, which begins at that of the process it was started from.
    print(json.dumps({**written.as_json(), "peak": _status("VmHWM")}))


def arm(*words: object) -> tuple[dict, float]:
    """The document that an arm printed, and its peak memory in GiB."""
    said = json.loads(run([sys.executable, __file__, "--arm", *map(str, words)])[0])
    return said, said["peak"] / 2**30


def sizes(work: Path, wanted: list[int], more: list[str]) -> None:
    save(work / "model.safetensors", "timm/test_resnet", 32, "none")
    files, rounds = draw(work / "drawn"), []
    for size in wanted:
        link(files, work / str(size), size)
        for suffix in ("csv", "parquet"):
            began = time.perf_counter()
            said, peak = arm(work / "model.safetensors", work / str(size), work / f"{size}.{suffix}", "")
            rounds.append({"pictures": said["pictures"], "form": suffix, "peak_gib": peak,
                           "seconds": time.perf_counter() - began, "rate": said["pictures_per_second"]})  # fmt: skip
            print(rounds[-1], file=sys.stderr)
    rows = [["pictures", "form", "peak memory, MiB", "pictures/s"]]
    rows += [[f"{r['pictures']:,}", r["form"], f"{r['peak_gib'] * 1024:.0f}", f"{r['rate']:.0f}"] for r in rounds]
    finish("predict_scale", " ".join(["python benchmarks/predict_scale.py", *more]), rounds, rows)


def speed(work: Path, folder: Path, repeats: int) -> None:
    save(work / "model.safetensors", "embedded", 224)
    rates: dict[str, list[float]] = {"one by one": [], "read ahead": []}
    for number in range(repeats):
        for name, threads in (("one by one", "0"), ("read ahead", "")):
            said, _ = arm(work / "model.safetensors", folder, work / f"{number}-{name}.csv", threads)
            rates[name].append(said["pictures_per_second"])
            print(name, rates[name][-1], file=sys.stderr)
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    for name, values in rates.items():
        print(f"{name}: {spread(values)} pictures/s")
    print(f"ratio: {spread(ratios)}; {machine()}")


def huge(work: Path, count: int = 6) -> None:
    save(work / "model.safetensors", "timm/test_resnet", 32, "none")
    chance = np.random.default_rng(0)
    pixels = Image.fromarray(chance.integers(0, 256, (100, 119, 3), dtype=np.uint8)).resize((11_900, 10_000))
    for name, how_many in (("one", 1), ("several", count)):
        (work / name).mkdir()
        for number in range(how_many):
            pixels.save(work / name / f"{number}.jpg", quality=50)
        _, peak = arm(work / "model.safetensors", work / name, work / f"{name}.csv", "")
        print(f"{how_many} of 119 million pixels: peak {peak * 1024:.0f} MiB")
    print(machine())


def batch() -> None:
    """Peak of one pass beyond what lay there before, by Linux's own count, over the largest step of a module."""
    from relish.evaluation.inference import largest_activation
    from relish.models.registry import build_network

    print("| network | pictures of | largest step, MiB | measured, MiB | ratio |\n|---|---|---|---|---|")
    for name in _NETWORKS:
        size = 224
        network = build_network("timm", name, {}, 2, seed=0).eval()

        def ask(images: torch.Tensor, network: torch.nn.Module = network) -> np.ndarray:
            with torch.inference_mode():
                return network(images).numpy()

        step = largest_activation(network, torch.zeros(1, 3, size, size), ask)
        images = torch.zeros(16, 3, size, size)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
        before = _status("VmRSS")
        ask(images)
        taken = (_status("VmHWM") - before) / 16
        print(f"| {name} | {size} px | {step / 2**20:.2f} | {taken / 2**20:.2f} | {taken / step:.2f} |", flush=True)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    ask.add_argument("--speed", type=Path)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--huge", action="store_true")
    ask.add_argument("--batch", action="store_true")
    ask.add_argument("--arm", nargs=4, help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.arm:
        table(*asked.arm)
        return
    if asked.batch:
        batch()
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["RELISH_HOME"] = str(work / "home")
        if asked.speed:
            speed(work, asked.speed, asked.rounds)
        elif asked.huge:
            huge(work)
        else:
            sizes(work, asked.sizes, sys.argv[1:])


if __name__ == "__main__":
    main()
