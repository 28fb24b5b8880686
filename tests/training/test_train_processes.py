"""Several processes give what one gives: the same counts, the same step."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from relish.models.saved_model import load_model, read_header
from tests.commands import done
from tests.conftest import COLOURS, SQUARE, TORTURE, draw_dataset, read_json
from tests.processes import COMMAND, held_port, started

LOOPBACK = {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def launched(processes: int, arguments: list[str]) -> str:
    """Standard output of `torchrun … -m relish …` over Gloo on this machine's loopback."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    with held_port() as port:
        command += ["--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "relish", *arguments]
        run = subprocess.run(command, env={**os.environ, **LOOPBACK}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def together(processes: int, arguments: list[object]) -> None:
    """One command in so many processes, told of each other as `torchrun` tells them; without its start of each."""
    if processes == 1:
        done(*arguments)
        return
    with held_port() as port:
        shared = {**LOOPBACK, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes}
        of_each = [
            started(COMMAND, *arguments, **shared, LOCAL_WORLD_SIZE=processes, RANK=rank, LOCAL_RANK=rank)
            for rank in range(processes)
        ]
        words = [process.communicate(timeout=500)[1] for process in of_each]
    assert [process.returncode for process in of_each] == [0] * processes, words


@pytest.mark.slow
def test_one_and_three_processes_count_the_same_on_281_pictures(tiny_source, tmp_path):
    """281 is odd and no multiple of 3 or of the batch: a padded share would be counted. `make torture` takes two
    processes too, and ten times as many pictures."""
    import relish

    half = 1400 if TORTURE else 140
    learn = draw_dataset(tmp_path / "learn")
    settings = {"image_size": 32, "batch_size": 4, "epochs": 2, "learning_rate": 1e-3}
    relish.fit(learn, recipe="book", weights=tiny_source, settings=settings, out=tmp_path / "run")
    rng = np.random.default_rng(0)
    for name, count in (("blue", half), ("red", half + 1)):
        (tmp_path / "many" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(COLOURS[name], 90, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "many" / name / f"{number}.png")
    asked = ["evaluate", str(tmp_path / "run"), str(tmp_path / "many"), "--device", "cpu", "--json"]
    one = json.loads(done(*asked).out)
    assert one["top1"]["count"] == 2 * half + 1
    assert 0 < one["top1"]["correct"] < 2 * half + 1
    for processes in (1, 2, 3) if TORTURE else (3,):
        assert json.loads(launched(processes, asked)) == one


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["sum", "mean"] if TORTURE else ["sum"])
def test_a_step_of_two_processes_equals_a_step_of_one(loss, tmp_path):
    """On a layer-norm network, since batch norm sees its own process's pictures alone; a last batch of one included."""
    pictures = draw_dataset(tmp_path / "pictures", train=9, test=2, classes=("blue", "green", "red"))
    (pictures / "train" / "blue" / "000.png").unlink()
    (pictures / "train" / "green" / "000.png").unlink()  # 25 pictures: three batches of 8 and one of 1
    rate = "1e-3" if loss == "sum" else "1e-2"
    asked = ["fit", pictures, "--recipe", "book", "--source", "timm/test_vit", "--weights", "none"]
    asked += ["--image-size", "160", "--unknown", "none"]
    asked += ["--epochs", "1", "--batch-size", "8", "--lr", rate, "--set", f"loss={loss}", "--device", "cpu"]
    for processes in (1, 2):
        together(processes, [*asked, "--out", tmp_path / f"by-{processes}"])
    one, two = (load_model(tmp_path / f"by-{p}" / "model.safetensors")[0].state_dict() for p in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    logs = [(tmp_path / f"by-{p}" / "metrics.jsonl").read_text().splitlines() for p in (1, 2)]
    first, second = ([json.loads(line) for line in log] for log in logs)
    assert [e["accuracy"] for e in first if e["event"] == "train"] == [
        e["accuracy"] for e in second if e["event"] == "train"
    ]
    assert read_json(tmp_path / "by-1" / "environment.json")["processes"] == 1
    assert read_json(tmp_path / "by-2" / "environment.json")["processes"] == 2
    assert read_header(tmp_path / "by-1" / "model.safetensors") == read_header(tmp_path / "by-2" / "model.safetensors")


@pytest.mark.slow
def test_two_processes_climb_as_one_does(tiny_source, tmp_path, monkeypatch):
    """The same plan, the same probe, and models that both hold; each process computes half of the features."""
    pictures = draw_dataset(tmp_path / "pictures", train=9, test=3, size=SQUARE)
    asked = ["fit", pictures, "--weights", tiny_source, "--image-size", "32", "--epochs", "2"]
    asked += ["--set", "precision=f32"]  # else measured anew in each home: which one wins may be chance
    rungs = []
    for processes in (1, 2):
        out = tmp_path / f"by-{processes}"
        monkeypatch.setenv("RELISH_HOME", str(tmp_path / f"home-{processes}"))
        together(processes, [*asked, "--device", "cpu", "--out", out])
        events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        rungs.append([event for event in events if event["event"] == "rung"])
    assert [rung["rung"] for rung in rungs[0]] == [rung["rung"] for rung in rungs[1]] == ["probe", "average"]
    probes = [found[0] for found in rungs]
    assert probes[0]["correct"] == probes[1]["correct"]
    assert probes[0]["loss"] == pytest.approx(probes[1]["loss"], rel=1e-3)
