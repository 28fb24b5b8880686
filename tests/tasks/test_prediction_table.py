"""Predictions as CSV, JSONL and Parquet: the same columns and values, whatever the names are."""

import csv
import io
import json
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from relish.core.errors import DataError
from relish.evaluation.prediction import Prediction
from relish.tasks import prediction_table
from relish.tasks.prediction_table import FIRST_COLUMNS, columns, looks_like_a_formula, table_for

ANY_NAME = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
CLASSES = st.lists(ANY_NAME, min_size=2, max_size=4, unique=True)


def answer(path: str, classes: list[str], share: float, unsure: bool = False) -> Prediction:
    each = dict(zip(classes, [share, *[(1 - share) / (len(classes) - 1)] * (len(classes) - 1)], strict=True))
    best = max(each, key=each.__getitem__)
    return Prediction(path, best, each[best], each, unsure=unsure)


def written(answers: list[Prediction], classes: list[str], suffix: str, folder: Path) -> Path:
    """A table whose rows were added two at a time."""
    target = folder / f"table{suffix}"
    table = table_for(target, classes)
    parts = [table.rows(answers[place : place + 2]) for place in range(0, len(answers), 2)]
    table.finish(parts, target)
    return target


def read_back(path: Path) -> list[dict]:
    """Rows as Python values; in a CSV everything is text."""
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        # Not splitlines(): a name may hold what it takes for the end of a line.
        return [json.loads(line) for line in path.read_bytes().decode().split("\n") if line]
    head, *lines = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True)
    return [dict(zip(head, line, strict=True)) for line in lines]


@settings(deadline=None, max_examples=60)
@given(
    classes=CLASSES,
    paths=st.lists(ANY_NAME, min_size=1, max_size=5),
    share=st.floats(0, 1, width=32),
    unsure=st.booleans(),
)
def test_every_form_gives_back_every_name_and_every_digit(classes, paths, share, unsure):
    answers = [answer(path, classes, share, unsure) for path in paths]
    answers.append(Prediction(paths[0], error="damaged"))
    wanted = [np.float32(value) for value in answers[0].probabilities.values()]
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".csv", ".jsonl", ".parquet"):
            *found, bad = read_back(written(answers, classes, suffix, Path(folder)))
            assert [row["path"] for row in found] == paths
            for row in found:
                assert list(row) == columns(classes)
                assert row["class"] == answers[0].class_name
                assert row["unsure"] in (unsure, str(unsure).lower())
                assert [np.float32(row[f"probability_{name}"]) for name in classes] == wanted
                assert np.float32(row["probability"]) == np.float32(answers[0].probability)
                assert row["error"] in (None, "")
            assert (bad["path"], bad["error"]) == (paths[0], "damaged")
            others = [value for key, value in bad.items() if key not in ("path", "error")]
            assert set(others) <= {None, ""}


@given(CLASSES)
def test_no_class_can_take_the_name_of_another_column(classes):
    names = columns([*classes, *(name for name in FIRST_COLUMNS if name not in classes)])
    assert len(set(names)) == len(names)


def test_a_csv_is_read_by_others_with_the_right_types(tmp_path):
    classes = ["hot, dog", 'no "dog"']
    known, strange = answer("a,b\n.png", classes, 0.25), answer("ü.png", classes, 0.75, True)
    answers = [known, replace(strange, unfamiliarity=0.5, unknown=True), Prediction("c", error="x")]
    read = pyarrow.csv.read_csv(
        written(answers, classes, ".csv", tmp_path), parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
    )
    types = ["string", "string", "double", "bool", "double", "bool", "string", "double", "double"]
    assert [str(kind) for kind in read.schema.types] == types
    assert read["path"].to_pylist() == ["a,b\n.png", "ü.png", "c"]
    assert read["unsure"].to_pylist() == [False, True, None]
    assert read["unfamiliarity"].to_pylist() == [None, 0.5, None]
    assert read["unknown"].to_pylist() == [False, True, None]
    assert read['probability_no "dog"'].to_pylist() == [0.75, 0.25, None]


def test_a_parquet_file_has_few_groups_and_typed_columns(tmp_path):
    classes = ["a", "b"]
    found = parquet.ParquetFile(
        written([answer(str(n), classes, 0.5) for n in range(99)], classes, ".parquet", tmp_path)
    )
    assert found.num_row_groups == 1
    assert found.metadata.num_rows == 99
    types = ["string", "string", "float", "bool", "float", "bool", "string", "float", "float"]
    assert [str(kind) for kind in found.schema_arrow.types] == types


def test_a_large_parquet_file_is_written_group_by_group(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_table, "GROUP_BYTES", 200)
    classes = ["a", "b"]
    found = parquet.ParquetFile(
        written([answer(str(n), classes, 0.5) for n in range(99)], classes, ".parquet", tmp_path)
    )
    assert found.num_row_groups > 9
    assert found.read()["path"].to_pylist() == [str(n) for n in range(99)]


def test_a_name_that_is_no_utf8_is_written_with_escapes(tmp_path):
    for suffix in (".csv", ".jsonl", ".parquet"):
        (row,) = read_back(written([answer("b\udcff.png", ["a", "b"], 1.0)], ["a", "b"], suffix, tmp_path))
        assert row["path"] == "b\\udcff.png"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_names_that_spreadsheets_compute_are_counted_and_written_as_they_are(name, tmp_path):
    """Changed, a path would lead nowhere, and a class would be another one."""
    assert looks_like_a_formula(answer(name, ["a", "b"], 0.9))
    assert looks_like_a_formula(answer("a.png", [name, "b"], 0.9))
    assert not looks_like_a_formula(answer("a=1.png", ["a-b", "b"], 0.9))
    assert read_back(written([answer(name, ["a", "b"], 0.9)], ["a", "b"], ".csv", tmp_path))[0]["path"] == name


def test_another_ending_is_refused_with_those_there_are():
    with pytest.raises(DataError, match=r"answers\.xlsx.*\.csv, \.jsonl, \.parquet"):
        table_for(Path("answers.xlsx"), ["a", "b"])


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pyarrow") as told:
        table_for(Path("answers.parquet"), ["a", "b"])
    assert "relish-vision[parquet]" in told.value.hint
    assert table_for(Path("answers.csv"), ["a", "b"]).rows([]) == b""


def test_probabilities_that_are_no_round_numbers_keep_their_digits(tmp_path):
    third = answer("a", ["a", "b"], 1 / 3)
    (row,) = read_back(written([third], ["a", "b"], ".jsonl", tmp_path))
    assert row["probability_a"] == 0.33333334  # the shortest digits of that float32
    assert math.isclose(row["probability_a"] + row["probability_b"], 1, abs_tol=1e-6)
