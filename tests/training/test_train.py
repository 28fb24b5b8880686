"""The numbers of the book, step by step, against a plain PyTorch loop that shares no code with ours."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from relish.core.context import Context
from relish.core.errors import Diverged, ImageError
from relish.core.run_folder import RunFolder
from relish.core.runtime import derive_seed, deterministic
from relish.core.workers import Workers
from relish.data.folder import index_folder
from relish.data.kept import KeptImages, kept_side
from relish.data.loader import balanced_batches, epoch_batches, evaluation_batches, training_batches
from relish.data.transforms import book_preprocessing, normalise
from relish.models.freeze import freeze
from relish.models.source import load_source
from relish.models.target import make_target
from relish.training import train as loop
from relish.training.checkpoint import TrainingState
from relish.training.optim import make_optimiser
from relish.training.recipe import named_recipe
from relish.training.train import TrainingSetup, train
from tests.conftest import Heard, draw_dataset

MEAN = STD = (0.5, 0.5, 0.5)


@pytest.fixture
def pictures(tmp_path):
    """21 training pictures: two batches of 8 and a last one of 5."""
    root = draw_dataset(tmp_path / "colours", train=7, test=4, classes=("blue", "green", "red"))
    return index_folder(root, name="colours", source=str(root))


def setup_for(pictures, recipe, weights):
    source = load_source(None, weights)
    target = make_target(
        source, pictures.classes, head_init=recipe.head, seed=derive_seed(0, "target"),
        random_weights=recipe.start == "random",
    )  # fmt: skip
    freeze(target, recipe.freeze)
    return TrainingSetup(
        target=target, recipe=recipe, train=pictures.splits["train"], validation=pictures.splits["test"],
        validation_name="test", preprocessing=book_preprocessing(32, MEAN, STD),
    )  # fmt: skip


def run_in(tmp_path, recipe, name="run"):
    return Context.on("cpu").in_run(RunFolder.create(tmp_path / name, {}, recipe.as_dict()))


def plain_loop(network, head, setup, recipe, *, head_rate, weight_decay):
    """Thirty lines of plain PyTorch: the book's recipe on the same pictures in the same order."""
    in_head = set(map(id, head.parameters()))
    groups = [
        {"params": [p for p in network.parameters() if id(p) not in in_head], "lr": recipe.learning_rate},
        {"params": [p for p in network.parameters() if id(p) in in_head], "lr": head_rate},
    ]
    optimiser = torch.optim.SGD(groups, lr=recipe.learning_rate, weight_decay=weight_decay)
    criterion = nn.CrossEntropyLoss(reduction="none")
    after_each_step = []
    for epoch in range(recipe.epochs):
        network.train()
        batches = epoch_batches(len(setup.train), recipe.batch_size, 0, epoch)
        for batch in training_batches(setup.train, setup.preprocessing, batches, seed=0, epoch=epoch):
            optimiser.zero_grad()
            loss = criterion(network(normalise(batch.images, setup.preprocessing)), batch.labels)
            loss.sum().backward()
            optimiser.step()
            after_each_step.append({name: value.clone() for name, value in network.state_dict().items()})
    return after_each_step


@pytest.fixture
def steps(monkeypatch):
    """The network's tensors after each step of our loop."""
    seen, original = [], loop.Sums.add

    def watched(*arguments):
        seen.append({name: value.clone() for name, value in watched.network.state_dict().items()})
        original(*arguments)

    def made(target, recipe):
        watched.network = target.network
        return make_optimiser(target, recipe)

    monkeypatch.setattr(loop.Sums, "add", watched)
    monkeypatch.setattr(loop, "make_optimiser", made)
    return seen


