"""A classifier's probabilities, features and score are what one computes by hand; a notebook shows what is known."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relish
from relish.core.errors import DataError, ImageError, ModelError
from relish.data.transforms import Preprocessing
from relish.evaluation.prediction import Decision
from relish.tasks.classifier import Classifier, saved_path
from tests.commands import done, refused
from tests.conftest import draw_dataset, read_json
from tests.run_folders import enriched, fitted

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
WEIGHT = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [-1.0, 0.25, 2.0]])
BIAS = np.array([0.1, -0.2, 0.3])
CLASSES = ("ant", "bee", "cat")
COLOURS = np.array([[255, 0, 0], [10, 200, 30], [128, 128, 128], [3, 90, 250]], dtype=np.uint8)


@pytest.fixture
def linear() -> Classifier:
    """Its features are an image's mean colour, normalised; its logits a linear map of them, its temperature 2."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    with torch.no_grad():
        network[2].weight.copy_(torch.from_numpy(WEIGHT))
        network[2].bias.copy_(torch.from_numpy(BIAS))
    preprocessing = Preprocessing(image_size=8, resize=8, mean=MEAN, std=STD)
    return Classifier(network, CLASSES, preprocessing, decision=Decision(temperature=2.0))


def one_colour(colours: np.ndarray) -> list[Image.Image]:
    return [Image.new("RGB", (11, 7), tuple(map(int, colour))) for colour in colours]


def features_by_hand(colours: np.ndarray) -> np.ndarray:
    return (colours / 255 - MEAN) / STD


def probabilities_by_hand(colours: np.ndarray) -> np.ndarray:
    powers = np.exp((features_by_hand(colours) @ WEIGHT.T + BIAS) / 2.0)
    return powers / powers.sum(1, keepdims=True)


def test_probabilities_are_the_softmax_of_the_tempered_logits(linear):
    found = linear.predict_proba(one_colour(COLOURS))
    assert (found.shape, found.dtype) == ((4, 3), np.float32)
    np.testing.assert_allclose(found, probabilities_by_hand(COLOURS), rtol=1e-5)


def test_the_columns_are_in_the_order_of_the_classes(linear):
    assert linear.classes_.tolist() == list(CLASSES)
    images = one_colour(COLOURS)
    likeliest = linear.classes_[linear.predict_proba(images).argmax(1)]
    assert likeliest.tolist() == [one.class_name for one in linear.predict(images)]


def test_features_are_the_inputs_of_the_output_layer(linear):
    found = linear.features(one_colour(COLOURS))
    assert (found.shape, found.dtype) == ((4, 3), np.float32)
    np.testing.assert_allclose(found, features_by_hand(COLOURS), rtol=1e-5, atol=1e-6)


def test_a_saved_networks_features_give_its_probabilities(tmp_path, tiny_source):
    """timm's own way to a network's features is the independent one."""
    run = fitted(draw_dataset(tmp_path / "colours"), tiny_source, tmp_path / "run")
    model = relish.load(run)
    images = sorted((tmp_path / "colours" / "test").rglob("*.png"))
    found = model.features(images)
    with torch.inference_mode():
        logits = model.network.get_classifier()(torch.from_numpy(found)).double().numpy() / model.decision.temperature
    powers = np.exp(logits)
    np.testing.assert_allclose(model.predict_proba(images), powers / powers.sum(1, keepdims=True), rtol=1e-4)


def test_more_images_than_a_batch_are_each_in_their_row(linear):
    colours = np.random.default_rng(0).integers(0, 256, (150, 3), dtype=np.uint8)
    np.testing.assert_allclose(linear.predict_proba(one_colour(colours)), probabilities_by_hand(colours), rtol=1e-4)
    np.testing.assert_allclose(linear.features(one_colour(colours)), features_by_hand(colours), rtol=1e-4, atol=1e-5)


def test_one_image_is_one_row_and_none_are_none(linear):
    assert linear.predict_proba(one_colour(COLOURS)[0]).shape == (1, 3)
    assert linear.predict_proba([]).shape == (0, 3)
    assert linear.features([]).shape == (0, 3)


def test_score_is_the_share_of_predictions_that_are_right(linear):
    images, truth = one_colour(COLOURS), [CLASSES[k] for k in probabilities_by_hand(COLOURS).argmax(1)]
    assert linear.score(images, truth) == 1.0
    other = CLASSES[(CLASSES.index(truth[0]) + 1) % 3]
    assert linear.score(images, [other, *truth[1:]]) == 0.75


def test_score_goes_by_the_threshold_that_predictions_go_by(linear):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    nn.init.zeros_(network[2].weight)
    nn.init.zeros_(network[2].bias)
    strict = Decision(positive="ant", threshold=0.6)
    model = Classifier(network, ("ant", "bee"), linear.preprocessing, decision=strict)
    assert model.predict_proba(one_colour(COLOURS)).tolist() == [[0.5, 0.5]] * 4
    assert model.score(one_colour(COLOURS), ["bee"] * 4) == 1.0


@pytest.mark.parametrize(
    ("labels", "told"),
    [(["ant", "bee"], "got 4 images, 2 labels"), (["ant", "bee", "cat", "cow"], 'does not know the class "cow"')],
)
def test_labels_that_do_not_fit_the_images_are_refused(linear, labels, told):
    with pytest.raises(DataError, match=told):
        linear.score(one_colour(COLOURS), labels)


