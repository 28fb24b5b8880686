"""Draw the charts of `docs/performance.md` from `benchmarks/results/`.

    python benchmarks/charts.py

`docs/images/speed.png`: how many times as fast as plain PyTorch, the median of the rounds with the least and the most.
`docs/images/memory.png`: peak memory against the number of pictures. What has no results file is left out.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from relish.reporting.curves import COLOURS

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
JOBS = {
    "training-embedded": ("training, EfficientNet-Lite0", "plain", ("f32", "auto", "default")),
    "training-resnet18": ("training, ResNet-18", "plain", ("f32", "auto", "default")),
    "inference-embedded": ("inference, EfficientNet-Lite0", "plain", ("f32", "auto")),
    "inference-resnet18": ("inference, ResNet-18", "plain", ("f32", "auto")),
}


def results(name: str) -> dict[str, Any] | None:
    file = HERE / "results" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def speed_chart() -> None:
    """Bars of ratios, two or three a job, with room for three."""
    found = {name: kept for name in JOBS if (kept := results(name))}
    figure = Figure(figsize=(7.5, 1.2 + 0.85 * len(found)), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, kept) in enumerate(found.items()):
        _, base, arms = JOBS[name]
        for number, arm in enumerate(arms):
            ratios = [row[arm]["speed"] / row[base]["speed"] for row in kept["rounds"]]
            middle = statistics.median(ratios)
            reach = [[middle - min(ratios)], [max(ratios) - middle]]
            at = place + 0.27 * (number - (len(arms) - 1) / 2)
            axes.barh(at, middle, 0.25, xerr=reach, color=COLOURS[number], capsize=3)
            axes.text(max(ratios) + 0.08, at, f"{middle:.1f}", va="center")
    axes.set_yticks(range(len(found)), [JOBS[name][0] for name in found])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times as fast as plain PyTorch (median, least and most of the rounds)")
    for number, words in enumerate(("relish, f32", "relish, precision=auto", "as recipe auto trains")):
        axes.barh(0, 0, color=COLOURS[number], label=words)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    about = next(iter(found.values()))
    axes.set_title(f"{about['processor']}, {about['threads']} threads, PyTorch {about['torch']}", fontsize=10)
    figure.savefig(IMAGES / "speed.png", dpi=110)


def memory_chart() -> None:
    """Peak memory of each size."""
    kept = results("memory")
    if kept is None:
        return
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    sizes = [row["pictures"] for row in kept["rounds"]]
    axes.plot(sizes, [1024 * row["peak_gib"] for row in kept["rounds"]], "o-", color=COLOURS[0])
    axes.set(xscale="log", xlabel="pictures in the dataset", ylabel="peak memory, MiB")
    axes.set_ylim(0, 1.2 * max(1024 * row["peak_gib"] for row in kept["rounds"]))
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.savefig(IMAGES / "memory.png", dpi=110)


if __name__ == "__main__":
    speed_chart()
    memory_chart()
