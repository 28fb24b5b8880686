"""Features in the cache: BLOBs in SQLite against a memory-mapped file with an SQLite index; its journal against WAL.

    python benchmarks/cache.py [--rows 4000] [--rounds 5]

Rows are 1,280 float32 of noise, the width of the embedded network, in a folder on this machine's disk. Reading is what
a run does: find each key, compare the checksum, copy the row into one array. Writing is blocks of 256 rows, each in a
transaction of its own and by a connection of its own, by one process and by four at once; seconds are those of the
slowest process. `computed` is one row by the embedded network at 224 pixels. Writes `results/cache.json`.
"""

import argparse
import hashlib
import multiprocessing
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch

from measuring import finish, spread
from relish.core import cache as module
from relish.core.cache import Cache
from relish.models.source import load_source

WIDTH = 1280
BLOCK = 256
WRITERS = 4


def keys_of(start: int, count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(start, start + count)]


def write(file: Path, wal: bool, start: int, count: int) -> None:
    """Keep rows in the cache at `file`."""
    module.cache_file = lambda: file
    if wal:
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # the file remembers it
    rows = np.random.default_rng(start).normal(size=(count, WIDTH)).astype(np.float32)
    keys = keys_of(start, count)
    for place in range(0, count, BLOCK):
        block = dict(zip(keys[place : place + BLOCK], rows[place : place + BLOCK], strict=True))
        if not Cache().remember("features", {key: row.tobytes() for key, row in block.items()}):
            raise SystemExit("the cache gave up")


def write_at_once(file: Path, wal: bool, count: int) -> None:
    """The same by several processes."""
    spawn = multiprocessing.get_context("fork")
    each = count // WRITERS
    workers = [spawn.Process(target=write, args=(file, wal, n * each, each)) for n in range(WRITERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise SystemExit("a writer failed")


def read_cache(file: Path, count: int) -> None:
    module.cache_file = lambda: file
    keys = keys_of(0, count)
    rows, places = np.empty((count, WIDTH), np.float32), {key: place for place, key in enumerate(keys)}
    for key, value in Cache().recall("features", keys):
        rows[places.pop(key)] = np.frombuffer(value, dtype="<f4")
    assert not places


def map_file(folder: Path, count: int) -> None:
    """The rows of the cache as a plain file, and an index of places and checksums."""
    rows = np.random.default_rng(0).normal(size=(count, WIDTH)).astype(np.float32)
    (folder / "rows.f32").write_bytes(rows.tobytes())
    with closing(sqlite3.connect(folder / "index")) as index, index:
        index.execute("CREATE TABLE places (key BLOB PRIMARY KEY, place INTEGER, checksum INTEGER) WITHOUT ROWID")
        found = zip(keys_of(0, count), range(count), map(zlib.crc32, rows), strict=True)
        index.executemany("INSERT INTO places VALUES (?, ?, ?)", found)


def read_mapped(folder: Path, count: int) -> None:
    mapped = np.memmap(folder / "rows.f32", dtype="<f4", mode="r", shape=(count, WIDTH))
    rows = np.empty((count, WIDTH), np.float32)
    with closing(sqlite3.connect(folder / "index")) as index:
        for place, key in enumerate(keys_of(0, count)):
            there, checksum = index.execute("SELECT place, checksum FROM places WHERE key = ?", (key,)).fetchone()
            assert zlib.crc32(mapped[there]) == checksum
            rows[place] = mapped[there]


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@torch.inference_mode()
def computed() -> float:
    """Seconds of the embedded network for one image, the best of three batches of 16."""
    network, images = load_source().network.eval(), torch.randn(16, 3, 224, 224)
    return min(seconds(lambda: network(images)) for _ in range(3)) / len(images)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rows", type=int, default=4000)
    ask.add_argument("--rounds", type=int, default=5)
    asked = ask.parse_args()
    rounds = []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory() as named:
            folder, count = Path(named), asked.rows
            arms: dict[str, Callable[[], None]] = {
                "written, rollback journal": partial(write, folder / "alone", False, 0, count),
                "written, WAL": partial(write, folder / "alone-wal", True, 0, count),
                f"written by {WRITERS}, rollback journal": partial(write_at_once, folder / "four", False, count),
                f"written by {WRITERS}, WAL": partial(write_at_once, folder / "four-wal", True, count),
                "read, BLOBs": partial(read_cache, folder / "alone", count),
                "read, mapped file and index": partial(read_mapped, folder, count),
            }
            map_file(folder, count)
            took = {name: seconds(work) for name, work in arms.items()}
        rounds.append({**took, "computed": computed() * count})
        print(f"round {number + 1}: " + ", ".join(f"{name} {value:.2f} s" for name, value in rounds[-1].items()))
    names = list(rounds[0])
    table = [["", f"milliseconds a row, of {asked.rows:,}"]]
    table += [[name, spread([1000 * one[name] / asked.rows for one in rounds])] for name in names]
    finish("cache", f"python benchmarks/cache.py --rows {asked.rows} --rounds {asked.rounds}", rounds, table)


if __name__ == "__main__":
    main()