@pytest.mark.parametrize("ask", ["predict_proba", "features"])
def test_an_image_that_cannot_be_opened_is_named(linear, tmp_path, ask):
    """A row of numbers has no place for an error, and one left out would shift the others."""
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(ImageError, match=r"notes\.png"):
        getattr(linear, ask)([*one_colour(COLOURS), tmp_path / "notes.png"])
    with pytest.raises(ImageError, match=r"notes\.png"):
        linear.score([tmp_path / "notes.png"], ["ant"])


def test_a_classifier_that_is_in_no_file_has_no_path(linear):
    with pytest.raises(ModelError, match="not loaded from a file"):
        saved_path(linear)
    with pytest.raises(ModelError, match="not loaded from a file"):
        relish.report(linear)


# ---- in a notebook --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(tmp_path_factory, tiny_source, home_of_module):
    """A run with 9 of 12 right."""
    root = tmp_path_factory.mktemp("notebook")
    return enriched(fitted(draw_dataset(root / "colours"), tiny_source, root / "run"))


def test_a_notebook_shows_accuracy_classes_and_the_three_worst_mistakes(judged):
    page = relish.load(judged)._repr_html_()
    assert "test accuracy between 0.47 and 0.91 (9 of 12 right)" in page
    assert "2 classes: blue, red" in page
    kept = np.load(judged / "predictions.npz")
    of_truth = kept["probabilities"][np.arange(12), kept["labels"]]
    rows = read_json(judged / "dataset.json")["splits"]["test"]
    worst = [rows[i]["path"] for i in np.argsort(of_truth)[:3]]
    assert re.findall(r'title="([^"]+)"', page) == worst
    for address in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page):
        assert Image.open(io.BytesIO(base64.b64decode(address))).size == (40, 32)


def test_a_figure_of_few_pictures_is_an_interval(judged):
    assert "test accuracy between 0.47 and 0.91 (9 of 12 right)" in repr(relish.load(judged))


@pytest.fixture
def cameras(judged, tmp_path):
    """A table of the run's test pictures: two cameras, scenes of three pictures."""
    dataset = read_json(judged / "dataset.json")
    rows = [
        f"{Path(dataset['root'], row['path'])},{row['class']},{'AB'[i % 2]},scene {i // 3}"
        for i, row in enumerate(dataset["splits"]["test"])
    ]
    (tmp_path / "cameras.csv").write_text("\n".join(["path,label,camera,group", *rows]))
    return tmp_path / "cameras.csv"


def test_accuracy_is_shown_by_the_columns_of_a_table(judged, cameras):
    found = relish.load(judged).evaluate(cameras, by=("camera", "group"))
    camera, group = found.subgroups
    assert {one.name: one.accuracy.count for one in camera.values} == {"A": 6, "B": 6}
    assert [one.accuracy.count for one in group.values] == [3, 3, 3, 3]
    assert found.groups.count == 4
    told = done("evaluate", judged, cameras, "--by", "camera")
    assert "accuracy by camera, worst first:" in told.out
    assert "after Holm's correction, no camera is worse" in told.out
    assert "12 images, 4 groups: the interval is as wide as" in told.out
    document = json.loads(done("evaluate", judged, cameras, "--by", "camera", "--json").out)
    assert [one["column"] for one in document["subgroups"]] == ["camera"]
    assert document["subgroups"][0]["values"][0]["accuracy"]["count"] == 6
    assert document["groups"] == found.groups.as_json()


def test_groups_of_a_folder_are_a_column_too(judged):
    words = done("evaluate", judged, judged.parent / "colours", "--group-by", r"^\d+", "--by", "group").out
    assert "accuracy by group, worst first:" in words
    assert re.search(r"^12 images, \d+ groups: the interval is as wide as that of", words, re.MULTILINE)


def test_a_column_that_is_not_there_is_refused_with_those_that_are(judged, cameras):
    assert 'no column "camra"' in (said := refused("evaluate", judged, cameras, "--by", "camra"))
    assert 'did you mean "camera"?' in said
    assert "There are: " in said
    assert "Columns come from a table" in refused("evaluate", judged, judged.parent / "colours", "--by", "camera")


def test_images_that_are_gone_are_no_examples(judged, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(judged, run)
    dataset = read_json(run / "dataset.json")
    (run / "dataset.json").write_text(str(dataset).replace("'", '"').replace(dataset["root"], str(tmp_path / "gone")))
    page = relish.load(run)._repr_html_()
    assert "9 of 12" in page
    assert "<img" not in page


def test_of_a_model_alone_a_notebook_shows_its_classes(judged, linear):
    page = relish.load(judged / "model.safetensors")._repr_html_()
    assert "2 classes: blue, red" in page
    assert "not evaluated" in page
    assert "<img" not in page
    assert "3 classes: ant, bee, cat" in linear._repr_html_()


def test_class_names_are_text_and_never_markup(linear):
    named = Classifier(linear.network, ("<b>ant", "bee", "cat"), linear.preprocessing)
    assert "&lt;b&gt;ant" in named._repr_html_()
    assert "<b>ant" not in named._repr_html_()
