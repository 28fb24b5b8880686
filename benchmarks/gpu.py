"""Training on a GPU: relish beside plain loops and beside the step alone, in turn, on one machine.

    python benchmarks/gpu.py PICTURES WORK [--rounds 1] [--only REGEX] [--more]

Wall-clock seconds of whole commands on PICTURES, which holds `train/` and `test/` of class folders, with nothing
cached, and their test accuracy; a round's number is the seed. Then training pictures per second, once it runs steadily,
from JPEG files with a short side of 375 pixels, which are made from PICTURES in WORK: (a) the book's loop as written
(no workers, f32, default layout, two waits a step), (b) a careful loop (a worker a core, pinned memory, bf16, channels
last), (c) the same compiled, relish in f32 and with precision=auto, in its first epoch and in its last, whose pictures
are on the GPU; and (d) the step alone on one batch that stays on the device: f32, bf16 eager, compiled, in a CUDA
graph; (e) the crops of kept pictures alone. Random weights but for EfficientNet-Lite0. It is meant to take less than
ten minutes, half of them for compiling; where there is no GPU, exit code 2. --only measures what matches, such as
"^relish fit" or "resnet50.*(relish|eager)". With --device cpu --tiny its loops are run on a few small pictures, to see
that they work.
"""

import argparse
import gc
import json
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn
from torchvision import models

from book_loop import embedded_network
from measuring import earlier_rounds, finish, run, spread
from pipeline import loader
from relish.core.io import atomic_folder
from relish.core.runtime import processor_name, usable_cores
from relish.data.kept import crop_and_resize, kept_side
from relish.data.transforms import CROP_AREA, book_preprocessing
from relish.models.captured import on_cuda

COMMANDS = {"auto": (), "probe": (), "book": ("--epochs", "5")}
"""What each recipe is timed with."""
CLASSES = 2


class Scale(NamedTuple):
    """How much is measured."""

    networks: tuple[str, ...] = ("embedded", "resnet50")
    pictures: int = 10_000
    short: int = 375
    """Pixels of a file's shorter side."""
    side: int = 224
    batches: tuple[int, ...] = (32, 128)
    """The last one is that of the loops."""
    warm: int = 5
    """Steps before the clock starts."""
    steps: int = 50
    workers: int = usable_cores()


TINY = Scale(networks=("shufflenet_v2_x0_5",), pictures=12, short=24, side=32, batches=(4,), warm=1, steps=1, workers=0)
Row = dict[str, float]
Measure = Callable[[int], Row]
"""From the number of a round to what was measured, by the words of its rows."""
EPOCHS = {("embedded", 32): 13}
"""Of relish where they are not two: enough for kernels to be compiled, see `precision.LONG`."""
ACCURACY = ", test accuracy"


def network_of(name: str, device: torch.device) -> nn.Module:
    network = embedded_network()[0] if name == "embedded" else getattr(models, name)()
    return network.to(device)


def photographs(pictures: Path, work: Path, scale: Scale) -> Path:
    """So many JPEG files of the wanted size, from those of PICTURES by turns, made once."""
    folder = work / f"photographs-{scale.pictures}-{scale.short}"
    if folder.exists():
        return folder
    found = sorted(file for file in (pictures / "train").rglob("*") if file.is_file())

    def make(number: int, part: str, root: Path) -> None:
        with Image.open(found[number % len(found)]) as opened:
            times = scale.short / min(opened.size)
            size = (round(opened.width * times), round(opened.height * times))
            opened.convert("RGB").resize(size).save(
                root / part / "ab"[number % CLASSES] / f"{number:05}.jpg", quality=90
            )

    with atomic_folder(folder) as root, ThreadPoolExecutor(usable_cores()) as pool:
        for part, count in (("train", scale.pictures), ("test", 8)):
            for name in "ab":
                (root / part / name).mkdir(parents=True)
            list(pool.map(lambda number, part=part: make(number, part, root), range(count)))  # type: ignore[misc]
    return folder


