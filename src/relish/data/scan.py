"""Read every picture of a dataset once, before anything is learned from it.

In:   a dataset.
Out:  a `Survey`: the dataset without the pictures that cannot be opened, each of those by name and reason, and the
      SHA-256 of every other file, with a few facts about its pixels.
Not here: what opening a picture means (`pictures.py`); what the facts are suspected to mean (`checking/`).

A picture that fails in the middle of a run would have to be replaced or skipped, and either changes what is learned
without a word. Found here, it is named and counted.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from relish.core.cores import cores
from relish.core.errors import DataError, PictureError
from relish.core.fingerprints import fingerprint
from relish.core.progress import Progress
from relish.data.classes import first_few, named_counts
from relish.data.dataset import TRAIN, Dataset
from relish.data.facts import Facts, facts_of, facts_table
from relish.data.findings import Finding
from relish.data.image import mode_of, open_picture, unreadable_reason
from relish.data.outcomes import FileKey, Outcome, Outcomes

MAX_FILE_BYTES = 2**30
"""A larger file is not read: no picture within `MAX_PIXELS` needs as much, and several are in memory at a time."""

_CHUNK = 256
"""Files between two looks at what is remembered, no unit; what a kill can cost."""
_SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was read may change again within one tick of its clock."""


@dataclass(frozen=True)
class Survey:
    """What reading every picture of a dataset once has shown."""

    dataset: Dataset
    """Without the pictures that cannot be opened; its warnings say how many those were."""
    unreadable: tuple[tuple[str, str], ...]
    """(name relative to the root, reason) of each picture left out, in the order of the splits."""
    sha256: Mapping[Path, str]
    """64 hexadecimal digits for each picture that is left."""
    facts: Mapping[Path, bytes]
    """A row of `facts.FACTS` for each picture that is left."""
    fingerprint: str
    """Of all (name, class, split, SHA-256), whatever their order and wherever the root: equal means the same data."""
    findings: tuple[Finding, ...] = ()
    """What a first look at them found, where one was taken."""

    def facts_of(self, paths: Sequence[Path]) -> Facts:
        """(N,) of `facts.FACTS`, in the order of the paths."""
        return facts_table(self.facts[path] for path in paths)


def survey(
    dataset: Dataset, *, progress: Progress | None = None, strict: bool = False, learnable: bool = True
) -> Survey:
    """Hash and decode every picture; what was seen before and has not changed is remembered.

    Args:
        dataset: its files are only read.
        progress: shows a bar.
        strict: refuse the dataset if any picture cannot be opened, instead of leaving those out.
        learnable: refuse what nothing can be learned from any more; otherwise the dataset's `problem` says why.

    Raises:
        DataError: `strict` and a picture cannot be opened; if `learnable`, a class has lost all it could be learned
            from, or a split all its pictures.
    """
    paths = list(dict.fromkeys(path for split in dataset.splits.values() for path in split.paths))
    outcomes = _examine_all(dataset, paths, progress or Progress())
    reasons = {path: outcome.reason for path, outcome in outcomes.items() if outcome.reason}
    unreadable = tuple((dataset.label(path), reason) for path, reason in reasons.items())
    if unreadable and strict:
        raise DataError(_summary(dataset, unreadable, len(paths)) + ".", hint="Mend or remove them.")
    kept = _without(dataset, reasons, unreadable, len(paths)) if unreadable else dataset
    lost = _lost(dataset, kept) if unreadable else ""
    if lost:
        problem = DataError(lost, hint=f"{_summary(dataset, unreadable, len(paths))}.\n  Mend or replace them.")
        if learnable:
            raise problem
        kept = replace(kept, problem=problem)
    sha256 = {path: outcome.sha256 for path, outcome in outcomes.items() if not outcome.reason}
    facts = {path: outcome.facts for path, outcome in outcomes.items() if not outcome.reason}
    return Survey(kept, unreadable, sha256, facts, _fingerprint(kept, sha256))


# ---- reading --------------------------------------------------------------------------------------------------------


