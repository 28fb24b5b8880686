"""Rows of the source head are proved on pictures: a right one is confirmed, a wrong one is named with the right one."""

import numpy as np
import pytest
import torch
from torch import nn

from relish.core.context import Context
from relish.core.run_folder import RunFolder
from relish.data.dataset import Split
from relish.data.folder import index_folder
from relish.data.transforms import book_preprocessing
from relish.evaluation import source_rows
from relish.evaluation.source_rows import prove_rows
from tests.commands import done
from tests.conftest import draw_dataset

HOW = book_preprocessing(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LABELS = ("lion", "blue thing", "red thing", "tree")


@pytest.fixture
def pictures(tmp_path):
    root = draw_dataset(tmp_path / "colours", train=7, test=1, classes=("blue", "green", "red"))
    return index_folder(root, name="colours", source=str(root))


def sees_colours():
    """A network that answers row 1 for blue, 2 for red, 3 for green, whatever anyone calls its rows."""
    layer = nn.Linear(3, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0], [0, 0, 9], [9, 0, 0], [0, 9, 0]]))
        layer.bias.zero_()
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)


def prove(pictures, matches, labels=LABELS):
    matches = {name: matches.get(name, []) for name in pictures.classes}
    return prove_rows(
        sees_colours(), pictures.splits["train"], HOW, Context.on("cpu"), classes=pictures.classes,
        matches=matches, labels=labels,
    )  # fmt: skip


def test_a_right_row_is_confirmed_with_how_often_it_wins(pictures):
    (proof,) = prove(pictures, {"red": [(2, "red thing")]})
    assert proof.sentence() == 'red = row 2 "red thing": likeliest on 7 of 7 red pictures, 0 of 14 others'
    assert not proof.doubtful


def test_a_row_of_another_order_is_named_with_the_one_that_wins(pictures):
    """What would happen with 713 for hot dogs in ImageNet's order, where 934 is theirs."""
    (proof,) = prove(pictures, {"red": [(1, "blue thing")]})
    assert proof.doubtful
    assert (proof.wins, proof.best, proof.best_wins) == (0, 2, 7)
    assert proof.doubt() == (
        'row 1 "blue thing" wins on 0 of 7 red pictures, row 2 "red thing" on 7: say --map red=2 '
        "if that is the class meant"
    )
    assert proof.wins_elsewhere == 7  # the blue ones


def test_every_class_that_has_a_row_is_proved_and_no_other(pictures):
    found = prove(pictures, {"blue": [(1, "blue thing")], "green": [(3, "tree")]})
    assert [(p.class_name, p.wins) for p in found] == [("blue", 7), ("green", 7)]
    assert prove(pictures, {}) == []


def test_without_names_rows_go_by_number(pictures):
    (proof,) = prove(pictures, {"red": [(1, "")]}, labels=None)
    assert proof.sentence().startswith("red = row 1: likeliest on 0 of 7")
    assert "row 2 on 7" in proof.doubt()


@pytest.mark.parametrize(("classes", "each"), [(2, 100), (10, 100), (20, 50), (500, 5)])
def test_a_large_dataset_is_looked_at_in_a_few_pictures_of_every_class(classes, each):
    labels = np.repeat(np.arange(classes), 300)
    some = source_rows._sample(labels, classes)
    assert len(set(some.tolist())) == len(some)
    assert np.bincount(labels[some]).tolist() == [each] * classes
    of_first = some[labels[some] == 0]
    assert of_first[-1] >= 290 - 300 / each  # spread over the class, not its first ones


def test_a_class_without_pictures_proves_nothing_and_breaks_nothing():
    labels = np.array([1, 1, 1])
    assert source_rows._sample(labels, 2).tolist() == [0, 1, 2]
    split = Split((), np.zeros(0, np.int64))
    assert source_rows._spaced(split.labels, 5).tolist() == []


def test_a_run_says_its_proof_before_it_trains_and_keeps_it(tmp_path, tiny_source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    colours = draw_dataset(tmp_path / "colours", train=5, test=2)
    ended = done(
        "fit", colours, "--weights", tiny_source, "--recipe", "source-head", "--epochs", 0, "--image-size", 32,
        "--map", "blue=2", "--out", "run",
    )  # fmt: skip
    lines = ended.err.splitlines()
    proofs = [line for line in lines if line.startswith("proof   ")]
    assert [line.split()[1:5] for line in proofs] == [["blue", "=", "row", "2"], ["red", "=", "row", "0"]]
    assert lines.index(proofs[-1]) < next(i for i, line in enumerate(lines) if line.startswith("before training"))
    kept = [event for event in RunFolder(tmp_path / "run").records() if event["event"] == "proof"]
    assert [(e["class"], e["row"], e["pictures"], e["others"]) for e in kept] == [("blue", 2, 5, 5), ("red", 0, 5, 5)]
    doubted = [e["class"] for e in kept if e["best_wins"] > e["wins"]]
    assert len([line for line in lines if line.startswith("warning: row ")]) == len(doubted)
