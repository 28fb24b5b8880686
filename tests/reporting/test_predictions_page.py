"""The page of predictions: what it shows, and that hostile names do no harm."""

import base64
import io
import re
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from relish.data.dataset import Dataset
from relish.data.split import evenly_spaced
from relish.evaluation.metrics import score
from relish.reporting.predictions_page import surest_mistakes, write_predictions_page
from tests.reporting.html_page import Page

HOSTILE = '<script>alert("$x^$")</script>'


def opened(file):
    with Image.open(file) as image:
        return image.convert("RGB")


def answers(seed=0):
    return np.random.default_rng(seed).dirichlet([1, 1], 10).astype(np.float32)


def written(folder, tmp_path, probabilities=None, classes=None, **more) -> Page:
    chosen = answers() if probabilities is None else probabilities
    dataset = Dataset(folder.name, "x", folder.root, classes or folder.classes, folder.splits)
    write_predictions_page(tmp_path / "page.html", dataset, folder.splits["test"], chosen, title="A run", **more)
    return Page(tmp_path / "page.html")


def test_the_page_states_the_accuracy_of_every_picture_not_of_those_shown(folder, tmp_path):
    page = written(folder, tmp_path, mistakes=0, sample=1)
    top1 = score(answers(), folder.splits["test"].labels, folder.classes).top1
    assert f"{top1.correct} of 10" in page.text
    interval = f"{100 * top1.interval[0]:.1f}–{100 * top1.interval[1]:.1f}%"
    assert f"95% interval {interval}" in page.text
    assert page.text.count(interval) == 2, "of few pictures it is the headline too"
    assert len(page.all("img")) == 1


def test_the_page_needs_nothing_but_itself(folder, tmp_path):
    page = written(folder, tmp_path)
    assert not [tag for tag, _ in page.tags if tag in {"script", "link", "a", "iframe", "object"}]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert "http" not in re.sub("http-equiv", "", (tmp_path / "page.html").read_text())


def test_every_picture_on_the_page_is_described_and_marked_in_words(folder, tmp_path):
    page = written(folder, tmp_path, mistakes=0)
    right = int((answers().argmax(1) == folder.splits["test"].labels).sum())
    assert all(" taken for " in image["alt"] for image in page.all("img"))
    assert (page.text.count("✓ right"), page.text.count("✗ wrong")) == (right, 10 - right)


def test_the_pictures_on_the_page_are_those_of_the_split(folder, tmp_path):
    source = written(folder, tmp_path, mistakes=0).all("img")[0]["src"]
    shown = opened(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert shown.size == (40, 30)
    assert np.abs(np.subtract(shown.getpixel((20, 15)), (100, 0, 0))).max() < 6


def test_hostile_class_names_stay_words(folder, tmp_path):
    page = written(folder, tmp_path, classes=(HOSTILE, '" onerror="alert(1)'))
    assert not page.all("script")
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert HOSTILE in page.text


def test_a_perfect_run_has_no_mistakes_to_show(folder, tmp_path):
    page = written(folder, tmp_path, np.eye(2)[folder.splits["test"].labels])
    assert "None: every picture was given its true class." in page.text
    assert "✗" not in page.text


def test_a_probability_is_never_rounded_to_certainty(folder, tmp_path):
    nearly = np.where(np.eye(2)[1 - folder.splits["test"].labels] > 0, 0.9999, 0.0001)
    page = written(folder, tmp_path, nearly)
    assert ">99%" in page.text
    assert "<1%" in page.text
    assert page.text.count(">99%") + page.text.count("<1%") == 4 * 10  # each is wrong, and shown twice


def test_mistakes_come_surest_first():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    assert surest_mistakes(probabilities, np.array([1, 0, 1, 0])) == [0, 3, 1]


@given(st.integers(0, 5000), st.integers(0, 100))
def test_the_sample_is_even_and_has_no_picture_twice(count, most):
    shown = evenly_spaced(count, most)
    assert len(set(shown)) == len(shown) == min(count, most)
    assert all(0 <= position < count for position in shown)
    gaps = {b - a for a, b in pairwise(shown)}
    assert not gaps or max(gaps) - min(gaps) <= 1
