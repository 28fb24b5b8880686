"""`relish predict --out`: any number of pictures into a table, through bad pictures, kills and full disks."""

import contextlib
import csv
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from PIL import Image
from pyarrow import parquet

from relish.core.errors import Stopped
from relish.core.progress import Bar, Progress
from relish.tasks import predict as task
from tests.commands import done, refused, relish
from tests.conftest import TORTURE, draw, draw_dataset, unpacked_case
from tests.processes import COMMAND, started, wait_until

BOOK = ("--recipe", "book", "--image-size", 32, "--batch-size", 8, "--epochs", 1)
PICTURES = 2000 if TORTURE else 1000
"""Of a table that is killed while it grows."""


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory, home_of_module):
    """A folder with `colours` and a finished `run` on them."""
    folder = tmp_path_factory.mktemp("made")
    draw_dataset(folder / "colours")
    done("fit", folder / "colours", "--weights", tiny_source, *BOOK, "--out", folder / "run")
    return folder


@pytest.fixture
def inside(made, tmp_path, monkeypatch) -> Path:
    """A folder of its own, with both as links."""
    for name in ("colours", "run"):
        (tmp_path / name).symlink_to(made / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_begun(path: str | Path) -> int:
    """Rows in the journal of a table, whoever holds it; 0 where it cannot be read at this moment."""
    address = f"{Path(f'{path}.partial').absolute().as_uri()}?immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            return connection.execute("SELECT coalesce(sum(length(names)) / 8, 0) FROM blocks").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_the_three_forms_hold_what_the_screen_says(inside):
    Path("text.jpg").write_text("mustard")
    words = ["run", "colours/test", "absent.png", "text.jpg", "no*.gif"]
    shown = json.loads(relish("predict", *words, "--json").out)
    for suffix in ("csv", "jsonl", "parquet"):
        ended = done("predict", *words, "--out", f"a.{suffix}")
        assert ended.out.startswith(f"a.{suffix}: 15 pictures, 3 could not be read; ")
        assert ended.err == ""
    tables = [rows_of("a.csv"), list(map(json.loads, Path("a.jsonl").read_text().splitlines()))]
    tables.append(parquet.read_table("a.parquet").to_pylist())
    for table in tables:
        assert [row["path"] for row in table] == [row["path"] for row in shown]
        for row, wanted in zip(table, shown, strict=True):
            assert (row["error"] or None) == wanted.get("error")
            assert (row["class"] or None) == wanted.get("class")
            for name, probability in wanted.get("probabilities", {}).items():
                assert float(row[f"probability_{name}"]) == pytest.approx(probability, abs=1e-7)
    assert sorted(path.name for path in inside.iterdir() if path.name.startswith("a.")) == [
        "a.csv",
        "a.jsonl",
        "a.parquet",
    ]


def test_a_folder_of_every_kind_of_file_gives_rows_or_counted_words(inside):
    mixed = Path("mixed")
    mixed.mkdir()
    drawn = sorted(Path("colours/test").rglob("*.png"))
    for name in ("plain.png", "bare", "a.jpg?w=300", "b.jpg_large"):
        shutil.copy(drawn[0], mixed / name)
    Image.open(drawn[0]).convert("RGB").save(mixed / "c.ppm")
    (mixed / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (mixed / "IMG_2.dng").write_bytes(b"FUJIFILMCCD-RAW 0201")
    (mixed / "notes.txt").write_text("mustard")
    (mixed / "page").write_text("<html>")
    told = "warning: mixed/notes.txt, mixed/page are not pictures (text file 1, HTML page 1): left out."
    ended = done("predict", "run", mixed, "--out", "mixed.csv")
    assert ended.err.strip() == told
    rows = {Path(row["path"]).name: row["error"] for row in rows_of("mixed.csv")}
    assert list(rows) == sorted(path.name for path in mixed.iterdir() if path.name not in ("notes.txt", "page"))
    assert sorted(name for name, error in rows.items() if error) == ["IMG_1.HEIC", "IMG_2.dng"]
    shown = relish("predict", "run", mixed, "--json")
    assert [Path(row["path"]).name for row in json.loads(shown.out)] == list(rows)
    assert told in shown.err


def test_a_folder_of_a_public_report_has_a_row_for_each_file(inside, shared):
    """Its HEIC files have a head and nothing behind it."""
    folder = unpacked_case(shared, "16-predict-heic", Path("case")) / "16-predict-heic/data"
    rows = json.loads(relish("predict", "run", folder, "--json").out)
    assert len(rows) == 12
    assert {Path(row["path"]).name for row in rows if "error" in row} == {f"IMG_{n}.HEIC" for n in range(3)}


def test_a_picture_that_is_text_comes_through_standard_input_too(inside):
    (row,) = json.loads(done("predict", "run", "-", "--json", stdin=b"P3 2 1 255 250 5 5 250 5 5").out)
    assert "class" in row


def warm(probability: float, temperature: float) -> float:
    """A probability of two classes as it is at another temperature than 1."""
    odds = (probability / (1 - probability)) ** (1 / temperature)
    return odds / (1 + odds)


def test_threshold_and_abstention_of_the_model_are_in_the_table(inside, tmp_path):
    from relish.evaluation.prediction import HEADER_KEY, Decision
    from relish.models.saved_model import rewrite_header

    model = tmp_path / "own.safetensors"
    model.write_bytes(Path("run/model.safetensors").read_bytes())
    plain = [one["probabilities"] for one in json.loads(done("predict", "run", "colours/test", "--json").out)]
    middle = sorted(warm(one["red"], 2.0) for one in plain)[6]
    decision = Decision(
        temperature=2.0, positive="red", threshold=0.0, aim="recall=1", unsure_below=middle, fitted_on=20
    )
    rewrite_header(model, {HEADER_KEY: decision.as_header()})
    ended = done("predict", model, "colours/test", "--out", "a.csv")
    rows = rows_of("a.csv")
    assert {row["class"] for row in rows} == {"red"}, "any probability reaches a threshold of 0"
    for row in rows:
        assert float(row["probability"]) == float(row["probability_red"])
    for row, one in zip(rows, plain, strict=True):
        assert float(row["probability_red"]) == pytest.approx(warm(one["red"], 2.0), abs=1e-6)
    assert sum(row["unsure"] == "true" for row in rows) in (6, 7), "the middle one is a matter of the last digit"
    assert re.search(r"12 pictures, [67] unsure;", ended.out)


def test_json_of_a_table_is_one_document(inside):
    found = json.loads(done("predict", "run", "colours/test", "nope.jpg", "--out", "a.csv", "--json").out)
    assert list(found) == ["out", "pictures", "unreadable", "unsure", "unknown", "pictures_per_second"]
    assert (found["out"], found["pictures"], found["unreadable"]) == ("a.csv", 13, 1)


def test_where_no_picture_could_be_read_there_is_a_table_that_says_why_and_exit_code_2(inside):
    Path("empty").mkdir()
    ended = relish("predict", "run", "absent.png", "empty", "--out", "a.csv")
    assert ended.code == 2
    assert "2 could not be read" in ended.out
    assert "no picture could be read" in ended.err
    assert [row["error"] for row in rows_of("a.csv")] == ["there is no such file", "there is no picture in this folder"]


def test_what_cannot_be_written_is_refused_before_any_work(inside):
    Path("a.csv").write_text("precious")
    assert "exists already" in refused("predict", "run", "colours", "--out", "a.csv")
    assert Path("a.csv").read_text() == "precious"
    assert ".parquet" in refused("predict", "run", "colours", "--out", "a.xlsx")
    assert "empty" in refused("predict", "run", "", "--out", "b.csv")
    assert "--out" in refused("predict", "run", "colours", "--overwrite")
    done("predict", "run", "colours/test/red", "--out", "a.csv", "--overwrite")
    assert len(rows_of("a.csv")) == 6


def test_paths_come_from_standard_input_as_lines_or_with_nul(inside):
    one = draw(inside / "new\nline.png", (200, 50, 50), 1)
    two = Path("colours/test/red/000.png")
    done("predict", "run", "-", "--out", "a.csv", "--null", stdin=b"\0".join([os.fsencode(one), os.fsencode(two), b""]))
    assert [row["path"] for row in rows_of("a.csv")] == [str(one), str(two)]
    done("predict", "run", "-", "--out", "b.csv", stdin=f"{two}\r\n{two}".encode())
    assert [row["path"] for row in rows_of("b.csv")] == [str(two), str(two)]
    assert done("predict", "run", "-0", "-", stdin=bytes(one)).out.startswith(str(one).replace("\n", "\\n"))
    assert relish("predict", "run", "-0", "-", stdin=b"").code == 2


def test_a_bar_that_is_shown_learns_how_many_pictures_there_are(inside):
    class Shown(Bar):
        shown, total = True, None

        def expect(self, total):
            self.total = total

    bar, hidden = Shown(), Bar()
    with task._expecting(["colours", "absent.png"], bar), task._expecting(["colours"], hidden):
        wait_until(lambda: bar.total is not None)
    assert bar.total == 33
    with task._expecting(["-"], unknown := Shown()):
        time.sleep(0.05)
    assert unknown.total is None, "standard input is not read to be counted"


def test_names_like_formulas_are_warned_of(inside):
    draw(inside / "=1+1.png", (200, 50, 50), 1)
    ended = done("predict", "run", "=1+1.png", "colours/test", "--out", "a.csv")
    assert "1 rows hold a name that begins like a formula" in ended.err
    assert rows_of("a.csv")[0]["path"] == "=1+1.png"
    assert done("predict", "run", "=1+1.png", "--out", "a.jsonl").err == ""


# ---- going on -------------------------------------------------------------------------------------------------------


class Stop(Progress):
    """Ctrl-C at the first batch."""

    def bar(self, title, total, done=0):
        class Interrupting(Bar):
            def advance(self, steps=1, words=""):
                raise KeyboardInterrupt

        return contextlib.nullcontext(Interrupting())


@pytest.fixture
def stopped(inside, monkeypatch):
    """A table begun with 4 rows; stopped then."""
    monkeypatch.setattr(task, "_ROWS", 4)
    with pytest.raises(Stopped, match="stopped at 4 pictures") as told:
        task.predict_table("run", ["colours/test"], "a.csv", progress=Stop())
    assert "same command" in told.value.hint
    assert not Path("a.csv").exists()
    return inside


def test_a_stopped_table_goes_on_where_it_was(stopped):
    done("predict", "run", "colours/test", "--out", "whole.csv")
    ended = done("predict", "run", "colours/test", "--out", "a.csv")
    assert "resuming a.csv: 4 rows are there already" in ended.err
    assert ended.out.startswith("a.csv: 12 pictures")
    assert Path("a.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_pictures_that_came_or_went_meanwhile_do_no_harm(stopped):
    made = Path("colours").resolve()
    Path("colours").unlink()
    shutil.copytree(made, "colours")
    Path("colours/test/blue/000.png").unlink()
    draw(Path("colours/test/aqua/new.png"), (60, 190, 190), 5)
    done("predict", "run", "colours/test", "--out", "a.csv")
    paths = [row["path"] for row in rows_of("a.csv")]
    assert len(paths) == len(set(paths)) == 13
    assert "colours/test/aqua/new.png" in paths


def test_another_model_or_other_pictures_do_not_go_on_with_it(stopped):
    assert "begun with another pictures" in refused("predict", "run", "colours/train", "--out", "a.csv")
    assert "begun with another precision" in refused(
        "predict", "run", "colours/test", "--out", "a.csv", "--precision", "auto"
    )
    assert rows_begun("a.csv") == 4
    done("predict", "run", "colours/train", "--out", "a.csv", "--overwrite")
    assert len(rows_of("a.csv")) == 20


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"] if TORTURE else ["csv"])
def test_killed_again_and_again_it_ends_with_the_rows_of_an_undisturbed_one(inside, suffix):
    """-9 at any moment; every row there once, in whole."""
    pictures = inside / "many"
    pictures.mkdir()
    originals = sorted(Path("colours").resolve().rglob("*.png"))
    for number in range(PICTURES):
        os.link(originals[number % len(originals)], pictures / f"{number:05}.png")
    (pictures / "00077.png").unlink()
    (pictures / "00077.png").write_text("no picture")
    whole, killed, chance, kills = Path(f"whole.{suffix}"), Path(f"killed.{suffix}"), random.Random(suffix), 0
    done("predict", "run", "many", "--out", whole)
    code = f"from relish.tasks import prediction_table as table; table.COMMIT_SECONDS = 0.02; {COMMAND}"
    before = 0
    for _ in range(30):
        if kills == 3:
            break
        process = started(code, "predict", "run", "many", "--out", killed)
        while process.poll() is None and rows_begun(killed) <= before:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            kills, before = kills + 1, rows_begun(killed)
        elif kills >= 2:
            break  # it came to its end first
        else:
            killed.unlink()
            kills, before = 0, 0
    assert kills >= 2, "too fast to be killed, thirty times"
    if not killed.exists():
        assert "rows are there already" in done("predict", "run", "many", "--out", killed).err
    if suffix == "parquet":
        found, right = parquet.read_table(killed).to_pylist(), parquet.read_table(whole).to_pylist()
    else:
        read = rows_of if suffix == "csv" else lambda path: list(map(json.loads, path.read_text().splitlines()))
        found, right = read(killed), read(whole)
    assert len(found) == PICTURES
    for row, wanted_row in zip(found, right, strict=True):
        assert [row[key] for key in ("path", "class", "unsure", "error")] == [
            wanted_row[key] for key in ("path", "class", "unsure", "error")
        ]
        for key, value in row.items():
            if key.startswith("probability") and value not in (None, ""):
                # A kill changes which pictures share a batch, and a batch the last digits.
                assert float(value) == pytest.approx(float(wanted_row[key]), abs=1e-5)
    print(f"\nkilled {kills} times: {PICTURES:,} rows, each once")
