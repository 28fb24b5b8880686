"""The cache: what was kept is found whole, whatever was interrupted, damaged or done by others at the same time."""

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core import cache as module
from relish.core.cache import Cache, cache_file
from tests.conftest import Heard
from tests.core.cache_entries import entries, keep_some, key, value


def found(*numbers: int, cache: Cache | None = None) -> set[int]:
    """Which of these are there; every one of them is what was kept."""
    kept = dict((cache or Cache()).recall("rows", map(key, numbers)))
    assert all(kept[key(number)] == value(number) for number in numbers if key(number) in kept)
    return {number for number in numbers if key(number) in kept}


@settings(max_examples=30)
@given(parts=st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=5))
def test_what_was_kept_is_found_and_nothing_else(parts, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(tmp_path_factory.mktemp("home")))
        cache = Cache()
        for part in parts:
            assert cache.remember("rows", entries(*part))
        assert found(*range(35)) == {number for part in parts for number in part}


def test_kinds_are_kept_apart_and_a_later_value_takes_the_place_of_a_former_one():
    cache = Cache()
    cache.remember("rows", {b"a": b"1"})
    cache.remember("others", {b"a": b"2"})
    assert dict(cache.recall("rows", [b"a", b"b"])) == {b"a": b"1"}
    cache.remember("rows", {b"a": b""})
    assert dict(cache.recall("rows", [b"a"])) == {b"a": b""}
    assert dict(cache.recall("others", [b"a"])) == {b"a": b"2"}


def test_a_damaged_value_counts_as_missing_and_can_be_kept_again():
    Cache().remember("rows", entries(1, 2, 3))
    content = bytearray(cache_file().read_bytes())
    content[content.index(value(2)[:100]) + 50] ^= 0x10
    cache_file().write_bytes(content)
    heard = Heard()
    assert found(1, 2, 3, cache=Cache(heard)) == {1, 3}
    Cache(heard).remember("rows", entries(2))
    assert found(1, 2, 3, cache=Cache(heard)) == {1, 2, 3}
    assert heard.warnings == []


@pytest.mark.parametrize(
    "content", [b"no database, but long enough to be looked at" * 9, b"SQLite format 3\0" + bytes(900)]
)
def test_a_damaged_file_is_emptied_and_one_line_says_so(content):
    cache_file().write_bytes(content)
    heard = Heard()
    cache = Cache(heard)
    assert found(1, cache=cache) == set()
    assert cache.remember("rows", entries(1))
    assert found(1, cache=cache) == {1}
    assert len(heard.warnings) == 1
    assert "damaged" in heard.warnings[0]


@pytest.mark.parametrize("seed", range(16))
def test_whatever_bytes_are_damaged_no_entry_is_wrong_and_the_cache_works_again(seed):
    rng = random.Random(seed)
    Cache().remember("rows", entries(*range(60)))
    content = bytearray(cache_file().read_bytes())
    if seed % 4 == 0:
        content = content[: rng.randrange(len(content))]
    start = rng.randrange(max(1, len(content)))
    length = min(rng.choice([1, 40, 5000]), len(content) - start)
    content[start : start + length] = rng.randbytes(length)
    cache_file().write_bytes(content)
    found(*range(60))
    Cache().remember("rows", entries(*range(60)))  # may meet the damage, and empty the file
    Cache().remember("rows", entries(*range(60)))
    assert len(found(*range(60))) == 60


def test_a_file_that_cannot_be_used_is_gone_without_and_one_line_says_so():
    cache_file().mkdir()
    heard = Heard()
    cache = Cache(heard)
    assert found(1, cache=cache) == set()
    assert not cache.remember("rows", entries(1))
    (warning,) = heard.warnings
    assert str(cache_file()) in warning
    assert "not kept" in warning


def test_a_home_that_is_no_folder_is_gone_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "file"))
    heard = Heard()
    assert not Cache(heard).remember("rows", entries(1))
    assert len(heard.warnings) == 1


def test_a_full_disk_keeps_what_was_kept(monkeypatch):
    Cache().remember("rows", entries(1))
    opened = module._opened

    def nearly_full(file):
        connection = opened(file)
        connection.execute("PRAGMA max_page_count = 8")
        return connection

    heard = Heard()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_opened", nearly_full)
        assert not Cache(heard).remember("rows", {b"large": bytes(10**6)})
    assert "full" in heard.warnings[0]
    assert found(1) == {1}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_only_be_read_is_read():
    Cache().remember("rows", entries(1))
    cache_file().chmod(0o444)
    cache_file().parent.chmod(0o555)
    try:
        heard = Heard()
        assert found(1, cache=Cache(heard)) == {1}
        assert heard.warnings == []
        assert not Cache(heard).remember("rows", entries(2))
        assert len(heard.warnings) == 1
    finally:
        cache_file().parent.chmod(0o755)


def test_a_file_that_another_process_holds_is_gone_without_after_a_while(monkeypatch):
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    Cache().remember("rows", entries(1))
    with closing(sqlite3.connect(cache_file(), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        heard = Heard()
        assert found(1, cache=Cache(heard)) == set()
        assert "locked" in heard.warnings[0]
        other.execute("ROLLBACK")
    assert found(1) == {1}


def test_several_processes_may_keep_at_once():
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=keep_some, args=(100 * n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    wanted = [100 * n + i for n in range(3) for i in range(20)]
    assert found(*wanted) == set(wanted)


def test_a_kill_at_any_moment_leaves_whole_transactions():
    code = "from tests.core.cache_entries import keep_for_ever; keep_for_ever()"
    rng, known = random.Random(0), 0
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            told = [int(line) for line in process.stdout.read().split()]
        known = max([known, *told])
        heard = Heard()
        kept = found(*range(known + 30), cache=Cache(heard))
        assert kept >= set(range(known + 10))
        assert len(kept) % 10 == 0
        assert heard.warnings == []
