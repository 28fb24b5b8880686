"""However a training ends before its time, the work so far is saved, and resuming it gives the same weights."""

import signal
from dataclasses import replace
from multiprocessing import active_children

import pytest
import torch
from torch import nn

import relish
from relish.core.errors import Stopped, TooLittleMemory, WorkerFailed
from relish.core.run_folder import RunFolder
from relish.data.kept import KeptImages
from relish.models.freeze import set_train_mode
from relish.training import train as loop
from relish.training.recipe import named_recipe
from relish.training.train import train
from tests.conftest import Heard, draw_dataset
from tests.training.test_train import pictures, run_in, setup_for  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("hears_sighup")

SETTINGS = {"batch_size": 4, "epochs": 2, "image_size": 32, "learning_rate": 1e-3}


def fitted(data, source, out, **more):
    relish.fit(data, recipe="book", weights=source, settings=SETTINGS, out=out, device="cpu", **more)
    return weights(out)


def weights(out):
    return (out / "model.safetensors").read_bytes()


def at(event, place, act):
    """A callback that acts once a run records an event at a place."""
    return [lambda told: act() if (told["event"], (told["epoch"], told["batch"])) == (event, place) else None]


@pytest.fixture(scope="module")
def whole(tiny_source, tmp_path_factory):
    """The weights of a run on such `colours` that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(folder / "home"))
        return fitted(draw_dataset(folder / "colours"), tiny_source, folder / "run")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_each_signal_saves_and_has_its_own_exit_code(number, code, whole, colours, tiny_source, tmp_path):
    out = tmp_path / "cut"
    with pytest.raises(Stopped, match="stopped in epoch 1 of 2") as told:
        fitted(colours, tiny_source, out, callbacks=at("train", (0, 3), lambda: signal.raise_signal(number)))
    assert told.value.exit_code == code
    assert f"relish fit --resume {out}" in told.value.hint
    relish.fit(resume=out)
    assert weights(out) == whole


def test_a_stop_while_the_validation_split_is_scored_is_heeded_at_once(
    whole, colours, tiny_source, tmp_path, monkeypatch
):
    real, out = loop.split_logits, tmp_path / "cut"

    def interrupted(*given, **more):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it goes on")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "split_logits", interrupted)
        with pytest.raises(Stopped) as told:
            fitted(colours, tiny_source, out)
    assert told.value.exit_code == 143
    assert loop.split_logits is real
    relish.fit(resume=out)
    assert weights(out) == whole
    scores = [event for event in RunFolder(out).records() if event["event"] == "score"]
    assert [event["epoch"] for event in scores] == [1, 2]


def test_a_reader_that_is_killed_loses_nothing(whole, colours, tiny_source, tmp_path):
    out, before, seen = tmp_path / "cut", set(active_children()), set()

    def look(_):
        seen.update(set(active_children()) - before)

    def kill():
        for reader in seen:
            reader.kill()

    with pytest.raises(WorkerFailed, match="was ended by SIGKILL") as told:
        fitted(colours, tiny_source, out, workers=1, callbacks=[look, *at("score", (1, 0), kill)])
    assert told.value.exit_code == 1
    assert f"Resume with: relish fit --resume {out}" in told.value.hint
    assert len(seen) == 1  # over epochs and evaluations
    relish.fit(resume=out, workers=2)
    assert weights(out) == whole


# ---- memory ---------------------------------------------------------------------------------------------------------


def starving(real, room):
    """`normalise` that has memory for so many images."""

    def normalise(images, preprocessing):
        if len(images) > room:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return real(images, preprocessing)

    return normalise


def trained(setup, run, monkeypatch, room=None):
    """The weights after training, with memory for so many images."""
    with monkeypatch.context() as patch:
        if room:
            patch.setattr(loop, "normalise", starving(loop.normalise, room))
        train(run, setup)
    return setup.target.network.state_dict()


def test_pictures_that_stay_give_way_to_a_batch(pictures, tiny_source, tmp_path, monkeypatch):  # noqa: F811
    """Before a batch has parts, and where it can have none: norms are as after one pass."""
    recipe = named_recipe("book").with_settings({"batch_size": 8, "epochs": 1})
    setup = setup_for(pictures, recipe, tiny_source)
    kept = KeptImages(setup.train.paths, torch.device("cpu"), heard := Heard())
    real = loop.batch_loss

    def starving(*given):
        if kept._squares is not None:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return real(*given)

    monkeypatch.setattr(loop, "batch_loss", starving)
    found = trained(replace(setup, kept=kept), replace(run_in(tmp_path, recipe, "kept"), progress=heard), monkeypatch)
    assert len(heard.warnings) == 1
    assert "memory is short, so pictures are read again" in heard.warnings[0]
    assert int(found["bn1.num_batches_tracked"]) == 3


@pytest.mark.parametrize("room", [1, 3, 5])
def test_a_batch_is_computed_in_parts_where_memory_lacks(room, pictures, tiny_source, tmp_path, monkeypatch):  # noqa: F811
    recipe, heard = named_recipe("book").with_settings({"batch_size": 8, "epochs": 2, "batch_norm": "still"}), Heard()
    alone, parted = (
        trained(
            setup_for(pictures, recipe, tiny_source),
            replace(run_in(tmp_path, recipe, str(some)), progress=heard),
            monkeypatch,
            some,
        )
        for some in (None, room)
    )
    (said,) = heard.warnings
    assert f"in parts of {[0, 1, 2, 2, 4, 4][room]} pictures" in said
    for name, tensor in alone.items():
        torch.testing.assert_close(parted[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_batch_whose_norms_need_it_whole_is_one_error_and_nothing_is_lost(whole, colours, tiny_source, tmp_path):
    """The output layer is what lacks memory: by then the norms have moved their statistics."""
    out, starved = tmp_path / "cut", []

    def forward(layer, images):
        if starved and layer.training:
            raise MemoryError
        return nn.functional.linear(images, layer.weight, layer.bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Linear, "forward", forward)
        with pytest.raises(TooLittleMemory, match="too little memory for batches of 4 pictures of 32 pixels") as told:
            fitted(colours, tiny_source, out, callbacks=at("train", (0, 3), lambda: starved.append(True)))
    assert "--batch-size" in told.value.hint
    assert "--set batch_norm=still, which computes a batch in parts" in told.value.hint
    assert f"relish fit --resume {out}" in told.value.hint
    relish.fit(resume=out)
    assert weights(out) == whole


def test_an_own_loss_sees_its_batch_whole(pictures, tiny_source, tmp_path, monkeypatch):  # noqa: F811
    recipe = named_recipe("book").with_settings({"batch_size": 8, "epochs": 1, "batch_norm": "still"})
    setup = replace(setup_for(pictures, recipe, tiny_source), loss=nn.CrossEntropyLoss())
    set_train_mode(setup.target.network, setup.target)
    with pytest.raises(TooLittleMemory, match="batches of 8 pictures"):
        trained(setup, run_in(tmp_path, recipe), monkeypatch, 5)
