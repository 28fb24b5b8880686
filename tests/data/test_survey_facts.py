"""The facts that the survey's decode gives: equal to independent implementations, remembered with the outcome."""

from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy import ndimage

from relish.data import survey as survey_module
from relish.data.folder import index_folder
from relish.data.image import mode_and_depth, open_image
from relish.data.survey import FACTS, facts_of, laplacian_variance, pixel_digest, shrunk_grey, survey


def scene(seed: int = 0, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Soft blobs of colour: a picture with low frequencies, as photographs have."""
    grid = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def row(picture: Image.Image, mode: str = "RGB") -> np.void:
    return np.frombuffer(facts_of(picture, mode), dtype=FACTS)[0]


def bits(code: int) -> np.ndarray:
    return np.unpackbits(np.array([code], dtype=">u8").view(np.uint8)).reshape(8, 8).astype(bool)


def test_size_and_mode_are_those_of_the_picture():
    found = row(scene(size=(90, 70)), "CMYK")
    assert (found["width"], found["height"], found["mode"]) == (90, 70, b"CMYK")


def test_a_row_is_as_small_as_the_header_says():
    assert FACTS.itemsize == len(facts_of(scene(), "RGB")) == 66


def test_hashes_are_imagehash_of_the_whole_picture():
    picture = scene(3, (32, 32))
    found = row(picture)
    np.testing.assert_array_equal(bits(found["phash"]), imagehash.phash(picture).hash)
    np.testing.assert_array_equal(bits(found["dhash"]), imagehash.dhash(picture).hash)


@pytest.mark.parametrize("seed", range(5))
def test_the_mirrored_hash_is_the_hash_of_the_mirror_image(seed):
    picture = scene(seed)
    mirror = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    apart = np.count_nonzero(bits(row(picture)["mirrored"]) != bits(row(mirror)["phash"]))
    assert apart <= 2


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_saved_smaller_keeps_its_hash_and_another_does_not(seed, tmp_path):
    picture = scene(seed)
    picture.resize((80, 60)).save(tmp_path / "small.jpg", quality=50)
    small, other = row(open_image(tmp_path / "small.jpg")), row(scene(seed + 100))
    assert np.count_nonzero(bits(row(picture)["phash"]) != bits(small["phash"])) <= 4
    assert np.count_nonzero(bits(row(picture)["phash"]) != bits(other["phash"])) > 12


def test_the_digest_is_of_pixels_and_not_of_files(tmp_path):
    picture = scene()
    picture.save(tmp_path / "a.png", compress_level=1)
    picture.save(tmp_path / "b.bmp")
    one, two = (pixel_digest(open_image(tmp_path / name)) for name in ("a.png", "b.bmp"))
    assert one == two
    changed = picture.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    assert pixel_digest(changed) != one


def test_the_same_bytes_in_another_shape_are_another_picture():
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8)
    wide, high = (Image.fromarray(pixels.reshape(shape)) for shape in ((4, 6, 3), (6, 4, 3)))
    assert pixel_digest(wide) != pixel_digest(high)


def test_a_large_picture_is_hashed_strip_by_strip_to_the_same_digest(monkeypatch):
    from relish.data import survey as facts

    whole = pixel_digest(scene(1, (300, 200)))
    monkeypatch.setattr(facts, "_STRIP", 1000)
    assert pixel_digest(scene(1, (300, 200))) == whole


@given(st.integers(3, 40), st.integers(3, 40), st.integers(0, 2**32 - 1))
def test_sharpness_is_the_variance_of_scipys_laplacian(height, width, seed):
    levels = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(np.float32)
    expected = ndimage.laplace(levels.astype(np.float64))[1:-1, 1:-1].var()
    assert laplacian_variance(levels) == pytest.approx(expected, rel=1e-4, abs=1e-2)


def test_a_line_of_pixels_has_no_sharpness():
    assert row(Image.new("RGB", (50, 2), "red"))["sharpness"] == 0


def test_light_is_that_of_the_grey_picture():
    picture = scene(2, (200, 100))
    grey = np.asarray(picture.convert("L"), dtype=float)
    assert row(picture)["brightness"] == pytest.approx(grey.mean(), abs=1e-3)
    assert row(picture)["contrast"] == pytest.approx(grey.std(), abs=1e-3)


def test_blur_lowers_sharpness_and_nothing_else_much():
    noisy = Image.effect_noise((240, 180), 60).convert("RGB")
    sharp, soft = row(noisy), row(noisy.filter(ImageFilter.GaussianBlur(3)))
    assert soft["sharpness"] < sharp["sharpness"] / 20
    assert soft["brightness"] == pytest.approx(float(sharp["brightness"]), abs=2)


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(1, 300))
def test_shrinking_ends_at_the_longest_side_and_never_enlarges(width, height, longest):
    shrunk = shrunk_grey(Image.new("RGB", (width, height)), longest)
    assert max(shrunk.size) <= max(longest, 1)
    assert shrunk.width <= width
    assert shrunk.height <= height


@pytest.mark.parametrize(("mode", "name"), [("L", "a.png"), ("P", "a.gif"), ("CMYK", "a.jpg"), ("RGBA", "a.png")])
def test_the_mode_is_that_of_the_file(mode, name, tmp_path):
    scene().convert(mode).save(tmp_path / name)
    assert mode_and_depth((tmp_path / name).read_bytes()) == (mode, False)


# ---- through the survey ---------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(survey_module, "_SETTLED_NS", 0)
    for number in range(6):
        path = tmp_path / "pets" / ("cat" if number < 3 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(number).save(path)
    return tmp_path / "pets"


def index(root: Path):
    return index_folder(root, name="pets", source=str(root))


def test_a_survey_gives_the_facts_of_each_picture_and_remembers_them(root, monkeypatch):
    first = survey(index(root))
    paths = list(first.facts)
    assert first.facts == {path: facts_of(open_image(path), "RGB") for path in paths}
    monkeypatch.setattr(survey_module, "open_image", None)  # whoever decodes again fails
    again = survey(index(root))
    assert again.facts == first.facts
    assert again.facts_of(paths[::-1])["phash"].tolist() == first.facts_of(paths)["phash"].tolist()[::-1]


def test_a_picture_that_cannot_be_opened_has_no_facts(root):
    (root / "cat/0.png").write_bytes(b"no picture")
    looked = survey(index(root))
    assert len(looked.facts) == len(looked.sha256) == 5


def test_a_lack_of_memory_for_the_facts_is_no_lasting_fault(root, monkeypatch):
    def full(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(survey_module, "facts_of", full)
        looked = survey(index(root), learnable=False)
    assert {reason for _, reason in looked.unreadable} == {"not enough memory to look at it"}
    assert survey(index(root)).unreadable == ()
