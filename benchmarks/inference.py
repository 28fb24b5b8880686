"""Pictures per second from file to answer: `Classifier.predict` against plain PyTorch, in turn, on the same pictures.

    python benchmarks/inference.py PICTURES [--source resnet18] [--rounds 3] [--more]

Plain is `ImageFolder`, `DataLoader` and the network in its default layout and allocator, f32, batches of 64; relish is
what `relish predict` does, in f32 and with `--precision auto`. Each arm runs in a process of its own, over 64 pictures
unmeasured and then 320 measured; loading the model is left out. The peak memory of each process stands beside it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torchvision import datasets, transforms

import relish
from book_loop import embedded_network, resnet18
from measuring import earlier_rounds, finish, run, spread
from relish.models.saved_model import save_model
from relish.models.source import load_source

ARMS = ("plain", "f32", "auto")
WARM, PICTURES, BATCH = 64, 320, 64


def save(source: str, file: Path) -> None:
    """A model file of the source network as it is, all of its classes known."""
    found = load_source(source, "none" if source == "resnet18" else None)
    labels = tuple(f"class {number}" for number in range(1000))
    description = replace(found.description, num_classes=1000, labels=labels)
    save_model(file, found.network, description, {})


def plain(pictures: Path, source: str) -> Callable[[int, int], None]:
    network, mean, std = resnet18() if source == "resnet18" else embedded_network()
    network.eval()
    steps = [
        transforms.Resize([256, 256]),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    folder = datasets.ImageFolder(pictures / "train", transforms.Compose(steps))

    def predict(first: int, last: int) -> None:
        part = torch.utils.data.Subset(folder, range(first, last))
        with torch.no_grad():
            for images, _ in torch.utils.data.DataLoader(part, BATCH):
                network(images).softmax(1).max(1)

    return predict


def ours(pictures: Path, model: Path, precision: str) -> Callable[[int, int], None]:
    classifier = relish.load(str(model), precision=precision)
    files = [Path(name) for name, _ in datasets.ImageFolder(pictures / "train").samples]

    def predict(first: int, last: int) -> None:
        classifier.predict(files[first:last])

    return predict


def arm(asked: argparse.Namespace) -> None:
    """One arm in this process; prints its pictures per second."""
    predict = (
        plain(asked.pictures, asked.source) if asked.arm == "plain" else ours(asked.pictures, asked.model, asked.arm)
    )
    predict(0, WARM)
    began = time.perf_counter()
    predict(WARM, WARM + PICTURES)
    print(json.dumps(PICTURES / (time.perf_counter() - began)))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("--source", choices=("embedded", "resnet18"), default="embedded")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--more", action="store_true")
    ask.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    ask.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.arm:
        arm(asked)
        return
    name = f"inference-{asked.source}"
    rounds = earlier_rounds(name, asked.more)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RELISH_HOME"] = folder
        model = Path(folder) / "model.safetensors"
        save(asked.source, model)
        command = [sys.executable, __file__, str(asked.pictures), "--source", asked.source, "--model", str(model)]
        for _ in range(asked.rounds):
            row = {}
            for each in ARMS:
                said, peak = run([*command, "--arm", each])
                row[each] = {"speed": json.loads(said), "peak_gib": peak}
            rounds.append(row)
    table = [["inference, 224 px", "pictures/s", "times as fast as plain", "peak memory, GiB"]]
    for each, words in zip(ARMS, ("plain PyTorch", "relish, f32", "relish, precision auto"), strict=True):
        speeds, ratios, peaks = zip(
            *[(r[each]["speed"], r[each]["speed"] / r["plain"]["speed"], r[each]["peak_gib"]) for r in rounds],
            strict=True,
        )
        table.append([words, spread(speeds), spread(ratios), spread(peaks)])
    finish(name, f"python benchmarks/inference.py PICTURES --source {asked.source}", rounds, table)


if __name__ == "__main__":
    main()
