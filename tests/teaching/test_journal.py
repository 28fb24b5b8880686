"""The journal of a folder: a kill at any moment leaves one consistent state, and undoing everything leads to the start.

A kill is played by an exception at a moment when the disk is touched, behind which the journal is simply left: nothing
that would run afterwards, such as taking operations back, runs.
"""

import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.core.errors import BadInput
from relish.data.set_aside import OWN
from relish.server.uploads import Upload
from relish.teaching import journal
from relish.teaching.journal import DONE, Journal, Operation, Step
from relish.teaching.library import Conflict, Library
from relish.teaching.shelves import UNLABELLED


class Killed(BaseException):
    """Passes through every `except OSError` and `except Exception`, as no kill can be caught."""


def png(colour: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, colour, 40)).save(file, "PNG")
    return file.getvalue()


PICTURES = [png(20 * number) for number in range(10)]


def anything(_: tuple[int, int]) -> str:
    return ""


def added(library: Library, place: str, *numbers: int, batch: str = "") -> list[str]:
    uploads = [(Upload(f"{number}.png", PICTURES[number]), place) for number in numbers]
    return [one.image.id if one.image else "" for one in library.add(uploads, anything, batch)]


def contents(folder: Path) -> Counter[bytes]:
    """Every image file below a folder, by content, in whatever place."""
    return Counter(path.read_bytes() for path in folder.rglob("*.png"))


def layout(folder: Path) -> dict[str, bytes | None]:
    """Class folders and the images in them, and the unlabelled ones."""
    places = [path for path in folder.rglob("*") if OWN not in path.parts or "unlabelled" in path.parts]
    shown = [path for path in places if "removed" not in path.parts and path.name != "unlabelled"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in shown}


def last(library: Library) -> Step:
    """The step that would be undone."""
    step = library.journal.next_step(DONE)
    assert step is not None
    return step


@pytest.fixture
def library(tmp_path: Path):
    """Two classes with three images each."""
    opened = Library(tmp_path / "pets")
    added(opened, "cat", 0, 1, 2)
    added(opened, "dog", 3, 4, 5)
    yield opened
    opened.close()


