"""Killed at any moment, in mid-epoch too, and gone on with: the same weights, bit for bit.

CI kills twice; `make torture` sets RELISH_TORTURE and kills that many times.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import relish
from relish.core.errors import RunError
from relish.core.run_folder import RunFolder
from tests.conftest import SMALL, draw_dataset, read_json

KILLS = int(os.environ.get("RELISH_TORTURE", "2"))
SETTINGS = ["--recipe", "book", "--set", "batch_size=4", "--epochs", "6", "--image-size", "32", "--lr", "1e-3"]


def started(arguments: list[str], home: Path) -> subprocess.Popen:
    """The command line in a process of its own, one thread, saving after every step."""
    code = "from relish.training import train; train.CHECKPOINT_SECONDS = 0.0; from relish.cli.main import main; main()"
    environment = {**os.environ, "RELISH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> str:
    words = process.communicate(timeout=300)[1]
    assert process.returncode == 0, words
    return words


@pytest.fixture
def pictures(tmp_path):
    return draw_dataset(tmp_path / "pictures", train=25, test=5)


def moments(metrics: Path) -> int:
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(pictures, tiny_source, tmp_path):
    """-9 after a random number of events, and again after resuming, until it comes through."""
    home = tmp_path / "home"
    common = [str(pictures), "--weights", str(tiny_source), *SETTINGS]
    finish(started(["fit", *common, "--out", str(tmp_path / "whole")], home))
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    events = moments(tmp_path / "whole" / "metrics.jsonl")
    chance, in_mid_epoch = random.Random(7), 0
    for number in range(KILLS):
        run = tmp_path / f"killed-{number}"
        process = started(["fit", *common, "--out", str(run)], home)
        wanted = chance.randrange(1, events)
        while process.poll() is None and moments(run / "metrics.jsonl") < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
        said = finish(started(["fit", "--resume", str(run)], home))
        in_mid_epoch += "resuming from epoch" in said and ".00 of" not in said
        assert (run / "model.safetensors").read_bytes() == whole, f"kill {number} after {wanted} events"
        assert read_json(run / "evaluation.json") == read_json(tmp_path / "whole" / "evaluation.json") | {
            key: read_json(run / "evaluation.json")[key] for key in ("training_seconds", "pictures_per_second")
        }
        places = [
            (e["epoch"], e["batch"], e["event"]) for e in RunFolder.open(run).records() if e["event"] != "resumed"
        ]
        assert len(places) == len(set(places)) == events, "every event holds once"
    print(f"\nkilled and resumed {KILLS} times, {in_mid_epoch} of them in mid-epoch: equal weights each time")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_climb_killed_at_any_rung_leaves_a_model_and_ends_with_the_same_weights(pictures, tiny_source, tmp_path):
    """-9 after a random time: while features are computed, in the first or the last fine-tuning, while averaging."""
    common = [str(pictures), "--weights", str(tiny_source), "--image-size", "32", "--epochs", "3", "--batch-size", "4"]
    began = time.monotonic()
    finish(started(["fit", *common, "--out", str(tmp_path / "whole")], tmp_path / "home"))
    lasted = time.monotonic() - began
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    chance, loaded, kills = random.Random(11), 0, max(1, KILLS // 2)
    for number in range(kills):
        run, home = tmp_path / f"killed-{number}", tmp_path / f"home-{number}"
        process = started(["fit", *common, "--out", str(run)], home)
        time.sleep(lasted * chance.uniform(0.45, 0.95))
        process.kill()
        process.communicate()
        if not (run / "request.json").is_file():
            continue
        if (run / "model.safetensors").is_file():
            assert relish.load(run).predict(pictures / "test" / "red" / "000.png")[0].class_name in ("blue", "red")
            loaded += 1
        finish(started(["fit", "--resume", str(run)], home))
        assert (run / "model.safetensors").read_bytes() == whole, f"kill {number}"
    print(f"\nkilled {kills} climbs; {loaded} of them had a model already, and it could be used")


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(pictures, tiny_source, tmp_path):
    home, run = tmp_path / "home", tmp_path / "run"
    common = [str(pictures), "--weights", str(tiny_source), *SETTINGS]
    finish(started(["fit", *common, "--out", str(tmp_path / "whole")], home))
    process = started(["fit", *common, "--out", str(run)], home)
    while process.poll() is None and moments(run / "metrics.jsonl") < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    words = process.communicate(timeout=60)[1]
    assert process.returncode == 130, words
    assert f"relish fit --resume {run}" in words
    assert "Traceback" not in words
    finish(started(["fit", "--resume", str(run)], home))
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_two_processes_cannot_work_on_one_run(pictures, tiny_source, tmp_path):
    relish.fit(pictures, recipe="book", weights=tiny_source, settings={**SMALL, "epochs": 0}, out=tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    with RunFolder.open(tmp_path / "run").locked(), pytest.raises(RunError, match="another process"):
        relish.fit(resume=tmp_path / "run")
    relish.fit(resume=tmp_path / "run")
