"""Every picture is read before anything is learned: what cannot be opened is named, and what was seen is remembered."""

import multiprocessing
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relish.core import cache
from relish.core.errors import DataError
from relish.core.io import sha256_of_file
from relish.core.progress import Bar, Progress
from relish.core.workers import Workers
from relish.data import image as pictures_module
from relish.data import survey as survey_module
from relish.data.folder import index_folder
from relish.data.image_files import IMAGE_SUFFIXES
from relish.data.split import with_validation
from relish.data.survey import survey
from tests.conftest import unpacked_case

LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Just written files count as settled; one test looks at those that are not."""
    monkeypatch.setattr(survey_module, "_SETTLED_NS", 0)


@pytest.fixture
def root(tmp_path):
    """Two splits of two classes, three pictures each, no two alike."""
    root = tmp_path / "pets"
    for seed, name in enumerate(f"{s}/{c}/{n}.png" for s in ("train", "test") for c in ("cat", "dog") for n in "123"):
        draw(root / name, seed)
    return root


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)


def spoil(path, content=b"hello"):
    path.write_bytes(content)


def index(root):
    return index_folder(root, name="pets", source=str(root))


@pytest.fixture
def decoded(monkeypatch):
    """The names of the pictures that were decoded and not remembered."""
    names, real = [], survey_module.open_image

    def watched(source, *, name, **more):
        names.append(Path(name).name)
        return real(source, name=name, **more)

    monkeypatch.setattr(survey_module, "open_image", watched)
    return names


# ---- what it finds --------------------------------------------------------------------------------------------------


def test_good_pictures_leave_the_dataset_as_it_was(root):
    dataset = index(root)
    found = survey(dataset)
    assert found.dataset is dataset
    assert found.unreadable == ()
    assert found.sha256 == {p: sha256_of_file(p) for s in dataset.splits.values() for p in s.paths}


def test_readers_find_what_threads_find(root, tmp_path, monkeypatch):
    """Also of pictures deeper than 8 bits, and of those that were looked over before."""
    spoil(root / "train/cat/2.png")
    Image.fromarray(np.arange(0, 6400, 100, dtype=np.uint16).reshape(8, 8)).save(root / "train/cat/3.png")
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "threads"))
    before = survey(index(root))
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "readers"))
    workers = Workers(2)
    for _ in range(2):
        found = survey(index(root), workers=workers)
        assert (found.unreadable, found.sha256, found.facts) == (before.unreadable, before.sha256, before.facts)
        assert (found.used, found.value_range, found.fingerprint) == (
            before.used, before.value_range, before.fingerprint,
        )  # fmt: skip


def test_a_picture_that_cannot_be_opened_is_left_out_named_and_counted(root):
    spoil(root / "train/cat/2.png")
    spoil(root / "test/dog/1.png", (root / "test/dog/1.png").read_bytes()[:300])
    found = survey(index(root))
    assert found.unreadable == (
        ("train/cat/2.png", "not a picture: text file"),
        ("test/dog/1.png", "cut short: the end of the file is missing"),
    )
    assert found.dataset.warnings == (
        "2 of 12 pictures cannot be opened: train/cat/2.png (not a picture: text file), "
        "test/dog/1.png (cut short: the end of the file is missing): left out.",
    )
    left = {found.dataset.label(p) for s in found.dataset.splits.values() for p in s.paths}
    assert len(left) == len(found.sha256) == 10
    assert not left & {name for name, _ in found.unreadable}


def test_an_empty_file_is_a_picture_that_cannot_be_opened_whatever_format_it_is_named_after(root):
    names = [f"train/cat/none{ending}" for ending in sorted(IMAGE_SUFFIXES | {".HEIC"})]
    for name in names:
        spoil(root / name, b"")
    assert dict(survey(index(root)).unreadable) == dict.fromkeys(names, "not a picture: empty file")


@pytest.mark.parametrize(
    ("case", "data", "count"),
    [
        ("02-png-large-text", "data", 19),
        ("03-ppm-pgm", "data", 12),
        *(("04-no-extension", data, 12) for data in ("data", "data2", "data3")),
    ],
)
def test_the_pictures_of_public_reports_are_all_read(shared, tmp_path, case, data, count):
    found = survey(index(unpacked_case(shared, case, tmp_path) / case / data))
    assert (found.dataset.classes, len(found.dataset)) == (("hotdog", "not-hotdog"), count)
    assert found.dataset.warnings == ()


def test_what_is_left_keeps_its_labels_and_its_order(root):
    before = index(root)
    spoil(root / "train/cat/1.png")
    after = survey(before).dataset
    kept = list(after.splits["train"].paths)
    assert kept == list(before.splits["train"].paths[1:])
    assert all(after.classes[i] == p.parent.name for p, i in zip(kept, after.splits["train"].labels, strict=True))


def test_strict_refuses_instead_and_names_the_first_few(root):
    for name in ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/dog/1.png"):
        spoil(root / name)
    with pytest.raises(DataError, match=r"4 of 12 pictures cannot be opened: train/cat/1.png .* and 1 more"):
        survey(index(root), strict=True)


def test_a_class_that_loses_all_its_training_pictures_is_refused(root):
    for number in "123":
        spoil(root / f"train/dog/{number}.png")
    with pytest.raises(DataError, match=r'no picture that train has of class "dog" \(3\) can be opened'):
        survey(index(root))


def test_a_class_that_loses_its_test_pictures_is_left_out_with_the_warning(root):
    for number in "123":
        spoil(root / f"test/dog/{number}.png")
    assert len(survey(index(root)).dataset.splits["test"]) == 3


def test_a_split_that_loses_everything_is_refused(root):
    for path in (root / "test").rglob("*.png"):
        spoil(path)
    with pytest.raises(DataError, match="test has"):
        survey(index(root))


def test_a_class_lost_before_the_split_is_made_is_refused_then_with_the_reason(root):
    for number in "123":
        spoil(root / f"train/dog/{number}.png")
    with pytest.raises(DataError, match=r'class "dog" has no pictures(.|\n)*not a picture: text file'):
        with_validation(survey(index(root / "train")).dataset, 0.3, 0)


def test_a_file_one_may_not_read_counts_and_is_asked_again_next_time(root, monkeypatch):
    real = Path.read_bytes

    def guarded(path):
        if path.parts[-3:] == ("train", "cat", "1.png"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:  # the tests may run as root, who may read everything
        patch.setattr(Path, "read_bytes", guarded)
        assert survey(index(root)).unreadable == (("train/cat/1.png", "cannot be read (permission denied)"),)
    assert survey(index(root)).unreadable == ()


def test_a_file_that_vanished_since_it_was_listed_is_named(root):
    dataset = index(root)
    (root / "train/cat/1.png").unlink()
    assert survey(dataset).unreadable == (("train/cat/1.png", "cannot be read (no such file or directory)"),)


def test_a_file_too_large_for_any_picture_is_not_read(root, monkeypatch):
    monkeypatch.setattr(survey_module, "MAX_FILE_BYTES", 2000)
    spoil(root / "train/cat/1.png", b"\xff\xd8\xff" + bytes(3000))
    ((name, reason),) = survey(index(root)).unreadable
    assert name == "train/cat/1.png"
    assert "too large a file" in reason


def test_the_bar_ends_at_the_number_of_pictures(root):
    class Counting(Progress):
        steps = 0

        def bar(self, title, total, done=0):
            counting, shown = self, Bar()
            shown.advance = lambda steps=1, words="": setattr(counting, "steps", counting.steps + steps)
            self.total = total

            from contextlib import nullcontext

            return nullcontext(shown)

    progress = Counting()
    survey(index(root), progress=progress)
    assert progress.steps == progress.total == 12


# ---- the fingerprint ------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_the_same_wherever_the_dataset_lies(root, tmp_path):
    before = survey(index(root)).fingerprint
    shutil.copytree(root, tmp_path / "wrapped/elsewhere/pets")
    assert survey(index(tmp_path / "wrapped")).fingerprint == before


@pytest.mark.parametrize("change", ["pixels", "name", "class", "split", "fewer"])
def test_the_fingerprint_tells_every_change(root, change):
    before = survey(index(root)).fingerprint
    path = root / "train/cat/1.png"
    if change == "pixels":
        draw(path, seed=99)
    elif change == "fewer":
        path.unlink()
    else:
        path.rename(root / {"name": "train/cat/4.png", "class": "train/dog/4.png", "split": "test/cat/4.png"}[change])
    assert survey(index(root)).fingerprint != before


# ---- the memory -----------------------------------------------------------------------------------------------------


def test_what_was_seen_is_not_decoded_again(root, decoded):
    spoil(root / "train/cat/1.png")
    first = survey(index(root))
    assert len(decoded) == 12
    second = survey(index(root))
    assert len(decoded) == 12
    assert second.unreadable == first.unreadable
    assert second.sha256 == first.sha256
    assert second.fingerprint == first.fingerprint


def test_only_what_changed_is_decoded_again(root, decoded):
    survey(index(root))
    decoded.clear()
    draw(root / "train/cat/3.png", seed=50)
    os.utime(root / "test/dog/2.png", (LONG_AGO, LONG_AGO))
    survey(index(root))
    assert sorted(decoded) == ["2.png", "3.png"]


def test_other_bytes_of_the_same_size_and_time_are_noticed(root, decoded):
    """Unpacking and copying set the time of a file at will."""
    path = root / "train/cat/1.png"
    os.utime(path, (LONG_AGO, LONG_AGO))
    survey(index(root))
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert survey(index(root)).unreadable == (("train/cat/1.png", "not a picture: nothing but zero bytes"),)


def test_a_file_written_a_moment_ago_is_not_remembered(root, decoded, monkeypatch):
    monkeypatch.setattr(survey_module, "_SETTLED_NS", 10**12)
    survey(index(root))
    survey(index(root))
    assert len(decoded) == 24


@pytest.mark.parametrize(
    "content", [b"", b"not a database at all, but long enough to look at" * 9, b"SQLite format 3\0" + bytes(900)]
)
def test_a_damaged_memory_is_built_anew(root, home, decoded, content):
    home.mkdir()
    (home / "cache.sqlite3").write_bytes(content)
    assert survey(index(root)).unreadable == ()
    decoded.clear()
    survey(index(root))
    assert not decoded


def test_a_memory_damaged_in_the_middle_is_no_error(root, home):
    expected = survey(index(root)).fingerprint
    file = home / "cache.sqlite3"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xab" * len(content[4096:])
    file.write_bytes(content)
    assert survey(index(root)).fingerprint == expected
    assert survey(index(root)).fingerprint == expected


def test_a_memory_that_cannot_be_used_is_gone_without(root, home, decoded):
    home.mkdir()
    (home / "cache.sqlite3").mkdir()
    survey(index(root))
    home_file = home.with_name("file")
    home_file.touch()
    os.environ["RELISH_HOME"] = str(home_file)  # the fixture sets it back
    survey(index(root))
    assert len(decoded) == 24


def test_a_memory_that_another_process_holds_is_gone_without(root, home, monkeypatch):
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.05)
    survey(index(root))
    with sqlite3.connect(home / "cache.sqlite3", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert len(survey(index(root)).sha256) == 12
        other.execute("ROLLBACK")
    other.close()


def survey_in_a_process(root, results):
    survey_module._SETTLED_NS = 0
    results.put(survey(index(root)).fingerprint)


def test_two_processes_may_survey_at_once(root, home):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    both = [context.Process(target=survey_in_a_process, args=(root, results)) for _ in range(2)]
    for process in both:
        process.start()
    prints = {results.get(timeout=300) for _ in both}
    for process in both:
        process.join()
    results.close()
    results.join_thread()
    assert prints == {survey(index(root)).fingerprint}


def test_a_new_rule_for_opening_pictures_asks_again(root, decoded, monkeypatch):
    survey(index(root))
    monkeypatch.setattr(survey_module, "_RULES", "2/other")
    survey(index(root))
    assert len(decoded) == 24


def test_a_lack_of_memory_is_no_lasting_fault_of_a_picture(root, monkeypatch):
    def full(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(pictures_module, "_from_file", full)
        with pytest.raises(DataError, match="not enough memory"):
            survey(index(root))
    assert survey(index(root)).unreadable == ()


def test_a_picture_that_memory_lacked_for_beside_others_is_read_again_alone(root, monkeypatch):
    real, tried = pictures_module._from_file, []

    def short(*args):
        tried.append(1)
        if len(tried) <= 2:
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(pictures_module, "_from_file", short)
    dataset = index(root)
    found = survey(dataset)
    assert found.unreadable == ()
    assert found.dataset is dataset
    assert len(tried) == 12 + 2
