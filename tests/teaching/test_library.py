"""A folder of images that the page shows and changes: the folder on the disk is the truth."""

import unicodedata
from pathlib import Path

import pytest

from relish.core.errors import BadInput
from relish.data.set_aside import deal, read_splits, split_file, write_splits
from relish.data.sources import find_dataset
from relish.server.uploads import Upload
from relish.teaching.library import Conflict, Library
from relish.teaching.names import safe_file
from relish.teaching.shelves import UNLABELLED
from tests.teaching.test_journal import PICTURES, added, anything, png


@pytest.fixture
def library(tmp_path: Path):
    opened = Library(tmp_path / "pets")
    yield opened
    opened.close()


def names(library: Library) -> dict[str, list[str]]:
    return {name: [image.name for image in shelf.images] for name, shelf in library.content.classes.items()}


def test_what_appears_in_the_folder_from_elsewhere_appears(library: Library):
    assert not library.look()
    (library.folder / "cat").mkdir()
    (library.folder / "cat" / "a.png").write_bytes(PICTURES[0])
    assert library.look()
    assert names(library) == {"cat": ["a.png"]}
    (library.folder / "cat" / "a.png").rename(library.folder / "cat" / "b.png")
    assert library.look()
    assert names(library) == {"cat": ["b.png"]}
    assert not library.look()


def test_an_image_that_is_there_already_is_not_added_twice(library: Library):
    added(library, "cat", 0)
    (same,) = library.add([(Upload("other name.png", PICTURES[0]), "dog")], anything)
    assert (same.status, same.image and same.image.path) == ("there", "cat/0.png")
    assert names(library) == {"cat": ["0.png"]}
    twice = library.add([(Upload(f"{n}.png", PICTURES[1]), "cat") for n in range(2)], anything)
    assert [one.status for one in twice] == ["added", "there"]


def test_an_image_that_is_there_already_is_not_added_twice_after_a_restart(library: Library):
    added(library, "cat", 0)
    library.close()
    again = Library(library.folder)  # which has read none of its images yet
    (same,) = again.add([(Upload("0.png", PICTURES[0]), "cat")], anything)
    assert (same.status, names(again)) == ("there", {"cat": ["0.png"]})
    again.close()


def test_a_removed_image_that_is_dropped_again_comes_back(library: Library):
    (there,) = added(library, "cat", 0)
    library.remove([there])
    assert [image.name for image in library.content.removed.images] == ["0.png"]
    added(library, "dog", 0)
    assert (names(library), library.content.removed.images) == ({"cat": [], "dog": ["0.png"]}, ())


def test_removed_images_go_back_to_where_they_were(library: Library):
    ids = [*added(library, "cat", 0), *added(library, UNLABELLED, 1)]
    library.remove(ids)
    assert not library.content.unlabelled.images
    library.restore([image.id for image in library.content.removed.images])
    assert (names(library), [i.name for i in library.content.unlabelled.images]) == ({"cat": ["0.png"]}, ["1.png"])


def test_bad_files_are_named_and_left_out(library: Library):
    cut = png(99)[:60]
    sent = [("text.png", b"not a picture"), ("cut.png", cut), ("wide.png", PICTURES[0])]
    found = library.add(
        [(Upload(name, content), "cat") for name, content in sent], lambda size: "too wide" if size[0] == 8 else ""
    )
    assert [one.status for one in found] == ["refused"] * 3
    assert all(one.reason for one in found)
    assert not list(library.folder.rglob("*.png"))


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\cats\\a.jpg", "a.jpg"),
        ("con.png", "con_.png"),
        ("a\nb\x1b[31m.png", "a b[31m.png"),
        (".hidden.png", "hidden.png"),
        ("...", "image.jpg"),
        ("x" * 400 + ".png", "x" * 120 + ".png"),
        ("picture", "picture.jpg"),
        ("a.php", "a.php.jpg"),
        ("cafe\u0301\u202egnp.png", "café" + "gnp.png"),
    ],
)
def test_names_of_files_are_made_safe(sent: str, kept: str):
    assert unicodedata.normalize("NFC", safe_file(sent, ".jpg")) == kept


@pytest.mark.parametrize("name", ["", "..", "/", "\0", "thumbs.db", "lost+found", " . "])
def test_some_names_cannot_be_a_class(name: str, library: Library):
    with pytest.raises(BadInput):
        library.create(name)
    assert not names(library)