def stepping(
    network: nn.Module, bf16: bool
) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """A training step by the book's recipe; gives loss and logits."""
    optimiser = torch.optim.SGD(network.parameters(), lr=5e-5, weight_decay=1e-3)

    def step(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        optimiser.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = network(images)
        loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
        loss.backward()
        optimiser.step()
        return loss.detach(), logits.detach()

    return step


def finished(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def loop_speed(kind: str, name: str, folder: Path, scale: Scale, device: torch.device) -> float:
    """Pictures per second from files, by a loop of a kind: `plain`, `careful` or `compiled`."""
    careful = kind != "plain"
    network = network_of(name, device).train()
    if careful:
        network.to(memory_format=torch.channels_last)
    step = stepping(torch.compile(network) if kind == "compiled" else network, bf16=careful)  # type: ignore[arg-type]
    workers = scale.workers if careful else 0
    pinned = torch.cuda.is_available() and workers > 0
    batches = loader(folder, scale.batches[-1], scale.side, num_workers=workers, drop_last=True, pin_memory=pinned)
    layout = torch.channels_last if careful else torch.contiguous_format
    began, seen = 0.0, 0
    for number, (images, labels) in enumerate(batches):
        if number == scale.warm:
            began, seen = finished(device), 0
        images = images.to(device, non_blocking=careful, memory_format=layout)
        labels = labels.to(device, non_blocking=careful)
        loss, logits = step(images, labels)
        if not careful:  # as the book does
            _ = loss.item(), int((logits.argmax(1) == labels).sum())
        seen += len(labels)
        if not careful and number == scale.warm + scale.steps // 4:
            break
    return seen / (finished(device) - began)


def step_speed(kind: str, name: str, batch: int, scale: Scale, device: torch.device) -> float:
    """Pictures per second of the step alone: `f32`, or in bf16 `eager`, `compiled` or `graph`."""
    network = network_of(name, device).train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, scale.side, scale.side, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch,), device=device)
    step = stepping(torch.compile(network) if kind == "compiled" else network, bf16=kind != "f32")  # type: ignore[arg-type]

    def work() -> Any:
        return step(images, labels)

    if kind == "graph":
        _, work = on_cuda(work)
    for _ in range(scale.warm):
        work()
    began = finished(device)
    for _ in range(scale.steps):
        work()
    return scale.steps * batch / (finished(device) - began)


def crop_speed(batch: int, scale: Scale, device: torch.device) -> float:
    """Pictures per second of cutting and scaling alone, of squares that are on the device."""
    side = kept_side(book_preprocessing(scale.side, (0.5,) * 3, (0.5,) * 3), CROP_AREA[0])
    squares = torch.randint(256, (batch, side, side, 3), dtype=torch.uint8, device=device)
    boxes = torch.tensor([[0.1, 0.2, 0.8, 0.9]], device=device).expand(batch, 4) * side
    flipped = torch.arange(batch, device=device) % 2 == 0
    for number in range(scale.warm + scale.steps):
        if number == scale.warm:
            began = finished(device)
        crop_and_resize(squares, boxes, flipped, scale.side)
    return scale.steps * batch / (finished(device) - began)


def relish(name: str, folder: Path, work: Path, scale: Scale, precision: str, batch: int) -> Row:
    """Pictures per second of `relish fit` by the book's recipe, from an epoch's first point of the curves to its last.

    In the first epoch pictures come from their files; in the last one they are on the GPU.
    """
    epochs = EPOCHS.get((name, batch), 2)
    command = [sys.executable, "-m", "relish", "fit", str(folder), "--recipe", "book", "--quiet"]
    command += ["--epochs", str(epochs), "--unknown", "none"]
    command += ["--source", name, *([] if name == "embedded" else ["--weights", "none"]), "--batch-size", str(batch)]
    out = fresh(work)
    run([*command, "--set", f"precision={precision}", "--out", str(out)])
    if (trial := out / "precision.json").is_file():
        print(f"{name}, batch {batch}, precision={precision}, trial {trial.read_text()}", flush=True)
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found: Row = {}
    for epoch, whence in ((0, "files"), (epochs - 1, "kept on the GPU")):
        points = [event for event in events if event["event"] == "train" and epoch < event["at"] <= epoch + 1]
        images = scale.pictures * (points[-1]["at"] - points[0]["at"])
        speed = images / (points[-1]["seconds"] - points[0]["seconds"])
        found[f"{name}, {whence}, batch {batch}, relish, precision={precision}"] = float(speed)
    return found


def fresh(work: Path) -> Path:
    """Where a run goes; its caches are empty."""
    for place in (work / "out", work / "home"):
        shutil.rmtree(place, ignore_errors=True)
    os.environ["RELISH_HOME"] = str(work / "home")
    return work / "out"


