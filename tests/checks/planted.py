"""Images with blobs of colour, datasets of them, and what the checks find in them."""

from pathlib import Path

import numpy as np
from PIL import Image

from relish.checks.images import ImageSet
from relish.checks.run_checks import brief_findings
from relish.data.dataset import Dataset, Finding
from relish.data.sources import find_dataset
from relish.data.survey import FACTS, survey


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Blobs of colour with grain: its hash and its detail are those of a photograph."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8))


def brief(root: Path) -> tuple[Finding, ...]:
    found = find_dataset(root, learnable=False)
    return brief_findings(found, survey(found, learnable=False))


def of_kind(findings: tuple[Finding, ...] | list[Finding], kind: str) -> list[Finding]:
    return [finding for finding in findings if finding.kind == kind]


def image_set_of(counts: dict[str, dict[str, int]]) -> ImageSet:
    """So many images of each class in each split, without files."""
    classes = tuple(sorted({name for by_class in counts.values() for name in by_class}))
    labels, splits = [], []
    for number, by_class in enumerate(counts.values()):
        for name, count in by_class.items():
            labels += [classes.index(name)] * count
            splits += [number] * count
    names = tuple(f"{i:06}.png" for i in range(len(labels)))
    return ImageSet(
        dataset=Dataset("pets", "pets", Path("/pets"), classes, {}),
        paths=tuple(Path("/pets") / name for name in names),
        names=names,
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(splits, dtype=np.int64),
        split_names=tuple(counts),
        sha256=tuple(f"{i:064x}" for i in range(len(labels))),
        facts=np.zeros(len(labels), dtype=FACTS),
    )
