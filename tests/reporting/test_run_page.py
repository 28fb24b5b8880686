"""The report says what the run's files say, shows the pictures behind it, and is whole without what is missing."""

import re
import shlex
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import relish
from relish.core.io import write_json
from relish.core.run_folder import RunFolder
from relish.evaluation.metrics import wilson
from relish.evaluation.significance import mcnemar
from relish.reporting.run_page import MOST_CLASSES, confusion_matrix, images_of_cells
from relish.tasks.report_examples import fit_command
from tests.commands import done, files_below, refused
from tests.conftest import draw_dataset, read_json
from tests.reporting.html_page import Page
from tests.run_folders import HOSTILE, checked, enriched, fitted, grouped, rival, swept


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_source, home_of_module):
    """A folder of runs: `mine` with all there is to show, beside it two rivals and a sweep."""
    root = tmp_path_factory.mktemp("report")
    data = draw_dataset(root / "colours")
    mine = enriched(fitted(data, tiny_source, root / "runs" / "mine"))
    checked(mine)
    rival(mine, "better", wrong=0)
    rival(mine, "worse", wrong=9)
    relish.report(swept(mine))
    return mine


@pytest.fixture
def run(made, tmp_path):
    """The same, to be changed."""
    shutil.copytree(made.parent, tmp_path / "runs")
    return tmp_path / "runs" / "mine"


@pytest.fixture
def page(made):
    return Page(made / "report.html")


# ---- what it says ---------------------------------------------------------------------------------------------------


def test_the_headline_is_the_accuracy_of_the_run(page):
    low, high = wilson(9, 12)
    assert "75.0%" in page.text
    assert f"9 of 12, 95% interval {100 * low:.1f}–{100 * high:.1f}%" in page.words
    assert "commonest class would be right on 50.0%" in page.words
    assert re.findall(r"[a-z]\.[A-Z]\w+", page.words) == []  # a blank between sentences


def test_each_rival_is_tested_on_the_same_pictures(page):
    mine, better = np.arange(12) >= 3, np.ones(12, dtype=bool)
    assert mcnemar(mine, better).sentence("mine", "better") in page.words
    assert page.words.index("better") < page.words.index("this run") < page.words.index("that worse gets wrong")


def test_a_run_on_other_pictures_is_no_rival(run, made, tiny_source, tmp_path):
    """Not even one that was judged on as many."""
    others = draw_dataset(tmp_path / "others", train=4, test=6, classes=("blue", "green"))
    fitted(others, tiny_source, run.parent / "other", epochs=1)
    relish.report(run)
    compared = re.findall(r"that (\w+) gets wrong", Page(run / "report.html").words)
    assert compared == ["better", "worse"]


def test_what_the_check_found_comes_gravest_first_with_its_pictures(page):
    text = page.words
    found = [text.index(m) for m in ("Two pictures are the same.", "may be mislabelled.", "One picture is small.")]
    assert found == sorted(found)
    assert "32 pictures were looked over before training: 1 error, 1 warning, 1 note." in text
    assert "Keep one of them." in text


def test_every_number_of_the_confusion_leads_to_its_pictures(page, made):
    confusion = read_json(made / "evaluation.json")["confusion"]
    links = {a["href"]: a["aria-label"] for a in page.all("a") if (a["href"] or "").startswith("#cell-")}
    panels = {d["id"] for d in page.all("div") if (d.get("id") or "").startswith("cell-")}
    wanted = {f"#cell-{i}-{j}": n for i, row in enumerate(confusion) for j, n in enumerate(row) if n}
    assert {link: int(label.split()[0]) for link, label in links.items()} == wanted
    assert panels == {link[1:] for link in wanted}


def test_the_pictures_behind_a_number_are_all_of_its_pictures_where_few(made):
    text = (made / "report.html").read_text()
    rows = read_json(made / "dataset.json")["splits"]["test"]
    panel = re.search(r'id="cell-0-1".*?</ul>', text, re.DOTALL)[0]
    assert all(row["path"] in panel for row in rows[:3])
    assert panel.count("<img") == 3


def test_calibration_is_told_before_and_after_with_which_end_is_bad(page):
    text = page.words
    assert "lie 3.5 points apart; before its temperature was set, 7.9." in text
    assert "The temperature, 2, was chosen on 200 held-out pictures" in text
    assert "0.4321" in text
    assert "0.5432 before the temperature" in text
    assert "answers 11 of 12 pictures" in text


