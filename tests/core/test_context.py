"""A run's events reach everyone who listens, those of its trainings under their stage."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState

from relish.core import context
from relish.core.context import Context
from relish.core.errors import BadInput
from relish.core.run_folder import RunFolder
from relish.core.runtime import accelerator_for
from tests.conftest import Heard


@pytest.mark.parametrize(("device", "here", "readers"), [("cuda", "1", 12), ("cuda", "4", 3), ("cuda", "20", 1),
                                                         ("cpu", "1", 0)])  # fmt: skip
def test_a_gpu_has_a_reader_for_each_core(device, here, readers, monkeypatch):
    """Processes that share a machine share its cores; a processor's are busy computing."""
    found = SimpleNamespace(device=torch.device(device), is_main_process=True)
    monkeypatch.setattr(context, "accelerator_for", lambda _: found)
    monkeypatch.setattr(context, "usable_cores", lambda: 12)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert Context.on("auto").workers.count == readers


def test_a_state_of_which_one_half_is_elsewhere_is_made_anew(monkeypatch):
    """As where a library, or an environment variable, has begun on another device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    accelerator_for("cpu")
    AcceleratorState._shared_state["device"] = torch.device("cuda")
    assert accelerator_for("cpu").device.type == "cpu"


@pytest.fixture
def told():
    return []


@pytest.fixture
def run(tmp_path, told):
    folder = RunFolder.create(tmp_path / "run", {}, {})
    return Context.on("cpu", Heard()).in_run(folder, seed=3, listeners=(told.append,))


def test_an_event_is_written_down_and_told(run, told):
    run.record(event="score", epoch=1, batch=0)
    assert told == run.folder.records() == [{"event": "score", "epoch": 1, "batch": 0}]


def test_a_stages_events_are_told_with_its_name_and_written_in_its_folder(run, told):
    stage = run.stage("fine-tuning-1")
    stage.record(event="train", epoch=0, batch=1)
    assert told == [{"event": "train", "epoch": 0, "batch": 1, "stage": "fine-tuning-1"}]
    assert stage.folder.records() == [{"event": "train", "epoch": 0, "batch": 1}]
    assert run.folder.records() == []


def test_a_stage_is_muted_but_for_warnings_and_resumed_with_its_run(run):
    stage = run.stage("fine-tuning-1")
    stage.progress.say("epoch 1")
    stage.progress.warn("too high")
    assert (run.progress.lines, run.progress.warnings) == ([], ["too high"])
    assert stage.resume_command == run.folder.resume_command
    assert stage.seed == 3


def test_what_is_only_told_is_not_kept(run, told):
    run.tell(event="judged", correct=1)
    assert told == [{"event": "judged", "correct": 1}]
    assert run.folder.records() == []


def test_an_unknown_device_is_refused():
    with pytest.raises(BadInput, match="gpu"):
        Context.on("gpu")
