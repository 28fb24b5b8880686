"""The source that `fit --source auto` takes, beside a probe of every candidate on all pictures.

    python benchmarks/source_choice.py WORK [DATA…] [--weights FILE…] [--seeds 3] [--drawn]

Each seed looks for a source, then each candidate is probed on all pictures for its test accuracy. Seconds are of the
first seed, with nothing cached; the others find its features. The source taken is exported, and a picture of the test
split timed through the file, beside what the search had measured. Writes `results/source_choice.json`.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

import relish
from many_classes import draw_dataset
from measuring import finish
from relish.core.context import Context
from relish.core.progress import Screen
from relish.core.run_folder import RunFolder
from relish.models.source import lite_of
from relish.tasks.prepare import Request
from relish.tasks.source_search import Search
from relish.tasks.sources import find_source
from relish.tasks.user_code import NOTHING
from relish.training.recipe import named_recipe
from study import read_result

RECIPE = "probe"


def searched(data: Path, candidates: list[str], seed: int, work: Path) -> dict[str, Any]:
    """What the search of one seed comes to, as `sources.json` has it."""
    file = work / f"search-{seed}.json"
    if not file.is_file():
        os.environ["RELISH_HOME"] = str(work / "home-search")
        request, search = Request(data=str(data), seed=seed), Search(candidates=candidates)
        found = find_source(Context.on("cpu", Screen()), request, named_recipe(RECIPE), NOTHING, search)
        file.write_text(json.dumps(found.record))
    kept: dict[str, Any] = json.loads(file.read_text())
    return kept


def probed(data: Path, source: str, seed: int, work: Path) -> tuple[np.ndarray, float]:
    """(N,) bool, right or not on each test picture, by a probe of one source on all pictures; and its seconds."""
    folder = RunFolder(work / f"{Path(source).stem}-{seed}")
    if not folder.finished:
        os.environ["RELISH_HOME"] = str(work / f"home-{Path(source).stem}")
        given: dict[str, Any] = {"weights": source} if Path(source).is_file() else {"source": source}
        relish.fit(data, recipe=RECIPE, seed=seed, out=folder.path, unknown="none", progress=Screen(), **given)
    result = read_result(folder)
    return result.right, result.seconds


def exported_ms(run: Path, search: dict[str, Any]) -> tuple[float, float]:
    """Milliseconds of a picture as the search measured them, and through the exported file; the median of five."""
    file = run / "model.onnx"
    if not file.is_file():
        relish.export(run, file, limit=64)
    model, rows = relish.OnnxClassifier(file), RunFolder(run).read_dataset()
    paths = [Path(rows["root"]) / row["path"] for row in rows["splits"]["test"][:128]]
    model.predict(paths[:8])
    times = []
    for _ in range(5):
        began = time.perf_counter()
        model.predict(paths)
        times.append(1000 * (time.perf_counter() - began) / len(paths))
    row = next(row for row in search["sources"] if row["name"] == search["taken"])
    return float(row["forward_ms"]), float(np.median(times))


def of_dataset(name: str, data: Path, candidates: list[str], seeds: int, work: Path) -> list[dict[str, Any]]:
    """A row for each seed."""
    rows = []
    work.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        search = searched(data, candidates, seed, work)
        found = {one: probed(data, one, seed, work) for one in candidates}
        taken, right = search["taken"], {one: right for one, (right, _) in found.items()}
        best = max(candidates, key=lambda one: right[one].mean())
        gaps = right[taken].astype(float) - right[best]
        before, after = exported_ms(work / f"{Path(taken).stem}-{seed}", search)
        rows.append({
            "data": name, "seed": seed, "taken": Path(taken).stem, "best": Path(best).stem,
            "accuracy": {Path(one).stem: float(right[one].mean()) for one in candidates},
            "difference": float(gaps.mean()), "error": float(gaps.std(ddof=1) / np.sqrt(len(gaps))),
            "search_seconds": None if seed else search["seconds"],
            "probing_seconds": None if seed else sum(seconds for _, seconds in found.values()),
            "milliseconds": before, "exported_milliseconds": after,
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("work", type=Path)
    ask.add_argument("data", type=Path, nargs="*")
    ask.add_argument("--weights", type=Path, nargs="*", default=[])
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--drawn", action="store_true", help="the 40 drawn classes too")
    asked = ask.parse_args()
    datasets = {path.stem: path.resolve() for path in asked.data}
    if asked.drawn:
        datasets["drawn"] = draw_dataset(asked.work / "shapes").resolve()
    installed = [name for name in ("embedded", "lite1", "lite2") if lite_of(name).files()]
    candidates = [*installed, *(str(path.resolve()) for path in asked.weights)]
    rows = [
        row
        for name, data in datasets.items()
        for row in of_dataset(name, data, candidates, asked.seeds, asked.work / name)
    ]
    table = [["data", "seed", *(Path(one).stem for one in candidates), "taken", "from the best", "search", "probes",
              "searched", "exported"]]  # fmt: skip
    table += [
        [row["data"], str(row["seed"]), *(f"{value:.3f}" for value in row["accuracy"].values()), row["taken"],
         f"{row['difference']:+.4f} ± {row['error']:.4f}", _seconds(row["search_seconds"]),
         _seconds(row["probing_seconds"]), f"{row['milliseconds']:.1f} ms", f"{row['exported_milliseconds']:.1f} ms"]
        for row in rows
    ]  # fmt: skip
    finish("source_choice", "python benchmarks/source_choice.py WORK DATA… --weights FILE --drawn", rows, table)


if __name__ == "__main__":
    main()