def test_the_accuracy_without_copies_is_told(page):
    assert "Without the 2 judged pictures that have a copy" in page.words


def test_the_worst_mistakes_are_shown_with_a_map_and_what_was_learned(page):
    alts = [image["alt"] for image in page.all("img")]
    assert sum(alt.startswith("The same picture with a heat map") for alt in alts) == 3 + 12  # mistakes; least sure
    assert page.words.count("Nearest it learned from") == 15
    assert "✗ wrong" in page.text


def test_a_picture_is_said_to_be_unsure_where_the_model_is(page, made):
    sure = np.load(made / "predictions.npz")["probabilities"].max(1)
    shown = page.text.count("says it is unsure")
    assert shown >= int((sure < 0.75).sum()) > 0  # those of the mistakes are shown twice


def test_every_chart_says_in_words_what_it_shows(page):
    charts = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    named = {p["id"] for p in page.all("p") if p.get("id")} | {t["id"] for t in page.all("title") if t.get("id")}
    assert len(charts) == 4  # curves, reliability, coverage, sweep
    assert all(svg["aria-labelledby"] in named and svg["aria-describedby"] in named for svg in charts)
    assert "book is best at 0.001 (91.7%) and diverged at 1 of 3 rates" in page.words


def test_the_page_needs_nothing_but_itself(page, made):
    text = (made / "report.html").read_text()
    assert not [tag for tag, _ in page.tags if tag in {"script", "link", "iframe", "object", "base"}]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert all(a["href"].startswith("#") for a in page.all("a"))
    assert "http" not in re.sub("http-equiv", "", text)
    assert "default-src 'none'" in text
    assert len(text) < 2_000_000


def test_hostile_words_stay_words(page):
    assert HOSTILE in page.text
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_every_link_of_the_page_leads_somewhere(page):
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    assert {a["href"][1:] for a in page.all("a")} <= ids


def test_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_groups_and_subgroups_are_told_the_worst_first(run):
    """Of twelve pictures the first three are wrong: all of camera A's."""
    relish.report(grouped(run))
    page = Page(run / "report.html")
    assert "12 images, 6 groups: the interval is as wide as that of 8 independent images;" in page.words
    low, high = wilson(6, 8)
    assert f"9 of 12, 95% interval {100 * low:.1f}–{100 * high:.1f}%" in page.words
    section = page.words.partition("Subgroup by subgroup")[2]
    assert section.index(f"A{HOSTILE} 50.0% (3 of 6)") < section.index(f"B{HOSTILE} 100.0% (6 of 6)")
    assert "no camera is worse than the others by more than chance explains." in section
    assert "scene 0 0.0% (0 of 2)" in section
    assert "by group, so the difference could be chance" in page.words
    assert "#subgroups" in {a["href"] for a in page.all("a")}


# ---- what is missing ------------------------------------------------------------------------------------------------


def test_an_older_run_is_reported_without_what_it_has_not_measured(colours, tiny_source, tmp_path):
    older = fitted(colours, tiny_source, tmp_path / "alone" / "run")
    evaluation = read_json(older / "evaluation.json")
    kept = ("split", "top1", "classes", "per_class", "confusion")
    write_json(older / "evaluation.json", {key: evaluation[key] for key in kept})
    with np.load(older / "predictions.npz") as found:
        np.savez(tmp_path / "p.npz", labels=found["labels"], probabilities=found["probabilities"])
    shutil.move(tmp_path / "p.npz", older / "predictions.npz")
    (older / "check.json").unlink(missing_ok=True)
    relish.report(older)
    text = Page(older / "report.html").words
    assert evaluation["top1"]["correct"] == int(re.search(r"pictures right: (\d+) of 12", text)[1])
    for absent in (
        "How sure, and how rightly so",
        "What the check",
        "Other runs",
        "Learning rates",
        "About this page",
        "Subgroup",
        "groups:",
    ):
        assert absent not in text


def test_findings_are_counted_whole_though_not_all_are_shown(run):
    one = {"kind": "dark", "severity": "note", "paths": [], "message": "Dark.", "advice": "Look."}
    write_json(run / "check.json", {"findings": [{**one, "severity": "error"}, *[one] * 40], "pictures": 50})
    relish.report(run)
    text = Page(run / "report.html").words
    assert "1 error, 40 notes." in text
    assert "11 more are left out here" in text