@pytest.mark.parametrize("name", ["book", "book-scratch"])
def test_every_step_equals_a_plain_loops(name, pictures, tiny_source, tmp_path, steps):
    """Head at ten times the rate, decay on every parameter, summed loss, last batch of 5 kept."""
    recipe = named_recipe(name).with_settings({"epochs": 2, "batch_size": 8, "learning_rate": 1e-3})
    setup = setup_for(pictures, recipe, tiny_source)
    twin = copy.deepcopy(setup.target.network)
    head_rate = 1e-2 if name == "book" else 1e-3
    theirs = plain_loop(twin, twin.get_classifier(), setup, recipe, head_rate=head_rate, weight_decay=1e-3)
    train(run_in(tmp_path, recipe), setup)
    assert len(steps) == len(theirs) == 6
    for ours, plain in zip(steps, theirs, strict=True):
        for key, value in plain.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-6, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("wrong", [{"head_rate": 1e-3, "weight_decay": 1e-3}, {"head_rate": 1e-2, "weight_decay": 0}])
def test_the_comparison_with_the_plain_loop_can_fail(wrong, pictures, tiny_source, tmp_path, steps):
    """Without the head's multiplier, or without decay, the weights part by more than the tolerance."""
    recipe = named_recipe("book").with_settings({"epochs": 2, "batch_size": 8, "learning_rate": 1e-3})
    setup = setup_for(pictures, recipe, tiny_source)
    twin = copy.deepcopy(setup.target.network)
    theirs = plain_loop(twin, twin.get_classifier(), setup, recipe, **wrong)
    train(run_in(tmp_path, recipe), setup)
    assert any(not torch.allclose(steps[-1][key], value, rtol=1e-6, atol=1e-6) for key, value in theirs[-1].items())


def test_frozen_leaves_every_backbone_tensor_bitwise_as_it_was(pictures, tiny_source, tmp_path):
    """Batch-norm statistics and their counters too."""
    recipe = named_recipe("frozen").with_settings({"epochs": 2, "batch_size": 8, "learning_rate": 1e-2})
    setup = setup_for(pictures, recipe, tiny_source)
    before = copy.deepcopy(setup.target.network.state_dict())
    train(run_in(tmp_path, recipe), setup)
    after = setup.target.network.state_dict()
    head = [name for name in after if any(name.startswith(h + ".") for h in setup.target.head_names)]
    assert all(torch.equal(after[name], before[name]) for name in after if name not in head)
    assert any("running_mean" in name for name in after)
    assert not torch.equal(after[head[0]], before[head[0]])


def test_curves_are_running_means_with_a_point_every_batch_of_a_short_epoch(pictures, tiny_source, tmp_path):
    recipe = named_recipe("book").with_settings({"epochs": 2, "batch_size": 8})
    run = run_in(tmp_path, recipe)
    train(run, setup_for(pictures, recipe, tiny_source))
    events = run.folder.records()
    points = [e for e in events if e["event"] == "train"]
    assert [e["at"] for e in points] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    scores = [e for e in events if e["event"] == "score"]
    assert [(e["at"], e["split"], e["count"]) for e in scores] == [(1, "test", 12), (2, "test", 12)]


@pytest.mark.parametrize(("batches", "points"), [(16, 6), (5, 5), (3, 3), (10, 5), (1, 1)])
def test_an_epoch_has_five_points_as_in_the_book(batches, points):
    """`(i + 1) % (batches // 5) == 0 or i == batches - 1`: 16 batches give 3, 6, 9, 12, 15 and 16."""
    assert sum(loop._is_point(number, batches) for number in range(batches)) == points


def test_a_run_that_diverges_says_so_and_is_marked(pictures, tiny_source, tmp_path):
    recipe = named_recipe("book").with_settings({"epochs": 3, "batch_size": 8, "learning_rate": 1e20})
    run = run_in(tmp_path, recipe)
    with pytest.raises(Diverged, match="too high"):
        train(run, setup_for(pictures, recipe, tiny_source))
    assert run.folder.records()[-1]["event"] == "diverged"


