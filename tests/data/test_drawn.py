"""Laws of the drawn sample pictures: the same from a seed, varied, whole files, and no class told by its colours."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.core.errors import WriteFailed
from relish.core.progress import Bar, Progress
from relish.core.runtime import rng_for
from relish.data.drawn.datasets import HOTDOG, OTHERS, SUBJECTS, compose, draw_hotdogs


@pytest.fixture(scope="module")
def hotdogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_hotdogs(tmp_path_factory.mktemp("drawn") / "hotdogs", train=30, test=15, seed=0)


def contents(root: Path) -> dict[str, str]:
    return {str(file.relative_to(root)): sha256(file.read_bytes()).hexdigest() for file in root.rglob("*.jpg")}


def test_each_class_of_each_split_has_as_many_pictures_as_asked_for(hotdogs: Path) -> None:
    counts = {
        (folder.parent.name, folder.name): len(list(folder.iterdir()))
        for split in hotdogs.iterdir()
        for folder in split.iterdir()
    }
    assert counts == {
        ("train", "hotdog"): 30,
        ("train", "not-hotdog"): 30,
        ("test", "hotdog"): 15,
        ("test", "not-hotdog"): 15,
    }


def test_the_same_seed_draws_the_same_bytes_and_fewer_pictures_are_the_first_ones(
    hotdogs: Path, tmp_path: Path
) -> None:
    fewer = contents(draw_hotdogs(tmp_path / "again", train=2, test=1, seed=0))
    more = contents(hotdogs)
    assert len(fewer) == 6
    assert all(more[name] == digest for name, digest in fewer.items())


def test_no_picture_is_drawn_twice_within_a_seed_or_by_another_seed(hotdogs: Path, tmp_path: Path) -> None:
    other = contents(draw_hotdogs(tmp_path / "other", train=2, test=1, seed=1))
    digests = [*contents(hotdogs).values(), *other.values()]
    assert len(set(digests)) == len(digests)


def test_every_file_is_a_whole_rgb_jpeg_that_is_neither_black_nor_flat(hotdogs: Path) -> None:
    for file in hotdogs.rglob("*.jpg"):
        with Image.open(file) as picture:
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            pixels = np.asarray(picture)
        assert pixels.std() > 12, file
        assert 25 < pixels.mean() < 235, file


def test_sizes_and_shapes_vary_from_portrait_to_panorama(hotdogs: Path) -> None:
    sizes = [_size(file) for file in hotdogs.rglob("*.jpg")]
    ratios = np.asarray([width / height for width, height in sizes])
    shorts = np.asarray([min(size) for size in sizes])
    assert len(set(sizes)) > 0.8 * len(sizes)
    assert ratios.min() < 0.8
    assert ratios.max() > 1.7
    assert shorts.min() >= 120
    assert shorts.max() <= 400
    assert shorts.max() > 1.8 * shorts.min()


def _size(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def test_colours_alone_do_not_tell_a_hot_dog(hotdogs: Path) -> None:
    def histograms(split: str) -> tuple[np.ndarray, np.ndarray]:
        files = sorted((hotdogs / split).rglob("*.jpg"))
        signs = [1.0 if file.parent.name == "hotdog" else -1.0 for file in files]
        return np.asarray([_histogram(file) for file in files]), np.asarray(signs)

    seen, signs = histograms("train")
    ridge = np.linalg.solve(seen.T @ seen + 0.1 * np.eye(seen.shape[1]), seen.T @ signs)
    unseen, truth = histograms("test")
    # Chance is 15 of 30; 26 would come about once in 600 times if colours told three in five right.
    assert (np.sign(unseen @ ridge) == truth).sum() < 26


def _histogram(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        pixels = np.asarray(picture.resize((64, 64))).reshape(-1, 3) // 64
    counts = np.bincount(pixels @ np.asarray([16, 4, 1]), minlength=64)
    return np.sqrt(counts / counts.sum())


def test_no_other_food_is_a_hot_dog() -> None:
    assert HOTDOG not in SUBJECTS.values()
    assert set(OTHERS) == set(SUBJECTS)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(WriteFailed, match="exists already"):
        draw_hotdogs(tmp_path, train=1, test=1)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_drawing_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted(Bar):
        def advance(self, steps: int = 1, words: str = "") -> None:
            raise KeyboardInterrupt

    class Impatient(Progress):
        def bar(self, title: str, total: int, done: int = 0):  # type: ignore[no-untyped-def]
            from contextlib import nullcontext

            return nullcontext(Interrupted())

    with pytest.raises(KeyboardInterrupt):
        draw_hotdogs(tmp_path / "half", train=2, test=2, progress=Impatient())
    assert list(tmp_path.iterdir()) == []


@given(seed=st.integers(0, 2**31), name=st.sampled_from(["hotdog", *SUBJECTS]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_subject_can_be_drawn_from_any_seed(seed: int, name: str) -> None:
    subject = SUBJECTS.get(name, HOTDOG)
    picture = compose(subject, rng_for(seed, "test"))
    assert picture.mode == "RGB"
    assert 120 <= min(picture.size) <= 400
