"""`pretrain`: step 1, a source model trained from random weights on a source dataset of one's own.

In:   labelled pictures, usually many, of classes that need not be the ones wanted in the end.
Out:  a run folder; its `model.safetensors` says how to build it, so `fit --weights` needs nothing else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relish.core.progress import Progress
from relish.tasks.classifier import Classifier
from relish.tasks.fit import fit

DESIGN = "torchvision/resnet18"
"""The book's network (Dive into Deep Learning, section 14.2)."""


def pretrain(
    data: str | Path | None = None,
    *,
    source: str = DESIGN,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    val_split: float | None = None,
    workers: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Classifier:
    """Train the design `source` from random weights; arguments as in `fit`.

    Raises:
        RelishError: one of its kinds, by what is wrong.
    """
    return fit(
        data,
        source=None if resume else source,
        weights=None if resume else "none",
        recipe="pretrain",
        settings=settings,
        seed=seed,
        val_split=val_split,
        workers=workers,
        device=device,
        out=out,
        resume=resume,
        progress=progress,
    )
