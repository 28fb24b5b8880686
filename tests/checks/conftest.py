"""The dataset that faults are planted in."""

from pathlib import Path

import pytest

from tests.checks.planted import scene


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits of two classes, 24 and 8 pictures a class, no two alike."""
    root, seed = tmp_path / "pets", 0
    for split, count in (("train", 24), ("test", 8)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                seed += 1
                scene(seed).save(root / split / name / f"{number:02}.png")
    return root
