"""The model card: what was measured and nothing else, in a form that the Hub reads and Markdown shows."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from relish.core.run_folder import RunFolder
from relish.reporting.model_card import card_data, fenced, markdown_table, model_card, plain, source_text
from tests.commands import done, refused
from tests.conftest import draw_dataset, read_json

BOOK = ("--recipe", "book", "--image-size", 32, "--batch-size", 8, "--epochs", 1)


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory, home_of_module):
    folder = tmp_path_factory.mktemp("made")
    draw_dataset(folder / "colours", train=12)
    words = ("--weights", tiny_source, *BOOK, "--val-split", 0.25, "--out", folder / "run")
    done("fit", folder / "colours", *words)
    return folder / "run"


@pytest.fixture
def run(made, tmp_path) -> RunFolder:
    """A run of one's own, to change."""
    return RunFolder(Path(shutil.copytree(made, tmp_path / "colours-book-1")))


def tables_of(text: str) -> list[list[list[str]]]:
    """Every table as a reader of Markdown shows it: rows of cells."""
    tokens, found, inside = MarkdownIt("gfm-like", {"linkify": False}).parse(text), [], False
    for token in tokens:
        if token.type in ("table_open", "table_close"):
            inside = token.type == "table_open"
            found += [[] for _ in range(inside)]
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and inside:
            assert all(part.type in ("text", "text_special") for part in token.children), token.content
            found[-1][-1].append("".join(part.content for part in token.children))
    return found


def test_programs_read_the_figures_of_evaluation_json(made):
    card, evaluation = ModelCard.load(made / "README.md"), read_json(made / "evaluation.json")
    assert card.data.license == "unknown"
    assert card.data.library_name == "relish"
    assert card.data.pipeline_tag == "image-classification"
    assert {"timm", "test_resnet"} <= set(card.data.tags)
    found = {result.metric_type: result for result in card.data.eval_results}
    keys = {"accuracy": "top1", "balanced_accuracy": "balanced_accuracy", "f1": "macro_f1", "roc_auc": "auc"}
    assert set(found) == set(keys), "top-5 of two classes is no figure"
    for kind, key in keys.items():
        assert found[kind].metric_value == evaluation[key]["value"]
        assert found[kind].metric_args == {"interval_95": evaluation[key]["interval"]}
        assert (found[kind].dataset_name, found[kind].dataset_split) == ("colours", "test")


def test_people_read_them_too(made):
    evaluation = read_json(made / "evaluation.json")
    figures, classes, splits, _ = tables_of(ModelCard.load(made / "README.md").text)
    top1 = evaluation["top1"]
    low, high = top1["interval"]
    assert figures[1] == ["accuracy", f"{top1['value']:.3f}", f"{low:.3f}–{high:.3f}", f"{top1['correct']} of 12"]
    assert [row[0] for row in classes[1:]] == ["blue", "red"]
    for row, wanted in zip(classes[1:], evaluation["per_class"], strict=True):
        told = ["–" if wanted[key] is None else f"{wanted[key]:.3f}" for key in ("precision", "recall", "f1")]
        assert row[1:] == [*told, "6"]
    assert splits == [["class", "train", "validation", "test"], ["blue", "9", "3", "6"], ["red", "9", "3", "6"]]


def test_a_card_names_no_folder_of_this_machine_but_what_was_typed(made, tiny_source):
    text = (made / "README.md").read_text()
    before, typed, after = re.split(r"(```bash\nrelish fit .*)", text)
    assert str(tiny_source.parent) in typed
    assert str(tiny_source.parent) not in before + after
    assert "tiny.safetensors (SHA-256 " in text


def test_what_was_not_measured_is_not_in_it(run):
    bare = {key: read_json(run.evaluation)[key] for key in ("split", "top1", "classes", "per_class", "confusion")}
    run.check.unlink()
    text = model_card(run, bare)
    assert "## What its probabilities are worth" not in text
    assert "check" not in text
    assert "held out" not in text
    (figures, *_) = tables_of(text.split("---\n", 2)[2])
    assert [row[0] for row in figures] == ["figure", "accuracy"]
    assert len(ModelCard(text).data.eval_results) == 1


