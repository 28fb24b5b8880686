"""How far the figure of nested cross-validation lies from the truth, and how often its interval covers it.

    python benchmarks/nested.py DATA WORK [--sizes 10,20,40] [--draws 20] [--folds 5] [--pool 1000] [--views 1]

So many pictures of each class are drawn, again and again; a probe is chosen and trained on all of them, as `fit` does
with few pictures, and judged by nested cross-validation, by plain cross-validation, whose folds chose framing and
strength too, and on all the other pictures, which is taken for the truth. Beside it a probe of four fifths of them,
judged on the fifth that was held back, against its own truth. Draws that are finished are kept in WORK, features in
RELISH_HOME: those of a run of `relish fit DATA` with the same image size are used again. Writes `results/nested.json`.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from measuring import finish
from relish.core.context import Context, RunContext
from relish.core.progress import Screen
from relish.core.run_folder import RunFolder
from relish.core.runtime import processor_name, rng_for
from relish.data.dataset import Split
from relish.data.loader import View
from relish.data.sources import find_dataset
from relish.data.split import stratified_sample
from relish.data.survey import Survey, survey
from relish.data.transforms import book_preprocessing
from relish.evaluation.features import Backbone, features_of
from relish.evaluation.metrics import Proportion
from relish.models.source import load_source
from relish.models.target import TargetModel, make_target
from relish.training import probe_stage as stage
from relish.training.budget import ProbePlan
from relish.training.measure import Budget
from relish.training.recipe import named_recipe
from relish.training.train import TrainingSetup

WAYS = {"nested": "truth", "plain": "truth", "a fifth held back": "truth of four fifths"}
"""Each way to a figure, and whose accuracy it should come to."""


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("data")
    ask.add_argument("work", type=Path)
    ask.add_argument("--sizes", default="10,20,40")
    ask.add_argument("--draws", type=int, default=20, help="0: those that are kept, and no others")
    ask.add_argument("--image-size", type=int, default=224)
    ask.add_argument("--folds", type=int, default=5, help="outer ones")
    ask.add_argument("--pool", type=int, default=1000, help="training pictures to draw from and to judge by")
    ask.add_argument("--views", type=int, default=1)
    asked = ask.parse_args()
    stage.OUTER_FOLDS = asked.folds
    looked = survey(find_dataset(asked.data), progress=Screen())
    train = looked.dataset.splits["train"]
    pool = train.take(stratified_sample(train.labels, [looked.sha256[p] for p in train.paths], asked.pool, 0))
    target = make_target(load_source(None, None), looked.dataset.classes, seed=0)
    context, rows, table = Context.on("cpu", Screen()), [], [["pictures a class", "way", "figure", "truth", *HEAD]]
    for size in (int(word) for word in asked.sizes.split(",")):
        kept = asked.work / f"{looked.dataset.name}-{asked.image_size}-{asked.folds}-{asked.views}-{size}.jsonl"
        for draw in range(len(kept.read_text().splitlines()) if kept.is_file() else 0, asked.draws):
            run = context.in_run(RunFolder(asked.work), draw)
            plan = ProbePlan(
                image_size=asked.image_size, images=len(pool), framings=True, views=asked.views, seconds=0, forward=0
            )  # fmt: skip
            one = drawn(run, looked, target, pool, size, plan)
            print(size, draw, json.dumps(one), flush=True)
            with kept.open("a") as lines:
                lines.write(json.dumps(one) + "\n")
        found = [json.loads(line) for line in kept.read_text().splitlines()[: asked.draws or None]]
        for way in WAYS:
            rows.append({"size": size, "way": way, **summary(found, way)})
            table.append([str(size), way, *cells(rows[-1])])
    command = "python benchmarks/nested.py DATA WORK" + (f" --folds {asked.folds}" if asked.folds != 5 else "")
    name = "nested" if asked.folds == 5 else f"nested_{asked.folds}"
    finish(name, command, rows, table, processor=processor_name(), of=f"{asked.draws or 'so many'} draws")


HEAD = ("mean error, in points", "error of one draw", "intervals that cover", "their mean width")


def drawn(
    run: RunContext, looked: Survey, target: TargetModel, pool: Split, size: int, plan: ProbePlan
) -> dict[str, list[int]]:
    """Correct and count of one draw, by each way and in truth."""
    rng, chosen = rng_for(run.seed, "nested"), []
    for label in range(len(looked.dataset.classes)):
        chosen += rng.permutation(np.flatnonzero(pool.labels == label))[:size].tolist()
    learned = pool.take(sorted(chosen))
    others = pool.take(np.setdiff1d(np.arange(len(pool)), chosen))
    every, found, held = judged(run, looked, target, learned, plan, nested=True)
    back = np.zeros(len(learned), dtype=bool)
    for label in range(len(looked.dataset.classes)):
        back[rng.permutation(np.flatnonzero(learned.labels == label))[: size // 5]] = True
    small, fewer, _ = judged(run, looked, target, learned.take(np.flatnonzero(~back)), plan, nested=False)
    whole = right(run, looked, target, small, fewer, learned.take(np.flatnonzero(back)))
    return {
        "nested": pair(held.accuracy), "plain": pair(found.accuracy), "a fifth held back": whole,
        "truth": right(run, looked, target, every, found, others),
        "truth of four fifths": right(run, looked, target, small, fewer, others),
    }  # fmt: skip


def judged(run: RunContext, looked: Survey, target: TargetModel, train: Split, plan: ProbePlan, nested: bool):
    """What `probe_stage` finds with these images."""
    data = target.source.data_config
    book = book_preprocessing(plan.image_size, data.mean, data.std)
    facts = looked.facts_of(train.paths)
    sizes = zip(facts["width"].tolist(), facts["height"].tolist(), strict=True)
    setup = TrainingSetup(
        target=target, recipe=named_recipe("probe"), preprocessing=book,
        train=train, validation=train.take([]), sha256=looked.sha256, units=looked.sha256, nested=nested,
        sizes=dict(zip(train.paths, sizes, strict=True)),
    )  # fmt: skip
    return stage.probe_stage(run, setup, plan, Budget())


def right(run: RunContext, looked: Survey, target: TargetModel, setup: TrainingSetup, found, split: Split) -> list[int]:
    """How many of some images the chosen probe has right, and of how many."""
    backbone = Backbone.of(target, run.device)
    (features,) = features_of(backbone, split, [View(setup.preprocessing)], looked.sha256, run)
    return [int((found.fit().logits(features).argmax(1) == split.labels).sum()), len(split)]


def pair(one: Proportion) -> list[int]:
    return [one.correct, one.count]


def summary(found: list[dict[str, list[int]]], way: str) -> dict[str, float]:
    """Errors in points against the truth, and how often Wilson's interval covers it."""
    figures = [Proportion(*one[way]) for one in found]
    truths = np.array([Proportion(*one[WAYS[way]]).value for one in found])
    errors = 100 * (np.array([one.value for one in figures]) - truths)
    covering = [low <= truth <= high for (low, high), truth in zip((f.interval for f in figures), truths, strict=True)]
    return {
        "figure": float(np.mean([one.value for one in figures])), "truth": float(truths.mean()),
        "error": float(errors.mean()), "standard_error": float(errors.std(ddof=1) / len(errors) ** 0.5),
        "spread": float(errors.std(ddof=1)), "covered": int(sum(covering)), "draws": len(found),
        "width": float(np.mean([100 * (f.interval[1] - f.interval[0]) for f in figures])),
    }  # fmt: skip


def cells(row: dict[str, float]) -> list[str]:
    return [
        f"{row['figure']:.3f}", f"{row['truth']:.3f}", f"{row['error']:+.1f} ± {row['standard_error']:.1f}",
        f"{row['spread']:.1f}", f"{row['covered']} of {row['draws']}", f"{row['width']:.0f} points",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
