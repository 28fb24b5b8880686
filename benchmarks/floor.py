"""How far a training step and a forward pass are from what the machine could do at best.

    python benchmarks/floor.py [--source resnet18] [--rounds 3] [--more]

The floor is measured: multiply-accumulates over the rate of a large matrix product or a large 3 × 3 convolution,
whichever is higher, or bytes over the rate of a large copy, whichever takes longer. A layer is counted as reading its
input and writing its output once, and a backward pass as twice a forward one; weights are not counted, nor anything
that a cache could save. Batches of 32 pictures at 224 px, channels last, freed memory kept. A distance of 1 would be
the floor itself; the rates are the best of all rounds, since other work on the machine can only lower them.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from book_loop import embedded_network, resnet18
from measuring import earlier_rounds, finish, spread
from relish.core.runtime import keep_freed_memory
from relish.models.precision import BOTH, Precision, computing_in

BATCH = 32
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def fastest(work: Callable[[], Any], times: int = 4) -> float:
    """Seconds of the quickest call, after one unmeasured."""
    work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def matrix_rate(precision: Precision) -> float:
    """Multiply-accumulates per second: the best of 2048 × 2048 matrices and 256 channels of 56 × 56 pixels."""
    one = torch.randn(2048, 2048).to(DTYPES[precision])
    images = torch.randn(16, 256, 56, 56).to(DTYPES[precision]).to(memory_format=torch.channels_last)
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(DTYPES[precision]).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return max(
            2048**3 / fastest(lambda: one @ one),
            16 * 56 * 56 * 256 * 256 * 9 / fastest(lambda: layer(images)),
        )


def bandwidth() -> float:
    """Bytes per second, read and written, of copying 256 MiB."""
    one = torch.zeros(64 * 2**20)
    other = torch.empty_like(one)
    return 2 * one.nbytes / fastest(lambda: other.copy_(one))


def counted(network: nn.Module, images: torch.Tensor) -> tuple[float, float]:
    """Multiply-accumulates, and f32 bytes that layers read and write, of one forward pass."""
    moved = 0

    def count(module: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        nonlocal moved
        moved += given[0].nbytes + made.nbytes

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves if not isinstance(module, nn.Identity)]
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return flops.get_total_flops() / 2, float(moved)


def step(network: nn.Module, images: torch.Tensor, precision: Precision, training: bool) -> None:
    network.train(training)
    with torch.set_grad_enabled(training), computing_in(precision, images.device):
        outputs = network(images)
    if training:
        network.zero_grad()
        outputs.float().logsumexp(1).sum().backward()


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--source", choices=("embedded", "resnet18"), default="embedded")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--more", action="store_true")
    asked = ask.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    network = (resnet18() if asked.source == "resnet18" else embedded_network())[0]
    network.to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 224, 224).to(memory_format=torch.channels_last)
    macs, moved = counted(network.eval(), images)
    name = f"floor-{asked.source}"
    rounds = earlier_rounds(name, asked.more)
    table = [["batch 32, 224 px", "floor, ms/picture", "measured, ms/picture", "distance from the floor"]]
    for _ in range(asked.rounds):
        row: dict[str, Any] = {"bandwidth": bandwidth()}
        for precision in BOTH:
            row[f"rate {precision}"] = matrix_rate(precision)
            for kind in ("inference", "training"):
                seconds = fastest(lambda p=precision, k=kind: step(network, images, p, k == "training"), 2)  # type: ignore[misc]
                row[f"{kind}, {precision}"] = seconds * 1e3 / BATCH
        rounds.append(row)
    best = {key: max(row[key] for row in rounds) for key in ("rate f32", "rate bf16", "bandwidth")}
    for precision, size in (("f32", 1.0), ("bf16", 0.5)):
        for kind, passes in (("inference", 1), ("training", 3)):
            floor = passes * max(macs / best[f"rate {precision}"], size * moved / best["bandwidth"]) * 1e3 / BATCH
            took = [row[f"{kind}, {precision}"] for row in rounds]
            table.append(
                [f"{kind}, {precision}", f"{floor:.3g}", spread(took), spread([each / floor for each in took])]
            )
    about = {"gmacs_per_picture": macs / BATCH / 1e9, "mb_moved_per_picture": moved / BATCH / 1e6}
    finish(name, f"python benchmarks/floor.py --source {asked.source}", rounds, table, **about)
    for key in ("rate f32", "rate bf16", "bandwidth"):
        print(f"{key}: {spread([row[key] / 1e9 for row in rounds])} billion a second")
    print(about)


if __name__ == "__main__":
    main()
