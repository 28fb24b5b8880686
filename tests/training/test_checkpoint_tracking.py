"""With --track, what a run records can be read back from the tracker's own files; a resumed run goes on in them."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import relish
from relish.core.errors import Stopped
from relish.core.run_folder import RunFolder
from relish.training import checkpoint
from relish.training import train as loop
from tests.commands import refused
from tests.conftest import SMALL, read_json


def series(folder):
    """What TensorBoard shows of one series: by tag, (step, value) pairs."""
    read = EventAccumulator(str(folder), purge_orphaned_data=True)
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def fit(data, source, out, **more):
    settings = {**SMALL, "batch_size": 4}
    return relish.fit(data, recipe="book", weights=source, settings=settings, out=out, track="tensorboard", **more)


def test_tensorboard_shows_what_the_run_recorded(colours, tiny_source, tmp_path):
    fit(colours, tiny_source, tmp_path / "run")
    found = series(tmp_path / "run" / "tracking" / "run")
    events = RunFolder(tmp_path / "run").records()
    train = [e for e in events if e["event"] == "train"]
    assert found["train/loss"] == [(e["step"], pytest.approx(e["loss"])) for e in train]
    assert found["train/accuracy"] == [(e["step"], pytest.approx(e["accuracy"])) for e in train]
    assert [step for step, _ in found["train/loss"]] == list(range(1, 11))  # 20 pictures in batches of 4, twice
    assert [value for _, value in found["train/learning rate"]] == pytest.approx([5e-5] * 10)
    scores = [e for e in events if e["event"] == "score"]
    assert found["test/accuracy"] == [
        (s, pytest.approx(e["correct"] / 12)) for s, e in zip((5, 10), scores, strict=True)
    ]
    final = read_json(tmp_path / "run" / "evaluation.json")["top1"]["value"]
    assert found["judged/test accuracy"] == [(0, pytest.approx(final))]


def test_a_resumed_run_goes_on_in_the_same_curves(colours, tiny_source, tmp_path, monkeypatch):
    fit(colours, tiny_source, tmp_path / "whole")
    stopped = iter([False] * 6 + [True] * 20)
    with monkeypatch.context() as patch:
        patch.setattr(loop.StopFlag, "__bool__", lambda _: next(stopped))
        with pytest.raises(Stopped):
            fit(colours, tiny_source, tmp_path / "cut")
    relish.fit(resume=tmp_path / "cut")
    one, two = (series(tmp_path / name / "tracking" / name) for name in ("whole", "cut"))
    assert one.keys() == two.keys()
    assert one["train/loss"] == two["train/loss"]
    assert one["test/accuracy"] == two["test/accuracy"]
    assert len(list((tmp_path / "cut" / "tracking" / "cut").glob("events*"))) == 2


def test_each_rung_of_a_climb_is_told(squares, tiny_source, tmp_path):
    settings = {"image_size": 32, "batch_size": 4, "epochs": 1, "precision": "f32"}
    relish.fit(
        squares, recipe="auto", weights=tiny_source, settings=settings, out=tmp_path / "run", track="tensorboard"
    )
    rungs = {
        e["rung"]: e["correct"] / e["count"] for e in RunFolder(tmp_path / "run").records() if e["event"] == "rung"
    }
    found = series(tmp_path / "run" / "tracking" / "run")
    assert {tag: value for tag, [(_, value)] in found.items() if tag.startswith("rung/")} == {
        f"rung/{name}": pytest.approx(value) for name, value in rungs.items()
    }
    stages = sorted(path.name for path in (tmp_path / "run" / "stages").iterdir())
    assert stages
    assert all("train/loss" in series(tmp_path / "run" / "tracking" / stage) for stage in stages)


def test_tracking_changes_nothing_of_what_is_learned(colours, tiny_source, tmp_path):
    fit(colours, tiny_source, tmp_path / "tracked")
    relish.fit(colours, recipe="book", weights=tiny_source, settings={**SMALL, "batch_size": 4}, out=tmp_path / "plain")
    one, two = (read_json(tmp_path / name / "evaluation.json")["model_sha256"] for name in ("tracked", "plain"))
    assert one == two
    assert not (tmp_path / "plain" / "tracking").exists()


def test_an_unknown_tracker_is_refused_before_anything_is_made(colours, tmp_path):
    said = refused("fit", colours, "--track", "tensorbord", "--out", tmp_path / "run")
    assert 'there is no tracker "tensorbord"' in said
    assert 'did you mean "tensorboard"?' in said
    assert not (tmp_path / "run").exists()


def test_a_tracker_whose_package_is_missing_is_refused_before_anything_is_made(colours, tmp_path, monkeypatch):

    monkeypatch.setattr(checkpoint, "get_available_trackers", list)
    said = refused("fit", colours, "--track", "tensorboard", "--out", tmp_path / "run")
    assert "pip install 'relish-vision[tensorboard]'" in said
    assert not (tmp_path / "run").exists()


def test_events_that_are_no_numbers_are_passed_over():
    from relish.training.checkpoint import scalars_of

    assert scalars_of({"event": "diverged", "epoch": 0, "batch": 1}) == {}
