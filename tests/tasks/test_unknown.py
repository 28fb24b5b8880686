"""What is unlike anything a model learned from: told by every door alike, beside the probabilities; and where not."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch import nn

import relish
from relish.evaluation.prediction import UNLIKE
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.models.saved_model import load_model, read_header
from tests.commands import done, refused
from tests.conftest import SMALL, SQUARE, Heard, draw, draw_dataset, read_json
from tests.tasks.test_user_code import Net

SETTINGS = {**SMALL, "epochs": 12, "batch_size": 4, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory) -> Path:
    """A folder with `colours`, `strange` pictures of other colours, a finished `run` and its `model.onnx`."""
    folder = tmp_path_factory.mktemp("unknown")
    draw_dataset(folder / "colours")
    for number, colour in enumerate([(250, 250, 250), (0, 0, 0), (60, 250, 60), (250, 250, 0)]):
        draw(folder / "strange" / f"{number}.png", colour, number)
    heard = Heard()
    relish.fit(
        folder / "colours", recipe="book", weights=tiny_source, settings=SETTINGS, out=folder / "run", progress=heard
    )
    (folder / "said.txt").write_text("\n".join(heard.lines))
    relish.export(folder / "run", folder / "model.onnx")
    return folder


def rows_of(*words: object) -> list[dict]:
    return json.loads(done("predict", *words, "--json").out)


# ---- fit, predict, evaluate -----------------------------------------------------------------------------------------


def test_predict_tells_it_beside_the_probabilities(made):
    usual, strange = (rows_of(made / "run", made / folder) for folder in ("colours/train", "strange"))
    assert all(set(row) >= {"class", "probabilities", "unsure"} for row in strange)
    assert max(row["unfamiliarity"] for row in usual) < max(row["unfamiliarity"] for row in strange)
    limit = read_json(made / "run" / "evaluation.json")["decision"]["unknown_above"]
    for row in [*usual, *strange]:
        assert row["unknown"] == (row["unfamiliarity"] > limit)
    assert any(row["unknown"] for row in strange)
    shown = done("predict", made / "run", made / "strange").out.splitlines()
    assert [line.endswith(f"  {UNLIKE}") for line in shown] == [row["unknown"] for row in strange]


def test_a_table_has_a_column_for_each(made, tmp_path):
    wanted = rows_of(made / "run", made / "strange")
    ended = done("predict", made / "run", made / "strange", made / "nothing", "--out", tmp_path / "a.jsonl")
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["unknown"] for row in found] == [*(row["unknown"] for row in wanted), None]
    assert found[0]["unfamiliarity"] == pytest.approx(wanted[0]["unfamiliarity"], abs=1e-6)
    assert f"{sum(row['unknown'] for row in wanted)} {UNLIKE}" in ended.out


def test_evaluate_counts_what_predict_says(made):
    rows = rows_of(made / "run", made / "colours" / "test")
    found = json.loads(done("evaluate", made / "run", made / "colours", "--json").out)
    assert found["unknown"]["count"] == sum(row["unknown"] for row in rows)
    assert (found["unknown"]["of"], found["unknown"]["above"]) == (12, found["decision"]["unknown_above"])
    assert read_json(made / "run" / "evaluation.json")["unknown"] == found["unknown"]
    assert re.search(rf"^unknown \d+ of 12 pictures (is|are) {UNLIKE}$", done(
        "evaluate", made / "run", made / "colours").out, re.MULTILINE)  # fmt: skip


def test_fit_says_what_the_limit_was_chosen_on(made):
    """20 training pictures are too few for one in a hundred."""
    said = (made / "said.txt").read_text()
    assert re.search(
        r"^unknown above \d\.\d+: 0 of 20 held-out pictures, the strangest of which is the limit", said, re.M
    )


def test_the_report_shows_the_strangest_test_pictures(made, tmp_path):
    page = relish.report(made / "run", tmp_path / "report.html").read_text()
    scores = np.load(made / "run" / "predictions.npz")["unfamiliarity"]
    shown = re.findall(r"unfamiliarity (\d\.\d{3})", page[page.index('id="strange"') :])
    assert [float(one) for one in shown] == pytest.approx(sorted(scores, reverse=True)[: len(shown)], abs=6e-4)
    assert len(shown) == 6


def test_whoever_loads_the_network_alone_meets_the_network_alone(made):
    """As timm and torch load a file, strictly: the bank lies in the header."""
    file = made / "run" / "model.safetensors"
    description = load_model(file)[1]
    tensors = safetensors.torch.load_file(file)
    assert tensors.keys() == description.build().state_dict().keys()
    description.build().load_state_dict(tensors, strict=True)
    assert "unfamiliarity" in read_header(file)


def test_a_threshold_chosen_later_leaves_it_alone(made, tiny_source, tmp_path):
    draw_dataset(tmp_path / "colours")
    settings = {"val_split": 0.4, "weights": tiny_source, "settings": SMALL, "recipe": "book"}
    clf = relish.fit(tmp_path / "colours", out=tmp_path / "run", unknown=0.2, **settings)
    chosen = relish.decide(tmp_path / "run", threshold="f1")
    assert chosen.after.unknown == chosen.before.unknown is not None
    again = relish.load(tmp_path / "run")
    assert again.decision.unknown_above == clf.decision.unknown_above
    pictures = sorted((tmp_path / "colours" / "test").rglob("*.png"))
    assert [p.unfamiliarity for p in again.predict(pictures)] == [p.unfamiliarity for p in clf.predict(pictures)]


def test_a_validation_split_is_what_the_limit_is_chosen_on(tmp_path, tiny_source):
    draw_dataset(tmp_path / "colours")
    heard = Heard()
    relish.fit(
        tmp_path / "colours", recipe="book", weights=tiny_source, settings=SMALL, val_split=0.5, unknown=0.2,
        out=tmp_path / "run", progress=heard,
    )  # fmt: skip
    assert any(re.match(r"unknown above .*: 1 of 10 held-out pictures$", line) for line in heard.lines)


def test_of_few_pictures_that_were_all_learned_from_each_is_held_out_in_turn(tmp_path, tiny_source):
    draw_dataset(tmp_path / "colours", 10, 0, size=SQUARE)
    relish.fit(
        tmp_path / "colours" / "train", recipe="probe", weights=tiny_source, settings={"image_size": 32},
        out=tmp_path / "run",
    )  # fmt: skip
    evaluation = read_json(tmp_path / "run" / "evaluation.json")
    assert (evaluation["unknown"]["count"], evaluation["unknown"]["of"]) == (0, 20)
    assert np.load(tmp_path / "run" / "predictions.npz")["unfamiliarity"].max() == evaluation["unknown"]["above"]


def test_a_probe_tells_it_too(tmp_path, squares, tiny_source):
    clf = relish.fit(squares, recipe="probe", weights=tiny_source, settings={"image_size": 32},
                     out=tmp_path / "run")  # fmt: skip
    assert clf.unfamiliarity is not None
    assert relish.load(tmp_path / "run").decision.unknown_above == clf.decision.unknown_above is not None


# ---- none -----------------------------------------------------------------------------------------------------------


class Doubled(Net):
    """Does more after its output layer than features can be had of."""

    def forward(self, images):
        return 2 * super().forward(images)


@pytest.mark.parametrize("choice", ["asked", "cannot"])
def test_a_model_that_cannot_say_has_null_and_nothing_breaks(choice, tmp_path, tiny_source):
    draw_dataset(tmp_path / "colours", 4, 3)
    torch.manual_seed(5)
    source = {"weights": tiny_source, "unknown": "none"} if choice == "asked" else {"source": Doubled()}
    heard = Heard()
    clf = relish.fit(
        tmp_path / "colours", recipe="book", settings={"epochs": 1, "batch_size": 4, "image_size": 32},
        out=tmp_path / "run", progress=heard, **source,
    )  # fmt: skip
    (row,) = clf.predict(tmp_path / "colours" / "test" / "red" / "000.png")
    assert (row.as_json()["unfamiliarity"], row.as_json()["unknown"]) == (None, False)
    assert read_json(tmp_path / "run" / "evaluation.json")["unknown"] is None
    assert any("unknown nothing is called so: " in line for line in heard.lines) == (choice == "cannot")
    exported = relish.export(clf, tmp_path / "model.onnx")
    assert exported.as_json()["certificate"]["unknown"] is None
    (again,) = OnnxClassifier(exported.path).predict(tmp_path / "colours" / "test" / "red" / "000.png")
    assert (again.unfamiliarity, again.unknown) == (None, False)
    relish.report(clf)
    assert 'id="strange"' not in (tmp_path / "run" / "report.html").read_text()


def test_what_is_no_share_is_refused_before_any_work(made, tmp_path):
    said = refused("fit", made / "colours", "--unknown", "2", "--out", tmp_path / "run")
    assert "--unknown 2: not a share of held-out pictures" in said
    assert not (tmp_path / "run").exists()


def test_a_bank_of_another_network_is_refused(made, tmp_path):
    from relish.evaluation.unfamiliarity import Unfamiliarity
    from relish.models.saved_model import rewrite_header

    model = tmp_path / "model.safetensors"
    model.write_bytes((made / "run" / "model.safetensors").read_bytes())
    rewrite_header(model, {"unfamiliarity": Unfamiliarity(np.ones((3, 5), np.float16), 1).as_header()})
    assert "5 features" in refused("predict", model, made / "strange")


# ---- exported -------------------------------------------------------------------------------------------------------


def test_an_exported_file_answers_alike(made):
    pictures = [*sorted((made / "strange").iterdir()), *sorted((made / "colours" / "test").rglob("*.png"))]
    wanted, found = (
        model.predict(pictures) for model in (relish.load(made / "run"), OnnxClassifier(made / "model.onnx"))
    )
    np.testing.assert_allclose(
        [one.unfamiliarity for one in found], [one.unfamiliarity for one in wanted], rtol=0, atol=1e-5
    )
    assert [one.unknown for one in found] == [one.unknown for one in wanted]
    assert rows_of(made / "model.onnx", made / "strange")[0]["unknown"] == wanted[0].unknown
    there = json.loads(done("evaluate", made / "model.onnx", made / "colours", "--json").out)
    assert there["unknown"] == read_json(made / "run" / "evaluation.json")["unknown"]


def test_its_certificate_covers_it_and_its_metadata_has_the_limit(made):
    model = onnx.load(made / "model.onnx")
    words = {prop.key: prop.value for prop in model.metadata_props}
    proof = json.loads(words["certificate"])["unknown"]
    assert proof["worst_difference"] < 1e-5 < proof["tolerance"]
    assert proof["agreed"]["correct"] == 12
    limit = relish.load(made / "run").decision.unknown_above
    assert json.loads(words["decision"])["unknown_above"] == limit
    (output,) = [one for one in model.graph.output if one.name == "unfamiliarity"]
    assert [side.dim_value for side in output.type.tensor_type.shape.dim] == [1]


def test_a_batch_of_pictures_in_eight_bits_has_one_each(made, tmp_path):
    exported = relish.export(made / "run", tmp_path / "x.onnx", batch=3, int8=True, allow_mismatch=True)
    assert exported.f32.unknown.worst_difference < 1e-5
    assert exported.certificate.unknown.worst_difference < 0.1
    assert any(line.startswith("        int8: unfamiliarity up to") for line in exported.summary())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    assert OnnxClassifier(tmp_path / "x.onnx").probabilities(pixels).unfamiliarity.shape == (3,)
    rows = OnnxClassifier(tmp_path / "x.onnx").predict(list(pixels[:2]))
    assert [one.unfamiliarity is not None for one in rows] == [True, True]


def test_a_graph_that_finds_other_pictures_strange_is_refused(made, tmp_path, monkeypatch):
    from relish.exporting import build

    monkeypatch.setattr(build, "SHORTEST", 1e6)
    assert "an unfamiliarity differs by" in refused("export", made / "run", tmp_path / "x.onnx", code=1)
    assert not (tmp_path / "x.onnx").exists()


def test_the_network_is_left_without_hooks(made):
    clf = relish.load(made / "run")
    clf.predict(sorted((made / "strange").iterdir()))
    assert not any(module._forward_pre_hooks for module in clf.network.modules() if isinstance(module, nn.Module))