def test_pictures_that_have_gone_or_changed_are_counted_and_nothing_else_is_lost(run):
    rows = read_json(run / "dataset.json")
    moved = run.parent / "moved"
    shutil.copytree(rows["root"], moved)
    write_json(run / "dataset.json", {**rows, "root": str(moved)})
    (moved / rows["splits"]["test"][0]["path"]).unlink()
    (moved / rows["splits"]["test"][1]["path"]).write_bytes(b"another picture")
    relish.report(run)
    text = Page(run / "report.html").words
    assert "2 pictures that should be here are not" in text
    assert "9 of 12, 95% interval" in text
    shutil.rmtree(moved)
    relish.report(run)
    gone = Page(run / "report.html")
    assert not gone.all("img")
    assert "9 of 12, 95% interval" in gone.words


def test_without_the_package_for_heat_maps_the_report_is_made_and_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    ended = done("report", run)
    assert "Heat maps: the package grad-cam cannot be used" in ended.err
    page = Page(run / "report.html")
    assert "relish-vision[explain]" in page.text
    assert not [image for image in page.all("img") if "heat map" in image["alt"]]
    assert page.words.count("Nearest it learned from") == 15


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_path_and_names_the_next_step(run, tmp_path):
    ended = done("report", run, "--out", tmp_path / "boss.html")
    assert ended.out == f"{tmp_path / 'boss.html'}\n"
    assert f"relish predict {run}" in ended.err
    assert "9 of 12, 95% interval" in Page(tmp_path / "boss.html").words


def test_a_run_that_is_not_finished_cannot_be_reported_on(run):
    (run / "evaluation.json").unlink()
    before = files_below(run)
    assert "is not finished" in refused("report", run)
    assert files_below(run) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("predictions.npz", b"PK"),
        ("predictions.npz", None),
        ("evaluation.json", b"{}"),
        ("evaluation.json", b'{"split": "test", "classes": [], "confusion": [], "top1": 3}'),
        ("classes.json", b"[1"),
        ("dataset.json", b"[]"),
        ("check.json", b'{"findings": [{"kind": "none"}]}'),
    ],
)
def test_a_damaged_file_is_an_error_and_the_former_report_stands(run, name, content):
    before, whole = (run / "report.html").read_bytes(), (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert str(run) in refused("report", run)
    assert (run / "report.html").read_bytes() == before


def test_a_folder_is_no_page(run, tmp_path):
    assert "is a folder" in refused("report", run, "--out", tmp_path)


def test_the_command_to_make_the_run_again_makes_the_same_run(made, tmp_path, tiny_source):
    folder = RunFolder(made)
    command = fit_command(folder.read_request(), folder.read_recipe())
    assert "learning_rate=0.001" in command
    assert "weight_decay" not in command
    again = tmp_path / "again"
    done(*shlex.split(command)[1:], "--out", again)
    assert RunFolder(again).read_request()["identity"] == folder.read_request()["identity"]


# ---- the confusion matrix -------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(0, 400), st.integers(0, 60))
def test_the_matrix_shows_the_most_confused_and_no_more_pictures_than_there_is_room(classes, count, room):
    rng = np.random.default_rng(count)
    labels, predicted = rng.integers(0, classes, count), rng.integers(0, classes, count)
    shown = confusion_matrix(predicted, labels, classes)
    assert len(shown.classes) + shown.omitted == classes
    assert len(shown.classes) == min(classes, MOST_CLASSES)
    for row in shown.rows:
        for cell in row:
            assert len(cell.positions) == int(((labels == cell.truth) & (predicted == cell.predicted)).sum())
    chosen = images_of_cells(shown, room)
    assert sum(map(len, chosen.values())) <= room
    positions = [p for some in chosen.values() for p in some]
    assert len(positions) == len(set(positions))


def test_the_pair_that_is_confused_most_is_in_the_matrix():
    labels = np.repeat(np.arange(30), 10)
    predicted = labels.copy()
    predicted[170:178] = 25
    assert {17, 25} <= set(confusion_matrix(predicted, labels, 30).classes)
