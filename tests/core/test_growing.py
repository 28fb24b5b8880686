"""A file that grows: whole at the end, and gone on with from wherever it was cut."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core import growing as module
from relish.core.errors import RunError, WriteFailed
from relish.core.growing import growing
from relish.core.io import move_into_place

ABOUT = {"model": "a", "pictures": "b"}


class Killed(BaseException):
    """Stands for a kill: nothing that comes after it is done."""


def grow(target: Path, names: list[str], *, die_after=None, on_death=lambda: None, about=ABOUT, **more) -> None:
    """One row a name that has none yet, kept every second row."""
    with growing(target, about, head=b"head\n", finish=move_into_place, **more) as rows:
        missing = rows.missing()
        for number, name in enumerate(name for name in names if missing(name)):
            if number == die_after:
                on_death()
                raise Killed
            rows.add(f"{name}\n".encode(), [name], {"odd": number % 2})
            if number % 2:
                rows.keep()


def test_the_target_is_there_only_when_all_is_done(tmp_path):
    target = tmp_path / "out.csv"
    with pytest.raises(Killed):
        grow(target, ["a", "b", "c"], die_after=2)
    assert not target.exists()
    assert (tmp_path / "out.csv.partial").is_dir()
    grow(target, ["a", "b", "c"])
    assert target.read_text() == "head\na\nb\nc\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@settings(deadline=None, max_examples=40)
@given(
    names=st.lists(st.sampled_from("abcdef"), max_size=9),
    deaths=st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=12), st.binary(max_size=12)), max_size=4),
)
def test_however_often_it_is_killed_each_row_is_there_once(names, deaths):
    """What a kill leaves behind the rows that count may be any bytes; a name that comes twice has two rows."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.os, "fsync", lambda _: None)  # what the disk does is not in question here, and is slow
        target, partial, as_left = (Path(folder) / name for name in ("out", "out.partial", "as-left"))
        for after, *tails in deaths:
            try:
                grow(target, names, die_after=after, on_death=lambda: shutil.copytree(partial, as_left))
            except Killed:
                shutil.rmtree(partial)  # whatever was tidied up on the way out: a kill lets nobody tidy up
                as_left.rename(partial)
                for name, tail in zip(("rows", "names"), tails, strict=True):
                    with (partial / name).open("ab") as file:
                        file.write(tail)
            else:
                break
        if not target.exists():
            grow(target, names)
        head, *rows = target.read_text().splitlines()
        assert head == "head"
        assert sorted(rows) == sorted(names)


def test_a_row_that_was_not_kept_is_cut_off_and_written_again(tmp_path):
    target, rows = tmp_path / "out", tmp_path / "out.partial" / "rows"
    with pytest.raises(Killed):
        grow(target, ["a", "b", "c"], die_after=2)
    state = tmp_path / "out.partial" / "state.json"
    assert json.loads(state.read_text()) == {"about": ABOUT, "bytes": 9, "rows": 2, "tally": {"odd": 1}}
    with rows.open("ab") as file:
        file.write(b"c\nhal")  # got as far as the file, but no further
    grow(target, ["a", "b", "c"])
    assert target.read_text() == "head\na\nb\nc\n"


def test_ctrl_c_between_two_statements_leaves_rows_and_names_in_step(tmp_path, monkeypatch):
    target = tmp_path / "out"

    def interrupted(name):
        if name == "c":
            raise KeyboardInterrupt
        return 1

    monkeypatch.setattr(module, "_hash", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grow(target, ["a", "b", "c"])
    monkeypatch.undo()
    state = json.loads((tmp_path / "out.partial" / "state.json").read_text())
    assert (state["rows"], state["bytes"]) == (2, 9)


def test_a_file_that_exists_is_never_replaced_unasked(tmp_path):
    target = tmp_path / "out"
    target.write_text("precious")
    with pytest.raises(RunError, match=r"exists already.*\n.*--overwrite"):
        grow(target, ["a"])
    assert target.read_text() == "precious"
    grow(target, ["a"], overwrite=True)
    assert target.read_text() == "head\na\n"


def test_rows_of_another_model_are_not_gone_on_with(tmp_path):
    target, other = tmp_path / "out", {**ABOUT, "model": "z"}
    with pytest.raises(Killed):
        grow(target, ["a", "b"], die_after=1)
    with pytest.raises(RunError, match="begun with another model"):
        grow(target, ["a", "b"], about=other)
    grow(target, ["c"], about=other, overwrite=True)
    assert target.read_text() == "head\nc\n"


def test_two_processes_do_not_write_into_one_file(tmp_path):
    target = tmp_path / "out"
    with growing(target, ABOUT, head=b"", finish=move_into_place), pytest.raises(RunError, match="another process"):
        grow(target, ["a"])


def test_a_full_disk_keeps_what_was_kept(tmp_path, monkeypatch):
    target = tmp_path / "out"

    def full(_):
        raise OSError(28, "No space left on device")

    def keep_one_of_two() -> None:
        with growing(target, ABOUT, head=b"head\n", finish=move_into_place) as rows:
            rows.add(b"a\n", ["a"], {})
            rows.keep()
            rows.add(b"b\n", ["b"], {})
            monkeypatch.setattr(module.os, "fsync", full)
            rows.keep()

    with pytest.raises(WriteFailed, match="No space left") as told:
        keep_one_of_two()
    assert "Free some space" in told.value.hint
    monkeypatch.undo()
    grow(target, ["a", "b"])
    assert target.read_text() == "head\na\nb\n"


def test_a_folder_where_nobody_may_write_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match="cannot write"):
        grow(tmp_path / "file" / "out", ["a"])


def test_the_rows_have_the_rights_that_the_user_gives_new_files(tmp_path):
    grow(tmp_path / "out", ["a"])
    plain = tmp_path / "plain"
    plain.touch()
    assert os.stat(tmp_path / "out").st_mode == os.stat(plain).st_mode
