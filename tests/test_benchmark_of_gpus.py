"""The benchmark of GPUs is measured on one; that it runs can be seen without."""

import runpy
import sys

import pytest
import torch

from tests.conftest import draw_dataset
from tests.test_docs import ROOT


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def started(*words):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, words)])
        runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"), run_name="__main__")

    return started


def test_it_says_in_a_line_that_there_is_no_gpu(benchmark, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark(tmp_path, tmp_path / "work")
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_its_loops_run_on_a_processor(benchmark, tmp_path, capsys):
    benchmark(draw_dataset(tmp_path / "pictures", train=3, test=1), tmp_path / "work", "--device", "cpu", "--tiny")
    rows = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert len(rows) == 5
    assert all(float(speed) > 0 for speed in rows.values())
