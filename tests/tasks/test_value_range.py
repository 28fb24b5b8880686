"""One scale for pictures deeper than 8 bits, from training to every place where the model sees a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import relish
from relish.core.errors import DataError, RunError
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.models.saved_model import read_header
from relish.tasks.serve import load_served
from tests.commands import done, refused
from tests.conftest import SMALL, Heard, draw_dataset, read_json
from tests.deep_files import png, tiff
from tests.serving import serving

SETTINGS = {**SMALL, "epochs": 3, "batch_size": 4, "learning_rate": 1e-3}


def deepened(source: Path, target: Path, bits: int = 12) -> Path:
    """The same dataset in 16-bit files that use so many bits."""
    for path in source.rglob("*.png"):
        values = np.rint(np.asarray(Image.open(path)) * ((2**bits - 1) / 255))
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(png(values))
    return target


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory) -> Path:
    """`plain` in 8 bits and `deep` in 12; a run on each, an exported file of the latter, and what was said."""
    folder = tmp_path_factory.mktemp("depth")
    draw_dataset(folder / "plain")
    deepened(folder / "plain", folder / "deep")
    heard = Heard()
    for name in ("plain", "deep"):
        relish.fit(
            folder / name, recipe="book", weights=tiny_source, settings=SETTINGS, out=folder / f"{name}-run",
            progress=heard if name == "deep" else None,
        )  # fmt: skip
    relish.export(folder / "deep-run", folder / "deep.onnx")
    (folder / "heard.json").write_text(json.dumps(heard.lines))
    return folder


def probabilities(predictions) -> np.ndarray:
    assert all(one.error is None for one in predictions), predictions
    return np.array([list(one.probabilities.values()) for one in predictions])


def pictures(folder: Path) -> list[Path]:
    return sorted((folder / "test").rglob("*.png"))


def test_a_run_on_12_bits_is_the_run_on_the_same_pictures_in_8(made):
    wanted = probabilities(relish.load(made / "plain-run").predict(pictures(made / "plain")))
    found = probabilities(relish.load(made / "deep-run").predict(pictures(made / "deep")))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert wanted.std(axis=0).max() > 0.02, "pictures that all get the same answer prove nothing"
    plain, deep = (read_json(made / run / "evaluation.json")["top1"] for run in ("plain-run", "deep-run"))
    assert plain == deep


def test_fit_says_the_scale_and_the_model_keeps_it(made):
    (line,) = [line for line in json.loads((made / "heard.json").read_text()) if line.startswith("values")]
    assert line == (
        "values  0 to 4,095 is black to white (12 bits) in 32 of 32 pictures, which are deeper than 8 bits and use "
        "0 to 4,095"
    )
    preprocessing = json.loads(read_header(made / "deep-run" / "model.safetensors")["preprocessing"])
    assert preprocessing["value_range"] == {"low": 0.0, "high": 4095.0, "given": False}
    assert "0 to 4,095 is black to white" in (made / "deep-run" / "README.md").read_text()


def test_of_8_bits_nothing_is_said_or_kept(made):
    assert "value_range" not in json.loads(read_header(made / "plain-run" / "model.safetensors")["preprocessing"])
    assert relish.load(made / "plain-run").preprocessing.value_range is None


def test_an_exported_file_and_the_server_read_pictures_as_the_run_does(made):
    wanted = probabilities(relish.load(made / "deep-run").predict(pictures(made / "deep")))
    file = OnnxClassifier(made / "deep.onnx")
    np.testing.assert_allclose(probabilities(file.predict(pictures(made / "deep"))), wanted, atol=1e-4)
    assert file.about.preprocessing["value_range"]["high"] == 4095
    first = pictures(made / "deep")[0].read_bytes()
    for model in (made / "deep-run", made / "deep.onnx"):
        with serving(load_served(model)) as client:
            answer = client.post("/predict", files={"files": ("a.png", first)}).json()
        found = answer["predictions"][0]["probabilities"].values()
        np.testing.assert_allclose(list(found), wanted[0], atol=1e-4)


def test_evaluate_and_report_read_pictures_as_the_run_does(made, tmp_path):
    wanted = read_json(made / "deep-run" / "evaluation.json")["top1"]["correct"]
    assert relish.load(made / "deep-run").evaluate(made / "deep").top1.correct == wanted
    assert relish.evaluate(made / "deep.onnx", made / "deep").top1.correct == wanted
    relish.report(made / "deep-run", tmp_path / "deep.html")
    relish.report(made / "plain-run", tmp_path / "plain.html")
    shown = [{w for w in (tmp_path / f"{n}.html").read_text().split('"') if w.startswith("data:image")} for n in
             ("deep", "plain")]  # fmt: skip
    assert shown[0] == shown[1], "the same small pictures, brightness and all"


def test_a_picture_on_another_scale_gets_an_error_and_the_others_their_answer(made, tmp_path):
    (tmp_path / "full.png").write_bytes(png(np.full((40, 30, 3), 60_000)))
    (tmp_path / "float.tif").write_bytes(tiff(np.full((40, 30), 0.7), "f4"))
    paths = [tmp_path / "full.png", pictures(made / "deep")[0], tmp_path / "float.tif"]
    for model in (relish.load(made / "deep-run"), OnnxClassifier(made / "deep.onnx")):
        full, good, dark = model.predict(paths)
        assert good.error is None
        assert "are on another scale than 0 to 4,095" in full.error
        assert "are on another scale than 0 to 4,095" in dark.error


def test_a_model_of_8_bits_says_that_deep_pictures_are_new_to_it(made):
    heard = Heard()
    relish.load(made / "plain-run").evaluate(made / "deep", progress=heard)
    assert any("32 pictures deeper than 8 bits" in line for line in heard.warnings)


def test_a_range_that_is_given_is_taken_kept_and_part_of_the_run(made, tiny_source, tmp_path):
    out = tmp_path / "run"
    words = ["fit", made / "deep", "--weights", tiny_source, "--recipe", "book", "--set", "image_size=32"]
    ended = done(*words, "--set", "epochs=1", "--value-range", "0..16383", "--out", out)
    assert "0 to 16,383 is black to white (as you asked)" in ended.err
    assert relish.load(out).preprocessing.value_range.option == "0..16383"
    assert read_json(out / "request.json")["value_range"] == "0..16383"
    with pytest.raises(RunError, match=r"another value_range \(0\.\.16383, not 0\.\.4095\)"):
        relish.fit(resume=out, value_range=(0, 4095))
    assert "LOW..HIGH" in refused(*words, "--value-range", "4095", "--out", tmp_path / "none")


def test_pictures_that_are_not_on_one_scale_are_refused_before_training(made, tiny_source, tmp_path):
    mixed = deepened(made / "plain", tmp_path / "mixed", bits=10)
    deepened(made / "plain" / "train" / "red", mixed / "train" / "red", bits=16)
    words = refused("fit", mixed, "--weights", tiny_source, "--out", tmp_path / "run")
    assert "mixed: the pictures deeper than 8 bits are not on one scale: 22 of them use 0 to 1,023" in words
    assert "--value-range 0..65535" in words
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="not on one scale"):
        relish.show(mixed)


# ---- check ----------------------------------------------------------------------------------------------------------


def test_check_says_the_scale_and_calls_no_deep_picture_blank(made, tiny_source, tmp_path):
    ended = done("check", deepened(made / "plain", tmp_path / "ten", bits=10), "--weights", tiny_source)
    assert "values  0 to 1,023 is black to white (10 bits) in 32 of 32 pictures" in ended.err
    assert "blank" not in ended.out
    found = json.loads(done("check", tmp_path / "ten", "--weights", tiny_source, "--json").out)
    assert found["value_range"] == [0, 1023]


def test_check_of_pictures_that_are_badly_scaled_names_the_scale_and_not_the_pictures(made, tiny_source, tmp_path):
    found = relish.check(
        deepened(made / "plain", tmp_path / "ten", bits=10), weights=tiny_source, value_range=(0, 65535),
        html=tmp_path / "check.html",
    )  # fmt: skip
    assert not [one for one in found.findings if one.kind == "blank"]
    (dark,) = [one for one in found.findings if one.kind == "dark"]
    assert len(dark.paths) == 32
    assert "the scale is not theirs" in dark.advice


def test_check_looks_at_pictures_that_are_not_on_one_scale_and_says_why_fit_would_not(made, tiny_source, tmp_path):
    mixed = deepened(made / "plain", tmp_path / "mixed", bits=10)
    deepened(made / "plain" / "train" / "red", mixed / "train" / "red", bits=16)
    found = relish.check(mixed, weights=tiny_source)
    errors = [one for one in found.findings if one.severity == "error" and one.kind == "layout"]
    assert "not on one scale" in errors[0].message
    assert not [one for one in found.findings if one.kind == "blank"]
