"""`relish check` as a person uses it: on the screen, as JSON, as a page, as a cleaned table, and before every run."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import relish as library
from relish.data.drawn.datasets import draw_hotdogs
from relish.data.sources import find_dataset
from relish.data.survey import survey
from tests.commands import done, files_below, refused, relish
from tests.conftest import SMALL, draw, draw_dataset, read_json


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, Path]:
    """Drawn pictures, 20 to learn from and 6 to test on a class, two more beside them; and a home for all the tests.

    The embedded model's features of them are computed once: they are kept by what is in a file, not by where it is.
    """
    folder = tmp_path_factory.mktemp("drawn")
    root = draw_hotdogs(folder / "photos", train=21, test=7)
    for part, name in (("train", "020.jpg"), ("test", "006.jpg")):
        for label in ("hotdog", "not-hotdog"):
            (root / part / label / name).rename(folder / f"{part} {label}.jpg")
    return folder, folder / "home"


@pytest.fixture
def faulty(tmp_path, monkeypatch, drawn) -> Path:
    """52 pictures and a copy in the test, one under a wrong class, one cut short, one blank."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELISH_HOME", str(drawn[1]))
    root = Path(shutil.copytree(drawn[0] / "photos", tmp_path / "photos"))
    shutil.copy(root / "train/hotdog/003.jpg", root / "test/hotdog/copy.jpg")
    shutil.copy(drawn[0] / "train hotdog.jpg", root / "train/not-hotdog/wrong.jpg")
    (root / "train/hotdog/short.jpg").write_bytes((root / "train/hotdog/004.jpg").read_bytes()[:2000])
    Image.new("RGB", (40, 32), "white").save(root / "train/not-hotdog/blank.png")
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- screen and JSON ------------------------------------------------------------------------------------------------


def test_the_screen_counts_by_kind_first_and_ends_with_what_to_type_next(faulty):
    out = done("check", "photos").out
    assert out.startswith("56 pictures looked at. Suspicions, to be judged by eye; nothing was changed.\n")
    assert "!! 1 group of exact duplicates (1 across splits)\n" in out
    assert " ! 1 file that cannot be opened\n" in out
    assert 'train/not-hotdog/wrong.jpg: labelled "not-hotdog", looks like "hotdog"' in out
    assert out.index("1 file that cannot be opened") < out.index("Files that cannot be opened")
    assert out.rstrip().splitlines()[-2].startswith("next    relish check photos --html check.html")


def test_json_is_one_document_of_findings_and_a_number(faulty):
    ended = done("check", "photos", "--json")
    document = json.loads(ended.out)
    assert set(document) == {"findings", "pictures"}
    assert document["pictures"] == 56
    kinds = {finding["kind"] for finding in document["findings"]}
    assert {"unreadable", "exact-duplicate", "wrong-label", "blank"} <= kinds
    doubted = {f["paths"][0]: f for f in document["findings"] if f["kind"] == "wrong-label"}
    assert len(doubted) <= 4
    assert "train/not-hotdog/blank.png" not in doubted, "what shows nothing is told as blank, and once"
    wrong = doubted["train/not-hotdog/wrong.jpg"]
    assert set(wrong) == {"kind", "severity", "paths", "message", "advice", "given", "suggested", "confidence"}
    assert (wrong["paths"], wrong["given"], wrong["suggested"]) == (
        ["train/not-hotdog/wrong.jpg"],
        "not-hotdog",
        "hotdog",
    )
    (double,) = [f for f in document["findings"] if f["kind"] == "exact-duplicate"]
    assert double["across"] == ["split"]
    for finding in document["findings"]:
        assert all((faulty / path).is_file() for path in finding["paths"])


def test_nothing_of_the_users_is_changed(faulty):
    before = files_below(faulty)
    done("check", "photos", "--html", "check.html", "--fix", "clean.csv")
    assert files_below(faulty) == before


def test_python_gives_the_same(faulty):
    found = library.check("photos")
    assert found.as_json() == json.loads(done("check", "photos", "--json").out)
    assert "56 pictures" in repr(found)
    assert str(found) == done("check", "photos").out.rstrip("\n")


def test_an_archive_is_looked_over_too(faulty):
    shutil.make_archive("packed", "zip", faulty)
    assert zipfile.is_zipfile("packed.zip")
    assert json.loads(done("check", "packed.zip", "--json").out)["pictures"] == 56


# ---- what fit refuses is looked at all the same ----------------------------------------------------------------------


def test_a_single_class_is_looked_at_and_the_rest_is_said(faulty):
    for part in ("train", "test"):
        shutil.rmtree(faulty / part / "not-hotdog")
    findings = json.loads(done("check", "photos", "--json").out)["findings"]
    assert any(
        f["kind"] == "layout" and f["severity"] == "error" and "one class only" in f["message"] for f in findings
    )
    assert {"unreadable", "exact-duplicate", "too-few"} <= {f["kind"] for f in findings}
    assert any("labels were not looked at" in f["message"] for f in findings)
    assert "one class only" in refused("fit", "photos")


