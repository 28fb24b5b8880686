"""The journal of a table: the table is whole at the end, and resumed from wherever it was cut."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core.errors import RunError, WriteFailed
from relish.tasks import prediction_table as module
from relish.tasks.prediction_table import journal_of

ABOUT = {"model": "a", "pictures": "b"}


def finish(blocks, target: Path) -> None:
    target.write_bytes(b"".join([b"head\n", *blocks]))


def begun(target: Path) -> tuple[int, int, list[str]]:
    """Rows, bytes and tallies that would hold after a kill."""
    with closing(sqlite3.connect(target.with_name(f"{target.name}.partial"))) as connection:
        found = connection.execute("SELECT length(names) / 8, length(rows), tally FROM blocks").fetchall()
    return sum(row[0] for row in found), sum(row[1] for row in found), [row[2] for row in found]


class Killed(BaseException):
    """Stands for a kill: nothing that comes after it is done."""


def grow(target: Path, names: list[str], *, die_after=None, on_death=lambda: None, about=ABOUT, **more) -> None:
    """One row a name that has none yet, kept every second row."""
    with journal_of(target, about, finish=finish, **more) as rows:
        missing = rows.missing()
        for number, name in enumerate(name for name in names if missing(name)):
            if number == die_after:
                on_death()
                raise Killed
            rows.add(f"{name}\n".encode(), [name], {"odd": number % 2})
            if number % 2:
                rows.commit()


def test_the_target_is_there_only_when_all_is_done(tmp_path):
    target = tmp_path / "out.csv"
    with pytest.raises(Killed):
        grow(target, ["a", "b", "c"], die_after=2)
    assert not target.exists()
    assert (tmp_path / "out.csv.partial").is_file()
    grow(target, ["a", "b", "c"])
    assert target.read_text() == "head\na\nb\nc\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@settings(deadline=None, max_examples=20)
@given(
    names=st.lists(st.sampled_from("abcdef"), max_size=9),
    deaths=st.lists(st.integers(0, 4), max_size=4),
)
def test_however_often_it_is_killed_each_row_is_there_once(names, deaths):
    """A name that comes twice has two rows."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out"
        for after in deaths:
            as_left = Path(folder) / "as-left"
            as_left.mkdir()

            def keep_as_left(as_left: Path = as_left) -> None:
                for file in Path(folder).glob("out.partial*"):
                    shutil.copy(file, as_left)

            try:
                grow(target, names, die_after=after, on_death=keep_as_left)
            except Killed:
                for file in Path(folder).glob("out.partial*"):
                    file.unlink()  # whatever was tidied up on the way out: a kill lets nobody tidy up
                for file in as_left.iterdir():
                    file.rename(Path(folder) / file.name)
            as_left.rmdir()
            if target.exists():
                break
        if not target.exists():
            grow(target, names)
        head, *rows = target.read_text().splitlines()
        assert head == "head"
        assert sorted(rows) == sorted(names)


def test_a_row_that_was_not_kept_is_cut_off_and_written_again(tmp_path):
    """The third row is large: it reaches the file before the kill, but not the commit."""
    target, large = tmp_path / "out", 2**23
    code = (
        "import os, signal, sys; from pathlib import Path; from relish.tasks.prediction_table import journal_of\n"
        "with journal_of(Path(sys.argv[1]), {'model': 'a', 'pictures': 'b'}, finish=None) as rows:\n"
        "    rows.add(b'a\\n', ['a'], {'odd': 0}); rows.add(b'b\\n', ['b'], {'odd': 1}); rows.commit()\n"
        f"    rows.add(bytes({large}), ['c'], {{}}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert (tmp_path / "out.partial").stat().st_size > large / 2
    assert (tmp_path / "out.partial-journal").exists()
    assert begun(target) == (2, 4, ['{"odd": 0}', '{"odd": 1}'])
    grow(target, ["a", "b", "c"])
    assert target.read_text() == "head\na\nb\nc\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


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
    assert begun(target)[:2] == (2, 4)


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
    with journal_of(target, ABOUT, finish=finish), pytest.raises(RunError, match="another process"):
        grow(target, ["a"])


def test_a_full_disk_keeps_what_was_kept(tmp_path):
    target = tmp_path / "out"

    def keep_one_of_two() -> None:
        with journal_of(target, ABOUT, finish=finish) as rows:
            rows.add(b"a\n", ["a"], {})
            rows.commit()
            rows._connection.execute("PRAGMA max_page_count = 5")
            rows.add(bytes(2**20), ["b"], {})

    with pytest.raises(WriteFailed, match="No space left") as told:
        keep_one_of_two()
    assert "Free some space" in told.value.hint
    grow(target, ["a", "b"])
    assert target.read_text() == "head\na\nb\n"


def test_a_folder_where_nobody_may_write_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match="cannot write"):
        grow(tmp_path / "file" / "out", ["a"])


@pytest.mark.parametrize(
    "content", [b"no database, but long enough to be looked at" * 9, b"SQLite format 3\0" + bytes(900)]
)
def test_a_damaged_journal_is_said_to_be_one_and_never_begun_anew_unasked(tmp_path, content):
    target, partial = tmp_path / "out", tmp_path / "out.partial"
    partial.write_bytes(content)
    with pytest.raises(RunError, match=r"damaged.*\n.*--overwrite"):
        grow(target, ["a"])
    assert partial.read_bytes() == content
    grow(target, ["a"], overwrite=True)
    assert target.read_text() == "head\na\n"


def test_the_rows_have_the_rights_that_the_user_gives_new_files(tmp_path):
    grow(tmp_path / "out", ["a"])
    plain = tmp_path / "plain"
    plain.touch()
    assert os.stat(tmp_path / "out").st_mode == os.stat(plain).st_mode