@pytest.mark.parametrize("count", [1, 5, 16, 17])
def test_an_epoch_shows_every_picture_once_and_epochs_differ(count):
    first, second = (epoch_batches(count, 4, seed=0, epoch=e) for e in (0, 1))
    assert sorted(position for batch in first for position in batch) == list(range(count))
    assert [len(b) for b in first] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert first == epoch_batches(count, 4, seed=0, epoch=0)
    assert count < 5 or first != second


@pytest.mark.parametrize(("count", "sizes"), [(21, [10, 11]), (22, [10, 10, 2]), (20, [10, 10]), (11, [11]), (1, [1])])
def test_a_last_batch_that_is_too_small_joins_the_one_before(count, sizes):
    for batches in (epoch_batches(count, 10, 0, 1, 2), balanced_batches(np.zeros(count, dtype=np.int64), 10, 0, 1, 2)):
        assert [len(batch) for batch in batches] == sizes
        assert sorted(position for batch in batches for position in batch) == list(range(count))
    whole = [position for batch in epoch_batches(count, 10, 0, 1) for position in batch]
    assert [position for batch in epoch_batches(count, 10, 0, 1, 2) for position in batch] == whole


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_a_network_that_cannot_train_on_one_picture_is_never_given_one(balance, pictures, tiny_source, tmp_path, steps):
    """At 32 px one pixel is left of each, and a batch norm that sees one value has no variance."""
    settings = {"epochs": 2, "batch_size": 10, "learning_rate": 1e-3, "balance": balance}
    recipe, heard = named_recipe("book").with_settings(settings), Heard()
    run = Context.on("cpu", heard).in_run(RunFolder.create(tmp_path / "run", {}, recipe.as_dict()))
    train(run, setup_for(pictures, recipe, tiny_source))
    assert len(steps) == 4
    assert sum("the last picture of an epoch joins the batch before" in line for line in heard.lines) == 1
    ends = [event for event in run.folder.records() if event["event"] == "train" and event["at"] in (1, 2)]
    assert [(event["at"], event["step"]) for event in ends] == [(1, 2), (2, 4)]


def test_a_network_that_can_train_on_one_picture_keeps_its_batches(pictures, tiny_source, tmp_path, steps):
    recipe, heard = named_recipe("frozen").with_settings({"epochs": 2, "batch_size": 10}), Heard()
    run = Context.on("cpu", heard).in_run(RunFolder.create(tmp_path / "run", {}, recipe.as_dict()))
    train(run, setup_for(pictures, recipe, tiny_source))
    assert len(steps) == 6
    assert not any("batches" in line for line in heard.lines)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_run_with_a_joined_batch_is_resumed_to_the_same_weights(device, pictures, tiny_source, tmp_path, monkeypatch):
    """On a GPU where `--deterministic` is given; full batches are a graph there."""
    monkeypatch.setattr(loop, "WORTH", 1)

    def trained(setup, folder):
        with deterministic(device == "cuda"):
            train(Context.on(device).in_run(folder), setup)

    recipe = named_recipe("book").with_settings({"epochs": 2, "batch_size": 10, "learning_rate": 1e-3})
    whole = setup_for(pictures, recipe, tiny_source)
    trained(whole, RunFolder.create(tmp_path / "whole", {}, recipe.as_dict()))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    halted, original = setup_for(pictures, recipe, tiny_source), loop.set_rates

    def halting(optimiser, recipe, step, steps):
        if step == 3:
            raise KeyboardInterrupt
        original(optimiser, recipe, step, steps)

    monkeypatch.setattr(loop, "set_rates", halting)
    with pytest.raises(KeyboardInterrupt):
        trained(halted, RunFolder.create(tmp_path / "halted", {}, recipe.as_dict()))
    monkeypatch.setattr(loop, "set_rates", original)
    resumed = setup_for(pictures, recipe, tiny_source)
    trained(resumed, RunFolder.open(tmp_path / "halted"))
    for name, value in whole.target.network.state_dict().items():
        assert torch.equal(resumed.target.network.state_dict()[name], value), name