def test_a_class_of_which_nothing_can_be_opened_is_no_reason_to_stop(faulty):
    for path in (faulty / "train/not-hotdog").iterdir():
        path.write_bytes(b"no picture")
    findings = json.loads(done("check", "photos", "--json").out)["findings"]
    assert sum(f["kind"] == "unreadable" for f in findings) == 23
    assert any(f["kind"] == "layout" and f["severity"] == "error" for f in findings)


def test_a_class_that_only_the_test_has_is_an_error_in_words(faulty):
    draw(faulty / "test/green/1.png", (60, 180, 60), 5)
    findings = json.loads(done("check", "photos", "--json").out)["findings"]
    (error,) = [f for f in findings if f["kind"] == "layout"]
    assert "test has what training does not have" in error["message"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no pictures found" in refused("check", tmp_path / "empty")


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_shows_every_finding_and_asks_nothing_of_a_network(faulty):
    done("check", "photos", "--html", "check.html")
    page = Path("check.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert "<script" not in page
    for name in (
        "train/hotdog/003.jpg",
        "test/hotdog/copy.jpg",
        "train/not-hotdog/wrong.jpg",
        "train/hotdog/short.jpg",
    ):
        assert name in page
    assert page.count("cannot be shown") == 1
    assert "for comparison:" in page


def test_names_are_escaped_on_the_page(faulty, drawn):
    shutil.copy(drawn[0] / "train hotdog.jpg", faulty / "train/hotdog/<b>&.jpg")
    shutil.copy(faulty / "train/hotdog/<b>&.jpg", faulty / "test/hotdog/x.jpg")
    done("check", "photos", "--html", "check.html")
    page = Path("check.html").read_text(encoding="utf-8")
    assert "<b>&.jpg" not in page
    assert "&lt;b&gt;&amp;.jpg" in page


# ---- the cleaned table ----------------------------------------------------------------------------------------------


def test_the_cleaned_table_leaves_out_what_is_broken_or_copied_and_says_why(faulty):
    done("check", "photos", "--fix", "clean.csv")
    out = {row["path"]: row for row in rows(Path("clean.left-out.csv"))}
    assert set(out) == {"photos/train/hotdog/003.jpg", "photos/train/hotdog/short.jpg"}
    assert out["photos/train/hotdog/003.jpg"]["reason"] == (
        "The same picture as test/hotdog/copy.jpg (test), pixel by pixel."
    )
    assert "cut short" in out["photos/train/hotdog/short.jpg"]["reason"]
    kept = rows(Path("clean.csv"))
    assert len(kept) + len(out) == 56
    assert {(row["decision"], row["reason"]) for row in kept} == {("", "")}
    assert {row["label"] for row in kept if row["path"].endswith("wrong.jpg")} == {"not-hotdog"}


def test_fit_takes_the_cleaned_table_and_finds_no_copy_in_it(faulty, tiny_source):
    done("check", "photos", "--fix", "clean.csv")
    run = library.fit("clean.csv", weights=tiny_source, recipe="frozen", settings=SMALL | {"batch_size": 10}, out="run")
    assert run.classes == ("hotdog", "not-hotdog")
    kinds = {finding["kind"] for finding in read_json(Path("run/check.json"))["findings"]}
    assert not kinds & {"unreadable", "exact-duplicate", "near-duplicate"}


def test_a_row_moved_back_is_back_in(faulty):
    done("check", "photos", "--fix", "clean.csv")
    moved = [line for line in Path("clean.left-out.csv").read_text().splitlines() if "003.jpg" in line]
    with Path("clean.csv").open("a") as file:
        file.write("\n".join(moved) + "\n")
    names = [p.name for p in find_dataset("clean.csv").splits["train"].paths if p.parent.name == "hotdog"]
    assert names.count("003.jpg") == 1


def test_a_label_is_changed_only_when_asked_and_never_in_the_test(faulty, drawn):
    shutil.copy(drawn[0] / "test hotdog.jpg", faulty / "test/not-hotdog/wrong too.jpg")
    ended = done("check", "photos", "--fix", "clean.csv", "--relabel", "0.6")
    label = {Path(row["path"]).name: row for row in rows(Path("clean.csv"))}
    assert (label["wrong.jpg"]["label"], label["wrong.jpg"]["decision"]) == ("hotdog", "relabelled")
    assert label["wrong.jpg"]["reason"].startswith('Was "not-hotdog"')
    assert (label["wrong too.jpg"]["label"], label["wrong too.jpg"]["decision"]) == ("not-hotdog", "")
    assert "with another label" in ended.err


def test_of_copies_under_two_labels_both_stay_for_a_person_to_decide(faulty):
    shutil.copy(faulty / "train/hotdog/007.jpg", faulty / "train/not-hotdog/same.jpg")
    done("check", "photos", "--fix", "clean.csv")
    kept = {row["path"] for row in rows(Path("clean.csv"))}
    assert {"photos/train/hotdog/007.jpg", "photos/train/not-hotdog/same.jpg"} <= kept


def test_a_class_never_loses_all_its_training_pictures(faulty):
    for path in (faulty / "train/hotdog").glob("*.jpg"):
        shutil.copy(path, faulty / "test/hotdog" / f"copy of {path.name}")
    done("check", "photos", "--fix", "clean.csv")
    assert {"hotdog", "not-hotdog"} == {row["label"] for row in rows(Path("clean.csv")) if row["split"] == "train"}


def test_a_table_without_splits_stays_one_without(faulty):
    shutil.move(faulty / "train", "plain")
    done("check", "plain", "--fix", "clean.csv")
    assert set(find_dataset("clean.csv").splits) == {"all"}


def test_the_given_table_is_never_overwritten_and_the_name_has_to_be_one(faulty):
    done("check", "photos", "--fix", "clean.csv")
    before = Path("clean.csv").read_bytes()
    assert "is the table that is checked" in refused("check", "clean.csv", "--fix", "clean.csv")
    assert Path("clean.csv").read_bytes() == before
    assert "ends in .csv" in refused("check", "photos", "--fix", "clean.parquet")
    assert "goes with --fix" in refused("check", "photos", "--relabel", "0.9")
    assert "above 0" in refused("check", "photos", "--fix", "c.csv", "--relabel", "90")


# ---- before every run -----------------------------------------------------------------------------------------------


def test_fit_says_in_a_line_what_a_first_look_found_and_keeps_all_of_it(faulty, tiny_source):
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    ended = done("fit", "photos", "--weights", tiny_source, "--recipe", "book", "--out", "run", *settings)
    (line,) = [line for line in ended.err.splitlines() if "relish check" in line]
    assert line.startswith("warning: 1 group of exact duplicates (1 across splits), ")
    assert line.endswith(". Look with  relish check photos")
    kept = read_json(Path("run/check.json"))
    assert kept["pictures"] == 56
    assert {"unreadable", "exact-duplicate", "blank"} <= {finding["kind"] for finding in kept["findings"]}


def test_good_pictures_get_no_line(tmp_path, monkeypatch, tiny_source):
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "photos", train=24, test=6)
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    ended = done("fit", "photos", "--weights", tiny_source, "--recipe", "book", "--out", "run", *settings)
    assert "relish check" not in ended.err


def test_a_lack_of_pictures_is_said_but_is_no_warning(tmp_path, monkeypatch, tiny_source):
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "photos", train=8, test=6)
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    command = ("fit", "photos", "--weights", tiny_source, "--recipe", "book", *settings)
    assert "\ncheck   1 case of too few pictures. Look with  relish check photos\n" in "\n" + done(*command).err
    assert "relish check" not in done(*command, "--quiet").err