def command(told: str, recipe: str, pictures: Path, work: Path, seed: int) -> Row:
    """Wall-clock time of a whole `relish fit`, and what it came to."""
    out, began = fresh(work), time.perf_counter()
    run([sys.executable, "-m", "relish", "fit", str(pictures), "--recipe", recipe, *COMMANDS[recipe], "--quiet",
         "--seed", str(seed), "--out", str(out)])  # fmt: skip
    seconds = time.perf_counter() - began
    return {told: seconds, told + ACCURACY: json.loads((out / "evaluation.json").read_text())["top1"]["value"]}


def arms_of(pictures: Path, work: Path, scale: Scale, device: torch.device) -> dict[str, Measure]:
    """What is measured, by words that --only chooses by."""
    folder, cuda = photographs(pictures, work, scale), device.type == "cuda"
    arms: dict[str, Measure] = {}

    def measured(words: str, speed: Callable[..., float], *given: Any) -> None:
        arms[words] = lambda _: {words: speed(*given, scale, device)}

    for recipe in COMMANDS if cuda else ():
        told = " ".join(("relish fit --recipe", recipe, *COMMANDS[recipe]))
        arms[told] = lambda seed, t=told, r=recipe: command(t, r, pictures, work, seed)  # type: ignore[misc]
    measured(f"crops of kept pictures alone, batch {scale.batches[-1]}", crop_speed, scale.batches[-1])
    for name in scale.networks:
        for kind in ("plain", "careful", *(("compiled",) if cuda else ())):
            measured(f"{name}, files, batch {scale.batches[-1]}, {kind} loop", loop_speed, kind, name, folder)
        for batch, precision in product(scale.batches, ("f32", "auto")) if cuda else ():
            arms[f"{name}, relish, batch {batch}, precision={precision}"] = (
                lambda _, n=name, p=precision, b=batch: relish(n, folder, work, scale, p, b)  # type: ignore[misc]
            )
        for batch in scale.batches:
            for kind in ("f32", "eager", *(("compiled", "graph") if cuda else ())):
                measured(f"{name}, step alone, batch {batch}, {kind}", step_speed, kind, name, batch)
    return arms


def table_of(rounds: list[Row], scale: Scale) -> list[list[str]]:
    """Each row; speeds beside the eager bf16 step alone at the same batch, where that was measured."""
    table = [[f"training, {scale.side} px", "seconds", "test accuracy", "pictures/s", "of the step alone"]]
    found = {words: [row[words] for row in rounds if words in row] for row in rounds for words in row}
    for words, values in found.items():
        if words.endswith(ACCURACY):
            continue
        if words.startswith("relish fit"):
            table.append([words, spread(values), spread(found[words + ACCURACY]), "", ""])
            continue
        name, batch = words.partition(",")[0], re.search(r"batch \d+", words)
        alone = found.get(f"{name}, step alone, {batch and batch[0]}, eager")
        share = f"{statistics.median(values) / statistics.median(alone):.2f}" if alone else ""
        table.append([words, "", "", spread(values), share])
    return table


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--rounds", type=int, default=1)
    ask.add_argument("--only", type=re.compile, default=re.compile(""))
    ask.add_argument("--more", action="store_true")
    ask.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    ask.add_argument("--tiny", action="store_true")
    asked = ask.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: this machine has no CUDA device; --device cpu --tiny only shows that it runs.", file=sys.stderr)
        raise SystemExit(2)
    scale, device = TINY if asked.tiny else Scale(), torch.device(asked.device)
    rounds: list[Row] = earlier_rounds("gpu", asked.more)
    arms = arms_of(asked.pictures, asked.work, scale, device)
    for number in range(asked.rounds):
        rounds.append({})
        for name, measure in arms.items():
            if not asked.only.search(name):
                continue
            found = measure(number)
            rounds[-1].update(found)
            for words, figure in found.items():
                print(f"{words}: {figure:.4g}", flush=True)
            gc.collect()  # networks and graphs of the arm before hold memory of the device
            torch.cuda.empty_cache()
    table = table_of(rounds, scale)
    if device.type == "cuda":
        on = f"{torch.cuda.get_device_name()}, {usable_cores()} cores of {processor_name()}"
        finish("gpu", "python benchmarks/gpu.py PICTURES WORK", rounds, table, processor=on)


if __name__ == "__main__":
    main()