CHANGES: dict[str, Callable[[Library], object]] = {
    "create": lambda library: library.create("bird"),
    "rename": lambda library: library.rename("cat", "lion"),
    "merge": lambda library: library.merge("cat", "dog"),
    "delete": lambda library: library.delete("cat"),
    "move": lambda library: library.move([i.id for i in library.content.classes["cat"].images[:2]], "dog"),
    "remove": lambda library: library.remove([i.id for i in library.content.classes["cat"].images[:2]]),
    "add": lambda library: added(library, "bird", 6, 7),
    "keep": lambda library: library.keep(["label/one", "label/two"]),
    "undo": lambda library: library.undo(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_at_any_moment_of_a_change_leaves_the_state_before_or_the_one_after(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of an upload that was not answered, the files wait among the removed ones: sending them again adds them."""
    moment, finished = 0, False
    while not finished:
        folder = tmp_path / str(moment)
        library = Library(folder)
        added(library, "cat", 0, 1, 2)
        added(library, "dog", 3, 4, 5)
        before, held = layout(folder), contents(folder)
        touched = _killed_at(moment, monkeypatch)
        try:
            CHANGES[change](library)
            finished = True
        except Killed:
            pass
        monkeypatch.undo()
        library._file_lock.release()  # as a kill does
        library.journal.close()
        opened = Library(folder)
        after = layout(folder)
        assert not held - contents(folder)
        assert all(count == 1 for count in contents(folder).values())
        if after != before:
            opened.undo() if change != "undo" else opened.redo()
            assert layout(folder) == before
            opened.redo() if change != "undo" else opened.undo()
        elif change != "keep":
            CHANGES[change](opened)
        if change != "keep":
            assert layout(folder) != before
        opened.close()
        moment += 1
    assert touched["times"] > 1


def _killed_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Kill before the operation of this number on the disk: a row of the journal, a move, a sync of a folder."""
    touched = {"times": 0}

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            if touched["times"] == moment:
                raise Killed
            touched["times"] += 1
            return real(*given, **named)

        return call

    monkeypatch.setattr(journal.os, "rename", counted(os.rename))
    monkeypatch.setattr(journal, "force_to_disk", counted(journal.force_to_disk))
    for method in ("perform", "reverse", "_do", "_mark"):
        monkeypatch.setattr(Journal, method, counted(getattr(Journal, method)))
    return touched


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_undoing_everything_leads_to_the_start_and_doing_it_again_to_the_end(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    library = Library(tmp_path_factory.mktemp("any") / "pets")
    added(library, "cat", 0, 1, 2)
    added(library, UNLABELLED, 3)
    number = last(library).number
    start, undone = layout(library.folder), 0
    for _ in range(data.draw(st.integers(1, 6))):
        _anything(data, library)
        assert sum(contents(library.folder).values()) == len(contents(library.folder))
    end = layout(library.folder)
    if data.draw(st.booleans()):  # also after a restart
        library.close()
        library = Library(library.folder)
    while last(library).number > number:
        library.undo()
        undone += 1
    assert layout(library.folder) == start
    for _ in range(undone):
        library.redo()
    assert layout(library.folder) == end
    library.close()


def _anything(data: st.DataObject, library: Library) -> None:
    classes = sorted(library.content.classes)
    images = sorted(library.content.by_id.values(), key=lambda image: image.path)
    names = st.sampled_from(["cat", "Cat", "dog", "a/b", "con", "bird "])
    some = data.draw(st.lists(st.sampled_from(images), max_size=3)) if images else []
    ids = [image.id for image in some]
    change = data.draw(st.sampled_from(["create", "rename", "merge", "delete", "move", "remove", "restore", "add"]))
    one, other = (data.draw(st.sampled_from(classes or ["none"])) for _ in range(2))
    try:
        match change:
            case "create":
                library.create(data.draw(names))
            case "rename":
                library.rename(one, data.draw(names))
            case "merge":
                library.merge(one, other)
            case "delete":
                library.delete(one)
            case "move":
                library.move(ids, data.draw(st.sampled_from([one, UNLABELLED])))
            case "remove" | "restore":
                getattr(library, change)(ids)
            case "add":
                added(library, data.draw(names), data.draw(st.integers(0, 9)))
    except BadInput:
        pass


def test_steps_of_one_batch_are_undone_together(library: Library):
    before = layout(library.folder)
    for number in (6, 7, 8):
        added(library, "bird", number, batch="one drop")
    assert library.undo().details["count"] == 3
    assert layout(library.folder) == before


def test_a_move_takes_a_free_name_and_never_replaces_a_file(library: Library):
    taken = library.folder / "dog" / "0.png"
    taken.write_bytes(PICTURES[9])
    library.refresh()
    first = next(image for image in library.content.classes["cat"].images if image.name == "0.png")
    library.move([first.id], "dog")
    assert taken.read_bytes() == PICTURES[9]
    assert (library.folder / "dog" / "0-2.png").read_bytes() == PICTURES[0]


def test_undo_leaves_alone_what_somebody_else_has_moved_away_and_what_took_its_place(library: Library):
    library.merge("cat", "dog")
    (library.folder / "dog" / "0.png").rename(library.folder / "mine.png")
    (library.folder / "cat").mkdir()
    (library.folder / "cat" / "1.png").write_bytes(PICTURES[9])
    library.undo()
    assert (library.folder / "cat" / "1.png").read_bytes() == PICTURES[9]
    assert (library.folder / "cat" / "1-2.png").read_bytes() == PICTURES[1]
    assert (library.folder / "mine.png").read_bytes() == PICTURES[0]


def test_an_operation_that_the_system_refuses_takes_the_others_back(library: Library, monkeypatch: pytest.MonkeyPatch):
    before, real = layout(library.folder), os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name == "2.png":
            raise PermissionError(13, "Permission denied", str(source))
        real(source, target)

    monkeypatch.setattr(journal.os, "rename", refuse)
    with pytest.raises(Exception, match="Permission denied"):
        library.merge("cat", "dog")
    assert layout(library.folder) == before
    assert last(library).details["kind"] == "add"


def test_what_a_folder_lacks_is_no_journal(tmp_path: Path):
    (tmp_path / "journal").write_text("no database, but long enough to be taken for one by whoever is careless" * 20)
    with pytest.raises(BadInput, match="is no journal"):
        Journal(tmp_path, tmp_path / "journal")


def test_nothing_is_undone_where_nothing_was_done(tmp_path: Path):
    library = Library(tmp_path / "empty")
    with pytest.raises(Conflict, match="nothing to undo"):
        library.undo()
    library.close()


def test_an_operation_and_its_inverse():
    assert Operation("move", "a", "b").inverse == Operation("move", "b", "a")
    assert Operation("keep", "key").inverse == Operation("forget", "key")
