"""Rows on disk: what was added is found whole, whatever was interrupted, damaged or done by others at the same time."""

import hashlib
import multiprocessing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relish.core.errors import WriteFailed
from relish.core.row_store import RowStore

WIDTH = 5


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def row(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=WIDTH).astype(np.float32)


def rows(*numbers: int) -> dict[str, np.ndarray]:
    return {key(number): row(number) for number in numbers}


def found(store: RowStore, *numbers: int) -> set[int]:
    """Which of these are there; every one of them is what was added."""
    kept = dict(store.read([key(number) for number in numbers]))
    for number in numbers:
        if key(number) in kept:
            np.testing.assert_array_equal(kept[key(number)], row(number))
    return {number for number in numbers if key(number) in kept}


@given(parts=st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=5))
def test_what_was_added_is_found_and_nothing_else(parts, tmp_path_factory):
    store = RowStore(tmp_path_factory.mktemp("store") / "rows", WIDTH)
    for part in parts:
        store.add(rows(*part))
    assert found(store, *range(35)) == {number for part in parts for number in part}


def test_a_store_that_is_not_there_holds_nothing(tmp_path):
    assert found(RowStore(tmp_path / "absent", WIDTH), 1) == set()


@pytest.mark.parametrize("cut", [1, 7, 19, 20, 33])
def test_rows_cut_off_by_a_kill_are_written_over(tmp_path, cut):
    """Rows reach the disk before their keys: what a kill leaves is a tail without a key."""
    store = RowStore(tmp_path, WIDTH)
    store.add(rows(1, 2))
    whole = (tmp_path / "rows.f32").read_bytes()
    (tmp_path / "rows.f32").write_bytes(whole + b"\x55" * cut)
    assert found(store, 1, 2) == {1, 2}
    store.add(rows(3))
    assert found(store, 1, 2, 3) == {1, 2, 3}
    assert len((tmp_path / "rows.f32").read_bytes()) == 3 * WIDTH * 4


def test_a_key_without_its_row_counts_as_missing(tmp_path):
    store = RowStore(tmp_path, WIDTH)
    store.add(rows(1, 2))
    whole = (tmp_path / "rows.f32").read_bytes()
    (tmp_path / "rows.f32").write_bytes(whole[:-3])
    assert found(store, 1, 2) == {1}
    store.add(rows(2))
    assert found(store, 1, 2) == {1, 2}


def test_a_damaged_row_counts_as_missing_and_can_be_added_again(tmp_path):
    store = RowStore(tmp_path, WIDTH)
    store.add(rows(1, 2, 3))
    content = bytearray((tmp_path / "rows.f32").read_bytes())
    content[WIDTH * 4 + 2] ^= 0x10
    (tmp_path / "rows.f32").write_bytes(content)
    assert found(store, 1, 2, 3) == {1, 3}
    store.add(rows(2))
    assert found(store, 1, 2, 3) == {1, 2, 3}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteFailed, match="RELISH_HOME"):
        RowStore(tmp_path / "file", WIDTH).add(rows(1))


def _add_some(folder, start):
    for number in range(start, start + 20):
        RowStore(folder, WIDTH).add(rows(number))


def test_several_processes_may_add_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_add_some, args=(tmp_path, 100 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    wanted = [100 * n + i for n in range(3) for i in range(20)]
    assert found(RowStore(tmp_path, WIDTH), *wanted) == set(wanted)