def test_names_of_classes_are_made_safe(library: Library):
    made = ["../up", ".relish", "aux", "CAFE\u0301", "a/b", "unlabelled", "train"]
    assert [library.create(name) for name in made] == ["-up", "relish", "aux_", "CAFÉ", "a-b", "unlabelled", "train"]
    assert sorted(path.name for path in library.folder.parent.iterdir()) == ["pets"]
    with pytest.raises(Conflict, match="already"):
        library.create("café")


def test_the_second_of_two_who_rename_one_class_is_told(library: Library):
    added(library, "cat", 0)
    library.rename("cat", "lion")
    with pytest.raises(Conflict, match='no class "cat" any more'):
        library.rename("cat", "tiger")
    assert names(library) == {"lion": ["0.png"]}


def test_a_class_may_be_renamed_to_other_letters_of_its_name(library: Library):
    added(library, "cat", 0)
    assert library.rename("cat", "Cat") == "Cat"
    library.undo()
    assert names(library) == {"cat": ["0.png"]}


def test_a_folder_is_open_in_one_process(library: Library):
    with pytest.raises(BadInput, match="another relish teach"):
        Library(library.folder)


def test_a_folder_of_splits_is_refused_with_the_one_to_open(tmp_path: Path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "a.png").write_bytes(PICTURES[0])
    with pytest.raises(BadInput, match=r"further down\.\n.*/train"):
        Library(tmp_path)
    assert not (tmp_path / ".relish").exists()


def test_other_commands_take_neither_removed_nor_unlabelled_images_for_a_class(library: Library):
    added(library, "cat", 0, 1, 2)
    (gone,) = added(library, "dog", 3, 4, 5)[:1]
    added(library, UNLABELLED, 6)
    library.remove([gone])
    assert find_dataset(str(library.folder)).classes == ("cat", "dog")
    assert len(find_dataset(str(library.folder))) == 5


# ---- images set aside -----------------------------------------------------------------------------------------------


def hashes(count: int, start: int = 0) -> list[str]:
    return [f"{(start + number) * 7919 % 10_007:064x}" for number in range(count)]


def test_a_fifth_of_each_class_is_set_aside_and_stays_so_as_images_arrive():
    first = hashes(20)
    dealt = deal(first, ["cat"] * 10 + ["dog"] * 10, first, {})
    assert [sum(dealt[one] == "test" for one in part) for part in (first[:10], first[10:])] == [2, 2]
    more = [*first, *hashes(30, 20)]
    again = deal(more, ["cat"] * 10 + ["dog"] * 40, more, dealt)
    assert dealt.items() <= again.items()
    assert sum(again[one] == "test" for one in more[10:]) == 8


def test_copies_and_series_are_on_one_side_and_what_was_on_both_is_learned_from():
    some = hashes(40)
    dealt = deal(some, ["cat"] * 40, [str(number // 4) for number in range(40)], {})
    assert all(len({dealt[one] for one in some[i : i + 4]}) == 1 for i in range(0, 40, 4))
    assert 4 <= sum(split == "test" for split in dealt.values()) <= 8
    tests = [one for one in some if dealt[one] == "test"]
    learned = next(one for one in some if dealt[one] == "train")
    together = deal([tests[0], learned], ["cat"] * 2, ["one", "one"], dealt)
    assert set(together.values()) == {"train"}


def test_fit_keeps_the_images_that_were_set_aside(library: Library):
    added(library, "cat", 0, 1, 2, 3, 4)
    added(library, "train", 5, 6, 7, 8, 9)
    library.set_aside({image.path: image.path for _, image in library.content.labelled})
    found = find_dataset(str(library.folder))
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 8, "test": 2}
    aside = {path.read_bytes() for path in found.splits["test"].paths}
    library.rename("cat", "lion")  # before the file is written again
    moved = find_dataset(str(library.folder))
    assert {path.read_bytes() for path in moved.splits["test"].paths} == aside
    assert moved.classes == ("lion", "train")


def test_a_file_of_splits_that_cannot_be_read_says_so(tmp_path: Path):
    write_splits(tmp_path, {"cat/a.png": ("0" * 64, "test")})
    assert read_splits(tmp_path) == {"cat/a.png": ("0" * 64, "test")}
    split_file(tmp_path).write_text("path,split\na,b\n")
    with pytest.raises(BadInput, match=r"split\.csv: cannot be read"):
        read_splits(tmp_path)