def _examine_all(dataset: Dataset, paths: Sequence[Path], progress: Progress) -> dict[Path, Outcome]:
    outcomes: dict[Path, Outcome] = {}
    pool = ThreadPoolExecutor(_threads(), thread_name_prefix="survey")
    try:
        with Outcomes() as remembered, progress.bar("reading pictures", len(paths)) as bar:
            for chunk in _chunks(paths, _CHUNK):
                for path, outcome in _examine_chunk(chunk, pool, remembered):
                    outcomes[path] = outcome
                    bar.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    return outcomes


def _examine_chunk(
    chunk: Sequence[Path], pool: ThreadPoolExecutor, remembered: Outcomes
) -> Iterator[tuple[Path, Outcome]]:
    """Each path with what came of reading it, in the order given."""
    keys = list(pool.map(_key, chunk))
    known = remembered.recall([key for key in keys if key])
    fresh: dict[FileKey, Outcome] = {}
    for path, key, outcome in zip(chunk, keys, pool.map(partial(_examine, known=known), chunk, keys), strict=True):
        if key and key not in known and _worth_remembering(key, outcome):
            fresh[key] = outcome
        yield path, outcome
    remembered.remember(fresh)


def _threads() -> int:
    # Decoding leaves Python's lock alone, so threads are enough, and cheaper than processes.
    return min(16, cores())


def _chunks(paths: Sequence[Path], size: int) -> Iterator[list[Path]]:
    rest = iter(paths)
    while chunk := list(islice(rest, size)):
        yield chunk


def _key(path: Path) -> FileKey | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return FileKey(os.fsencode(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _examine(path: Path, key: FileKey | None, known: Mapping[FileKey, Outcome]) -> Outcome:
    if key is not None and key in known:
        return known[key]
    try:
        if key is not None and key.size > MAX_FILE_BYTES:
            return Outcome("", f"not a picture: {key.size / 2**30:.1f} GiB is too large a file", lasting=False)
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        return Outcome("", unreadable_reason(error), lasting=False)
    except MemoryError:
        return Outcome("", "not enough memory to read it", lasting=False)
    return _decode(content, str(path))


def _decode(content: bytes, name: str) -> Outcome:
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        picture = open_picture(content, name=name)
        return Outcome(sha256, "", facts_of(picture, mode_of(content)))
    except PictureError as error:
        return Outcome(sha256, error.reason, lasting=not isinstance(error.__cause__, MemoryError))
    except MemoryError:
        return Outcome(sha256, "not enough memory to look at it", lasting=False)


def _worth_remembering(key: FileKey, outcome: Outcome) -> bool:
    return outcome.lasting and time.time_ns() - max(key.mtime_ns, key.ctime_ns) > _SETTLED_NS


# ---- leaving out ----------------------------------------------------------------------------------------------------


def _without(
    dataset: Dataset, reasons: Mapping[Path, str], unreadable: Sequence[tuple[str, str]], total: int
) -> Dataset:
    splits = {
        name: split.take(np.flatnonzero([path not in reasons for path in split.paths]))
        for name, split in dataset.splits.items()
    }
    summary = _summary(dataset, unreadable, total)
    return dataset.with_splits(splits, f"{summary.removeprefix(dataset.name + ': ')}: left out.")


def _lost(dataset: Dataset, kept: Dataset) -> str:
    """What can no longer be learned or scored, in words; empty where nothing is lost but pictures."""
    for name, split in kept.splits.items():
        before, after = (named_counts(dataset, s) for s in (dataset.splits[name], split))
        lost = [c for c in dataset.classes if before[c] and not after[c]]
        if lost and (name == TRAIN or not len(split)):
            told = first_few([f'"{c}" ({before[c]:,})' for c in lost])
            return f"{dataset.name}: no picture that {name} has of class {told} can be opened."
    return ""


def _summary(dataset: Dataset, unreadable: Sequence[tuple[str, str]], total: int) -> str:
    told = first_few([f"{label} ({reason})" for label, reason in unreadable])
    return f"{dataset.name}: {len(unreadable):,} of {total:,} pictures cannot be opened: {told}"


def _fingerprint(dataset: Dataset, sha256: Mapping[Path, str]) -> str:
    rows = [
        fingerprint([dataset.label(path), dataset.classes[label], name, sha256[path]])
        for name, split in dataset.splits.items()
        for path, label in zip(split.paths, split.labels.tolist(), strict=True)
    ]
    return fingerprint(sorted(rows))
