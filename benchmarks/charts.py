"""Draw the charts of `docs/` from `benchmarks/results/`.

    python benchmarks/charts.py

`speed.svg`: how many times as fast as plain PyTorch, the median of the rounds with the least and the most.
`memory.svg`: peak memory against the number of images.
`few_pictures.svg`: accuracy of each recipe against training images, the mean of its draws with the least and the most.
They go to `docs/images/`; what has no results file is omitted.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from relish.reporting.svg import COLOURS, Axis, Chart, Key, even_axis, log_axis, write_svg

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
JOBS = {
    "training-embedded": ("training, Lite0", ("f32", "auto", "default")),
    "training-resnet18": ("training, ResNet-18", ("f32", "auto", "default")),
    "inference-embedded": ("inference, Lite0", ("f32", "auto")),
    "inference-resnet18": ("inference, ResNet-18", ("f32", "auto")),
}
ARMS = {"f32": "relish, f32", "auto": "relish, precision=auto", "default": "as recipe auto trains"}
RECIPES = {"book": "square", "frozen": "triangle", "probe": "diamond", "auto": "circle"}


def results(name: str) -> dict[str, Any] | None:
    file = HERE / "results" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def speed_chart() -> None:
    """Bars of ratios to plain PyTorch, two or three a job."""
    found = {name: kept for name in JOBS if (kept := results(name))}
    bars = [
        (place + 0.27 * (number - (len(JOBS[name][1]) - 1) / 2), arm, ratios_of(kept, arm))
        for place, (name, kept) in enumerate(found.items())
        for number, arm in enumerate(JOBS[name][1])
    ]
    about = next(iter(found.values()))
    title = f"{about['processor']}, {about['threads']} threads, PyTorch {about['torch']}"
    x = Axis("", -0.5, len(found) - 0.5, tuple((place, JOBS[name][0]) for place, name in enumerate(found)))
    y = even_axis("times as fast as plain PyTorch", 0, 1.08 * max(max(ratios) for *_, ratios in bars))
    summary = "The median of the rounds; upright lines go from the least to the most. Higher is better."
    chart = Chart("speed", title, summary, x, y, width=640)
    for at, arm, ratios in bars:
        middle = statistics.median(ratios)
        tooltip = f"{ARMS[arm]}: {middle:.1f} times, {min(ratios):.1f} to {max(ratios):.1f}"
        chart.add_bar(at - 0.125, at + 0.125, middle, colour_of(arm), tooltip)
        chart.add_error_bar(at, min(ratios), max(ratios), colour_of(arm))
    chart.add_line([(x.low, 1), (x.high, 1)], "soft", dashed=True)
    chart.keys = [
        *(Key(label, colour_of(arm), marker="square", line=False) for arm, label in ARMS.items()),
        Key("plain PyTorch", "soft", True),
    ]
    write_svg(chart, IMAGES / "speed.svg")


def ratios_of(kept: dict[str, Any], arm: str) -> list[float]:
    """How many times as fast as plain PyTorch, of each round."""
    return [row[arm]["speed"] / row["plain"]["speed"] for row in kept["rounds"]]


def colour_of(arm: str) -> str:
    return COLOURS[list(ARMS).index(arm)]


def memory_chart() -> None:
    """Peak memory of each size."""
    kept = results("memory")
    if kept is None:
        return
    points = [(row["pictures"], 1024 * row["peak_gib"]) for row in kept["rounds"]]
    x = log_axis("pictures in the dataset", [size for size, _ in points])
    x = Axis(x.label, x.low, x.high, tuple((size, f"{size:,}") for size, _ in points), log=True)
    y = even_axis("peak memory, MiB", 0, 1.2 * max(peak for _, peak in points))
    chart = Chart("memory", "Peak memory of training", "Flat: memory does not grow with the dataset.", x, y)
    chart.add_line(points, "c1")
    for size, peak in points:
        chart.add_dot((size, peak), "c1", f"{size:,} pictures: {peak:.0f} MiB")
    write_svg(chart, IMAGES / "memory.svg")


def few_pictures_chart() -> None:
    """Accuracy of each recipe against training images a class."""
    file = HERE / "results" / "runs" / "few_pictures.jsonl"
    if not file.is_file():
        return
    accuracies: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in file.read_text(encoding="utf-8").splitlines():
        kept = json.loads(line)
        recipe, size, _ = kept["run"].split("-")
        accuracies[recipe][int(size)].append(kept["result"]["accuracy"])
    sizes = sorted(accuracies["auto"])
    lowest = min(min(values) for by_size in accuracies.values() for values in by_size.values())
    x = log_axis("training pictures a class", sizes)
    x = Axis(x.label, x.low, x.high, tuple((size, str(size)) for size in sizes), log=True)
    y = even_axis("test accuracy", lowest - 0.02, 1.0, percent=True)
    summary = "The mean of three draws; upright lines go from the least to the most. Higher is better."
    chart = Chart("few", "Accuracy from few pictures", summary, x, y)
    for place, (recipe, marker) in enumerate(RECIPES.items()):
        beside, colour = 10 ** (0.02 * (place - 1.5)), COLOURS[place]
        means = [(size * beside, statistics.mean(accuracies[recipe][size])) for size in sizes]
        chart.add_line(means, colour)
        for size, (at, mean) in zip(sizes, means, strict=True):
            least, most = min(accuracies[recipe][size]), max(accuracies[recipe][size])
            chart.add_error_bar(at, least, most, colour)
            tooltip = f"{recipe}, {size} pictures a class: {mean:.1%}, {least:.1%} to {most:.1%}"
            chart.add_dot((at, mean), colour, tooltip, marker=marker)
        chart.keys.append(Key(recipe, colour, marker=marker))
    write_svg(chart, IMAGES / "few_pictures.svg")


if __name__ == "__main__":
    speed_chart()
    memory_chart()
    few_pictures_chart()