def test_compare_looks_once_and_writes_it_to_each_run(faulty, tiny_source):
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    ended = done("compare", "photos", "--weights", tiny_source, "--recipes", "book,frozen", *settings)
    assert ended.err.count("relish check") == 1
    assert len(list(Path("runs").glob("*/check.json"))) == 2


def test_an_unknown_option_is_refused_without_a_traceback(faulty):
    ended = relish("check", "photos", "--fxi", "x.csv")
    assert ended.code == 2
    assert "Traceback" not in ended.err


# ---- real photographs -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_faults_planted_among_real_photographs_are_found(tmp_path, shared):
    """300 photographs, with a copy, a crop, a moved, a cut and a blank one among them."""
    with zipfile.ZipFile(shared / "data" / "hotdog.zip") as archive:
        archive.extractall(tmp_path / "whole")
    (train,) = (tmp_path / "whole").rglob("train")
    root = tmp_path / "some"
    for split, count in (("train", 120), ("test", 30)):
        for folder in sorted((train.parent / split).iterdir()):
            for path in sorted(folder.glob("*"))[:count]:
                (root / split / folder.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / split / folder.name / path.name)
    names = sorted((root / "train" / "hotdog").iterdir())
    shutil.copy(names[0], root / "test/hotdog/copy.jpg")
    with Image.open(names[1]) as picture:
        width, height = picture.size
        picture.crop((width // 12, height // 12, width, height)).save(root / "test/hotdog/crop.jpg", quality=80)
    names[3].write_bytes(names[3].read_bytes()[:3000])
    Image.new("RGB", (300, 200), (20, 90, 40)).save(root / "train/hotdog/blank.jpg")
    before = survey(find_dataset(root)).fingerprint
    found = {(f.kind, frozenset(f.paths)) for f in library.check(root).findings}
    assert ("exact-duplicate", frozenset([f"train/hotdog/{names[0].name}", "test/hotdog/copy.jpg"])) in found
    assert ("near-duplicate", frozenset([f"train/hotdog/{names[1].name}", "test/hotdog/crop.jpg"])) in found
    assert ("unreadable", frozenset([f"train/hotdog/{names[3].name}"])) in found
    assert ("blank", frozenset(["train/hotdog/blank.jpg"])) in found
    assert sum(kind == "wrong-label" for kind, _ in found) <= 20
    assert survey(find_dataset(root)).fingerprint == before