def test_what_was_measured_besides_is_in_it(run):
    evaluation = read_json(run.evaluation)
    evaluation |= {
        "without_duplicates": {"value": 0.5, "correct": 5, "count": 10, "interval": [0.24, 0.76], "left_out": 2},
        "answered": {"count": 8, "of": 12, "correct": 6, "accuracy": 0.75, "interval": [0.41, 0.93]},
        "top5": {"value": 1.0, "correct": 12, "count": 12, "interval": [0.76, 1.0]},
    }
    evaluation["decision"] |= {"positive": "red", "threshold": 0.25, "aim": "recall=0.9", "unsure_below": 0.6}
    finding = {
        "kind": "blurred",
        "severity": "note",
        "paths": ["a.png"],
        "message": "a.png | is *blurred*.",
        "advice": "x",
    }
    error = {**finding, "severity": "error", "message": "two classes share a picture."}
    run.check.write_text(json.dumps({"findings": [finding, error], "pictures": 30}))
    run.record(event="rung", epoch=0, batch=0, rung="probe", seconds=1.0, correct=24, count=24)
    text = model_card(run, evaluation)
    (figures, *_) = tables_of(text.split("---\n", 2)[2])
    rows = {row[0]: row[1:] for row in figures}
    assert rows["accuracy where it is sure (8 of 12)"] == ["0.750", "0.410–0.930", "6 of 8"]
    assert rows["accuracy without pictures that have a copy among those learned from"][0] == "0.500"
    assert rows["true class among the five likeliest"][2] == "12 of 12"
    assert "It says red where its probability is at least 0.2500, chosen for recall=0.9" in text
    assert "unsure of a class that it gives less than 0.6000" in text
    assert "2 of the test pictures have a copy" in text
    checked = text.partition("## What a check of the pictures found")[2].partition("## ")[0]
    assert checked.index("error: two classes") < checked.index("note: a.png \\| is \\*blurred\\*")
    assert "right on 1.000" not in text, "the likelier class was counted there, and not what the threshold says"
    evaluation["decision"] |= {"positive": None, "threshold": None, "aim": None}
    text = model_card(run, evaluation)
    points = 100 * (1 - evaluation["top1"]["value"])
    assert f"right on 1.000 (24 of 24); on the test pictures {points:.1f} points lower" in text


def test_a_thousand_classes_make_no_endless_page(run):
    evaluation, dataset = read_json(run.evaluation), read_json(run.dataset)
    one = {"precision": 0.5, "recall": 0.5, "count": 1}
    evaluation["classes"] = [f"c{n}" for n in range(1000)]
    evaluation["per_class"] = [{"class": f"c{n}", "f1": n / 1000, **one} for n in range(1000)]
    dataset["splits"]["train"] = [{"path": "a", "class": f"c{n}", "sha256": ""} for n in range(1000)]
    run.dataset.write_text(json.dumps(dataset))
    text = model_card(run, evaluation)
    assert len(text.splitlines()) < 220
    assert "| c49 |" in text
    assert "| c50 |" not in text


def test_relish_card_names_a_licence_and_keeps_it_when_figures_change(run):
    assert done("card", run.path, "--license", "apache-2.0").out == f"{run.card}\n"  # in a folder that was renamed
    assert ModelCard.load(run.card).data.license == "apache-2.0"
    done("decide", run.path, "--unsure", "accuracy=0.5")
    card, evaluation = ModelCard.load(run.card), read_json(run.evaluation)
    assert card.data.license == "apache-2.0"
    assert f"less than {evaluation['decision']['unsure_below']:.4f}" in card.text
    assert evaluation["model_sha256"] in card.text


def test_a_card_changed_by_hand_is_left_alone(run):
    mine = run.card.read_text() + "\nMade for the village fair.\n"
    run.card.write_text(mine)
    assert "--overwrite" in refused("card", run.path)
    ended = done("decide", run.path, "--unsure", "accuracy=0.5")
    assert "changed by hand" in ended.err
    assert run.card.read_text() == mine
    done("card", run.path, "--overwrite")
    assert "village" not in run.card.read_text()


def test_a_licence_that_is_none_is_refused(run):
    before = run.card.read_bytes()
    assert "not an identifier" in refused("card", run.path, "--license", "do what: you like")
    assert run.card.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "base", "words"),
    [
        ("timm/resnet18: timm's weights a1_in1k (SHA-256 0123…)", "timm/resnet18.a1_in1k", None),
        ("timm/nothing: timm's weights a1_in1k (SHA-256 0123…)", None, None),
        ("timm/resnet18: /home/me/secret/w.pth (SHA-256 0123…)", None, "timm/resnet18: w.pth (SHA-256 0123…)"),
        ("timm/resnet18: random weights (seed 3)", None, None),
        ("embedded: EfficientNet-Lite0 (SHA-256 0123…)", None, None),
    ],
)
def test_a_base_model_is_named_only_where_the_hub_has_it(source, base, words):
    evaluation = {"split": "test", "top1": {"value": 0.5, "interval": [0.1, 0.9]}}
    found = yaml.safe_load(card_data("m", "d", evaluation, {"source": source}, None))
    assert found.get("base_model") == base
    assert found["source"] == source_text({"source": source}) == (words or source)


# ---- Markdown -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12), min_size=1)
)
@example(["__0__", "a__b", "_a_b_"])
def test_a_table_shows_any_name_as_it_is(names):
    (shown,) = tables_of("\n".join(markdown_table(["class", "count"], [[name, 1] for name in names], right=(1,))))
    assert [row[1] for row in shown[1:]] == ["1"] * len(names)
    for row, name in zip(shown[1:], names, strict=True):
        assert re.sub(r"\s+", " ", row[0]).strip() == re.sub(r"\s+", " ", name).strip()


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "a|b", "*a*", "[x](http://y)", "`a`", "a\nb", "_x_"])
def test_a_hostile_name_is_only_a_name(name):
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"Classes: {plain(name)}, b.")
    assert re.findall(r"<(\w+)", html) == ["p"]


def test_an_ordinary_name_is_left_readable():
    assert plain("not-hotdog 2.0 golden_retriever") == "not-hotdog 2.0 golden_retriever"


def test_code_that_holds_a_fence_stays_inside_its_own():
    assert fenced("bash", "echo '```'")[0] == "````bash"
    assert fenced("bash", "echo")[0] == "```bash"