def test_worker_processes_change_nothing(pictures):
    split, how = pictures.splits["train"], book_preprocessing(32, MEAN, STD)
    batches = epoch_batches(len(split), 8, 0, 0)
    alone = list(training_batches(split, how, batches, seed=0, epoch=0))
    helped = list(training_batches(split, how, batches, seed=0, epoch=0, workers=Workers(2)))
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanishes_in_mid_run_is_named_whoever_reads_it(workers, pictures):
    split, how = pictures.splits["train"], book_preprocessing(32, MEAN, STD)
    split.paths[3].unlink()
    with pytest.raises(ImageError, match=split.paths[3].name):
        list(training_batches(split, how, [[0, 3]], seed=0, epoch=0, workers=Workers(workers)))


def test_batches_carry_the_labels_of_their_pictures(pictures):
    split = pictures.splits["test"]
    batches = [[3, 0], [11]]
    found = list(evaluation_batches(split, book_preprocessing(32, MEAN, STD), batches))
    assert [b.positions.tolist() for b in found] == batches
    assert [b.labels.tolist() for b in found] == [split.labels[np.array(b)].tolist() for b in batches]


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_the_loop_waits_for_a_gpu_at_the_points_of_the_curve_alone(pictures, tiny_source, tmp_path, monkeypatch):
    """Ten steps, five points: whatever else would wait is an error, but in the first step, which makes constants."""
    recipe = named_recipe("book").with_settings({"epochs": 1, "batch_size": 2})
    rates, read = loop.set_rates, loop.Sums.read

    def starting(optimiser, recipe, step, steps):
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        rates(optimiser, recipe, step, steps)

    def reading(sums):
        torch.cuda.set_sync_debug_mode("default")
        return read(sums)

    monkeypatch.setattr(loop, "set_rates", starting)
    monkeypatch.setattr(loop.Sums, "read", reading)
    run = Context.on("cuda", workers=0).in_run(RunFolder.create(tmp_path / "run", {}, recipe.as_dict()))
    train(run, setup_for(pictures, recipe, tiny_source))
    assert sum(event["event"] == "train" for event in run.folder.records()) == 5


def test_a_training_on_kept_pictures_is_that_on_pictures_that_are_read(tiny_source, tmp_path):
    """Pictures of the size that is kept, so that a pixel differs by a level at most."""
    root = draw_dataset(tmp_path / "colours", train=7, test=4, size=(44, 44))
    pictures, recipe = index_folder(root, name="colours", source=str(root)), named_recipe("book")
    assert kept_side(book_preprocessing(32, MEAN, STD), recipe.smallest_crop) == 44
    recipe = recipe.with_settings({"epochs": 2, "batch_size": 8})
    losses = []
    for name, kept in (("read", None), ("kept", KeptImages(pictures.splits["train"].paths, torch.device("cpu")))):
        run = run_in(tmp_path, recipe, name)
        train(run, replace(setup_for(pictures, recipe, tiny_source), kept=kept))
        losses.append([event["loss"] for event in run.folder.records() if event["event"] == "train"])
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.05)


def test_sums_are_the_same_however_often_they_are_read(tmp_path):
    """On a GPU the host waits for them at the curve's points alone."""
    run, rng = run_in(tmp_path, named_recipe("book")), torch.Generator().manual_seed(0)
    often, once = TrainingState(loss=0.1, seen=1), TrainingState(loss=0.1, seen=1)
    reading, waiting = loop.Sums(run, often), loop.Sums(run, once)
    for _ in range(50):
        logits, labels = torch.randn(3, 2, generator=rng), torch.randint(2, (3,), generator=rng)
        for sums in (reading, waiting):
            sums.add(nn.functional.cross_entropy(logits, labels, reduction="none"), logits, labels, 3)
        reading.read()
    assert (once.seen, once.words) == (1, "loss 0.100  train 0.000")
    assert waiting.read() == often.loss
    assert often == once
    assert once.seen == 151
