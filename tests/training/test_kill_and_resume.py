"""Killed at any moment, in mid-epoch too, and gone on with: the same weights, bit for bit.

CI kills twice; `make torture` sets RELISH_TORTURE and kills that many times.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest

import relish
from relish.core.errors import RunError
from relish.core.run_folder import RunFolder
from tests.conftest import SMALL, SQUARE, draw_dataset, read_json
from tests.processes import COMMAND, PAUSING, ended, started, wait_until

KILLS = int(os.environ.get("RELISH_TORTURE", "2"))
SETTINGS = ["--recipe", "book", "--set", "batch_size=4", "--epochs", "4", "--image-size", "32", "--lr", "1e-3"]
SAVING = f"from relish.training import train; train.CHECKPOINT_SECONDS = 0.0; {COMMAND}"
"""The command line, saving after every step."""


def finish(process) -> str:
    code, _, words = ended(process)
    assert code == 0, words
    return words


@pytest.fixture(scope="module")
def undisturbed(tiny_source, tmp_path_factory) -> Path:
    """A folder with `pictures`, a run that came through and the `home` that both used."""
    folder = tmp_path_factory.mktemp("undisturbed")
    draw_dataset(folder / "pictures", train=15, test=5, size=SQUARE)
    common = [folder / "pictures", "--weights", tiny_source, *SETTINGS]
    finish(started(SAVING, "fit", *common, "--out", folder / "whole", RELISH_HOME=folder / "home"))
    return folder


@pytest.fixture
def pictures(undisturbed) -> Path:
    return undisturbed / "pictures"


def moments(metrics: Path) -> int:
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(undisturbed, pictures, tiny_source, tmp_path):
    """-9 after a random number of events, and again after resuming, until it comes through."""
    home, whole = undisturbed / "home", undisturbed / "whole"
    events = moments(whole / "metrics.jsonl")
    chance, in_mid_epoch = random.Random(7), 0
    killed = 0
    for number in range(10 * KILLS):
        if killed == KILLS:
            break
        run = tmp_path / f"killed-{number}"
        words = ["fit", pictures, "--weights", tiny_source, *SETTINGS, "--out", run]
        process = started(SAVING, *words, RELISH_HOME=home)
        wanted = chance.randrange(1, events)
        while process.poll() is None and moments(run / "metrics.jsonl") < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            continue  # it was over before it could be killed
        assert process.returncode == -signal.SIGKILL
        killed += 1
        said = finish(started(SAVING, "fit", "--resume", run, RELISH_HOME=home))
        in_mid_epoch += "resuming from epoch" in said and ".00 of" not in said
        same = (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        assert same, f"kill {number} after {wanted} events"
        assert read_json(run / "evaluation.json") == read_json(whole / "evaluation.json") | {
            key: read_json(run / "evaluation.json")[key] for key in ("training_seconds", "pictures_per_second")
        }
        places = [
            (e["epoch"], e["batch"], e["event"]) for e in RunFolder.open(run).records() if e["event"] != "resumed"
        ]
        assert len(places) == len(set(places)) == events, "every event holds once"
    assert killed == KILLS
    print(f"\nkilled and resumed {KILLS} times, {in_mid_epoch} of them in mid-epoch: equal weights each time")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_climb_killed_at_any_rung_leaves_a_model_and_ends_with_the_same_weights(pictures, tiny_source, tmp_path):
    """-9 after a random time: while features are computed, in the first or the last fine-tuning, while averaging."""
    common = [pictures, "--weights", tiny_source, "--image-size", "32", "--epochs", "3", "--batch-size", "4"]
    common += ["--set", "precision=f32"]  # else measured anew in each home: which one wins may be chance
    began = time.monotonic()
    finish(started(SAVING, "fit", *common, "--out", tmp_path / "whole", RELISH_HOME=tmp_path / "home"))
    lasted = time.monotonic() - began
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    chance, loaded, kills = random.Random(11), 0, max(1, KILLS // 2)
    for number in range(kills):
        run, home = tmp_path / f"killed-{number}", tmp_path / f"home-{number}"
        process = started(SAVING, "fit", *common, "--out", run, RELISH_HOME=home)
        time.sleep(lasted * chance.uniform(0.2, 0.95))
        process.kill()
        process.communicate()
        if not (run / "request.json").is_file():
            continue
        if (run / "model.safetensors").is_file():
            assert relish.load(run).predict(pictures / "test" / "red" / "000.png")[0].class_name in ("blue", "red")
            loaded += 1
        finish(started(SAVING, "fit", "--resume", run, RELISH_HOME=home))
        assert (run / "model.safetensors").read_bytes() == whole, f"kill {number}"
    print(f"\nkilled {kills} climbs; {loaded} of them had a model already, and it could be used")


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(undisturbed, pictures, tiny_source, tmp_path):
    home, run = undisturbed / "home", tmp_path / "run"
    words = ["fit", pictures, "--weights", tiny_source, *SETTINGS, "--out", run]
    process = started(PAUSING + SAVING, *words, RELISH_HOME=home)
    wait_until(lambda: process.poll() is not None or moments(run / "metrics.jsonl") >= 3)
    process.send_signal(signal.SIGINT)
    code, _, words = ended(process)
    assert code == 130, words
    assert f"relish fit --resume {run}" in words
    finish(started(SAVING, "fit", "--resume", run, RELISH_HOME=home))
    weights = [folder / "model.safetensors" for folder in (run, undisturbed / "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_two_processes_cannot_work_on_one_run(colours, tiny_source, tmp_path):
    relish.fit(colours, recipe="book", weights=tiny_source, settings={**SMALL, "epochs": 0}, out=tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    with RunFolder.open(tmp_path / "run").locked(), pytest.raises(RunError, match="another process"):
        relish.fit(resume=tmp_path / "run")
    relish.fit(resume=tmp_path / "run")
