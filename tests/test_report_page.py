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
from relish.evaluation.metrics import SweepPoint, wilson
from relish.evaluation.significance import mcnemar
from relish.reporting.charts import even_axis, log_axis
from relish.reporting.confusion import MOST_CLASSES, cells_to_picture, confusion_of
from relish.reporting.report_figures import calibration_words, decision_words, figures_of
from relish.reporting.run_charts import bins_of, coverage_chart, reliability_chart, sweep_chart
from relish.tasks.report_examples import fit_command
from tests.commands import done, files_below, refused
from tests.conftest import draw_dataset, read_json
from tests.run_folders import HOSTILE, checked, enriched, fitted, rival, swept
from tests.test_report import Page


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_source):
    """A folder of runs: `mine` with all there is to show, beside it two rivals and a sweep."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(root / "home"))
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


def words(page):
    return " ".join(page.text.split())


# ---- what it says ---------------------------------------------------------------------------------------------------


def test_the_headline_is_the_accuracy_of_the_run(page):
    low, high = wilson(9, 12)
    assert "75.0%" in page.text
    assert f"9 of 12, 95% interval {100 * low:.1f}–{100 * high:.1f}%" in words(page)
    assert "commonest class would be right on 50.0%" in words(page)


def test_each_rival_is_tested_on_the_same_pictures(page):
    mine, better = np.arange(12) >= 3, np.ones(12, dtype=bool)
    assert mcnemar(mine, better).sentence("mine", "better") in words(page)
    assert words(page).index("better") < words(page).index("this run") < words(page).index("that worse gets wrong")


def test_a_run_on_other_pictures_is_no_rival(run, made, tiny_source, tmp_path):
    """Not even one that was judged on as many."""
    others = draw_dataset(tmp_path / "others", train=4, test=6, classes=("blue", "green"))
    fitted(others, tiny_source, run.parent / "other", epochs=1)
    relish.report(run)
    compared = re.findall(r"that (\w+) gets wrong", words(Page(run / "report.html")))
    assert compared == ["better", "worse"]


def test_what_the_check_found_comes_gravest_first_with_its_pictures(page):
    text = words(page)
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
    text = words(page)
    assert "lie 3.5 points apart; before its temperature was set, 7.9." in text
    assert "The temperature, 2, was chosen on 200 held-out pictures" in text
    assert "0.4321" in text
    assert "0.5432 before the temperature" in text
    assert "answers 11 of 12 pictures" in text


def test_a_run_without_a_temperature_is_told_of_none():
    """Its figures before and after are the same ones."""
    same = {"log_loss": 0.5, "brier": 0.2, "ece": 0.05}
    evaluation = {**same, "classes": ["a", "b"], "before_temperature": same, "decision": {"fitted_on": 0}}
    assert "temperature" not in calibration_words(evaluation)
    assert [row.interval for row in figures_of(evaluation)] == ["", "", ""]


def test_a_model_that_is_unsure_of_everything_is_reported_on_too():
    nothing = {"count": 0, "of": 12, "correct": 0, "accuracy": None, "interval": None}
    told = decision_words({"decision": {"unsure_below": 0.99}, "answered": nothing})
    assert told[-1] == "So it answers none of 12 pictures."


def test_the_accuracy_without_copies_is_told(page):
    assert "Without the 2 judged pictures that have a copy" in words(page)


def test_the_worst_mistakes_are_shown_with_a_map_and_what_was_learned(page):
    alts = [image["alt"] for image in page.all("img")]
    assert sum(alt.startswith("The same picture with a heat map") for alt in alts) == 3 + 12  # mistakes; least sure
    assert words(page).count("Nearest it learned from") == 15
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
    assert "book is best at 0.001 (91.7%) and diverged at 1 of 3 rates" in words(page)


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
    text = words(Page(older / "report.html"))
    assert evaluation["top1"]["correct"] == int(re.search(r"pictures right: (\d+) of 12", text)[1])
    for absent in (
        "How sure, and how rightly so",
        "What the check",
        "Other runs",
        "Learning rates",
        "About this page",
    ):
        assert absent not in text


def test_findings_are_counted_whole_though_not_all_are_shown(run):
    one = {"kind": "dark", "severity": "note", "paths": [], "message": "Dark.", "advice": "Look."}
    write_json(run / "check.json", {"findings": [{**one, "severity": "error"}, *[one] * 40], "pictures": 50})
    relish.report(run)
    text = words(Page(run / "report.html"))
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
    text = words(Page(run / "report.html"))
    assert "2 pictures that should be here are not" in text
    assert "9 of 12, 95% interval" in text
    shutil.rmtree(moved)
    relish.report(run)
    gone = Page(run / "report.html")
    assert not gone.all("img")
    assert "9 of 12, 95% interval" in words(gone)


def test_without_the_package_for_heat_maps_the_report_is_made_and_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    ended = done("report", run)
    assert "Heat maps: the package grad-cam cannot be used" in ended.err
    page = Page(run / "report.html")
    assert "relish-vision[explain]" in page.text
    assert not [image for image in page.all("img") if "heat map" in image["alt"]]
    assert words(page).count("Nearest it learned from") == 15


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_path_and_names_the_next_step(run, tmp_path):
    ended = done("report", run, "--out", tmp_path / "boss.html")
    assert ended.out == f"{tmp_path / 'boss.html'}\n"
    assert f"relish predict {run}" in ended.err
    assert "9 of 12, 95% interval" in words(Page(tmp_path / "boss.html"))


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


# ---- charts and the matrix ------------------------------------------------------------------------------------------


@given(st.floats(0, 0.95), st.integers(2, 8))
def test_the_ticks_of_an_axis_are_round_and_inside(low, most):
    axis = even_axis("", low, 1.0, most=most)
    assert 1 <= len(axis.ticks) <= most + 1
    assert all(low - 1e-9 <= value <= 1 + 1e-9 for value, _ in axis.ticks)
    assert all(float(told) == pytest.approx(value, abs=1e-9) for value, told in axis.ticks)


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=8))
def test_every_learning_rate_lies_on_its_axis(rates):
    axis = log_axis("", rates)
    assert axis.ticks
    assert all(0 <= axis.share(rate) <= 1 for rate in rates)


def test_marks_stand_where_their_values_are():
    bins = [{"low": 0.8, "high": 1.0, "count": 4, "confidence": 0.9, "accuracy": 0.5}]
    chart = reliability_chart(bins, before=[(0.25, 0.75)])
    (bar,), (dot,) = chart.bars, chart.dots
    assert bar.height == pytest.approx(0.5 * (chart.frame["bottom"] - chart.frame["top"]), abs=0.2)
    assert bar.x == pytest.approx(chart.at_x(0.8), abs=0.1)
    assert dot.x - chart.frame["left"] == pytest.approx(0.25 * (chart.frame["right"] - chart.frame["left"]), abs=0.2)
    assert chart.frame["bottom"] - dot.y == pytest.approx(1.5 * bar.height, abs=0.3)


def test_a_sweep_in_which_all_diverged_is_drawn_too():
    chart = sweep_chart({"book": [SweepPoint(0.1, None), SweepPoint(1.0, None)]})
    assert [dot.cross for dot in chart.dots] == [True, True]
    assert "book diverged everywhere" in chart.summary


def test_charts_of_nothing_are_left_out():
    assert (sweep_chart({}), coverage_chart([]), reliability_chart([], [])) == (None, None, None)


def test_bins_are_those_of_their_definition():
    chance = np.random.default_rng(1)
    found, labels = chance.dirichlet([1, 1, 1], 500), chance.integers(0, 3, 500)
    sure, right = found.max(1), found.argmax(1) == labels
    wanted = [
        (sure[of].mean(), right[of].mean())
        for low in np.arange(15) / 15
        if (of := (sure > low) & (sure <= low + 1 / 15)).any()
    ]
    np.testing.assert_allclose(bins_of(found, labels), wanted)


@given(st.integers(1, 40), st.integers(0, 400), st.integers(0, 60))
def test_the_matrix_shows_the_most_confused_and_no_more_pictures_than_there_is_room(classes, count, room):
    chance = np.random.default_rng(count)
    labels, said = chance.integers(0, classes, count), chance.integers(0, classes, count)
    shown = confusion_of(said, labels, classes)
    assert len(shown.classes) + shown.left_out == classes
    assert len(shown.classes) == min(classes, MOST_CLASSES)
    for row in shown.rows:
        for cell in row:
            assert len(cell.positions) == int(((labels == cell.truth) & (said == cell.said)).sum())
    chosen = cells_to_picture(shown, room)
    assert sum(map(len, chosen.values())) <= room
    positions = [p for some in chosen.values() for p in some]
    assert len(positions) == len(set(positions))


def test_the_pair_that_is_confused_most_is_in_the_matrix():
    labels = np.repeat(np.arange(30), 10)
    said = labels.copy()
    said[170:178] = 25
    assert {17, 25} <= set(confusion_of(said, labels, 30).classes)
