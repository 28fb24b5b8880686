"""Read every image of a dataset once before training: what cannot be opened, SHA-256 of each file, facts of its pixels.

An image that fails in the middle of a run would have to be replaced or skipped, and either changes the training data
silently. Found here, it is named and counted. A row of facts is 66 bytes, so that a hundred thousand images take
7 megabytes. Light and sharpness are measured at one scale for all: a large photograph would otherwise count as sharper
than the same one shrunk.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import imagehash
import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from relish.core.cache import Cache
from relish.core.errors import DataError, ImageError
from relish.core.io import fingerprint
from relish.core.progress import SILENT, Progress
from relish.core.runtime import give_memory_back, usable_cores
from relish.core.workers import Workers
from relish.data.dataset import TRAIN, Dataset, Finding, first_few, named_counts, plural
from relish.data.depth import Used, ValueRange, disagreement, found_range, range_sentence
from relish.data.groups import units_of
from relish.data.image import MAX_PIXELS, has_more_frames, mode_and_depth, open_image, used_values
from relish.data.image_files import HEIF_INSTALLED, unreadable_reason

# ---- facts of an image's pixels -------------------------------------------------------------------------------------


FACTS = np.dtype(
    [
        *[("width", "<u4"), ("height", "<u4"), ("mode", "S5"), ("more", "?"), ("pixels", "V16")],
        *[("phash", "<u8"), ("mirrored", "<u8"), ("dhash", "<u8")],
        *[("brightness", "<f4"), ("contrast", "<f4"), ("sharpness", "<f4")],
    ]
)
"""Size in pixels, upright; Pillow's mode of the file; whether it holds more pages or frames than the first; digest of
size and decoded RGB pixels; perceptual hash by cosine transform (64 bits), the same of the mirror image, and the hash
by differences of neighbours (imagehash's `phash` and `dhash`); mean and standard deviation of the grey levels, 0 to
255; variance of their Laplacian."""

Facts = npt.NDArray[np.void]
"""(N,) of `FACTS`."""

LONGEST = 256
"""Pixels of the longer side at which light and sharpness are measured; smaller images are measured as they are."""
_HASH_SIDE = 32
"""Pixels that `phash` scales an image to by itself: done once for the three hashes."""
_STRIP = 2**20
"""Pixels in a strip that is hashed at a time, so that no second copy of a large image is made."""


def facts_of(image: Image.Image, mode: str, more: bool = False) -> bytes:
    """One row of `FACTS`.

    Args:
        image: RGB, wholly decoded, upright.
        mode: of the file, before it was brought to RGB.
        more: whether the file holds more pages or frames than this one.
    """
    grey = shrunk_grey(image, LONGEST)
    levels = np.asarray(grey, dtype=np.float32)
    small = grey.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX)
    mirrored = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    hashes = (imagehash.phash(small), imagehash.phash(mirrored), imagehash.dhash(small))
    light = (levels.mean(), levels.std(), laplacian_variance(levels))
    row = (*image.size, mode.encode()[:5], more, pixel_digest(image), *map(_bits, hashes), *light)
    return np.array(row, dtype=FACTS).tobytes()


def as_facts(rows: Iterable[bytes]) -> Facts:
    """(N,) of `FACTS` from N rows of `facts_of`."""
    return np.frombuffer(b"".join(rows), dtype=FACTS)


def pixel_digest(image: Image.Image) -> bytes:
    """16 bytes that are equal for images of the same size and the same RGB pixels, whatever their files are."""
    width, height = image.size
    digest = hashlib.sha256(f"{width}x{height}".encode())
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        digest.update(image.crop((0, top, width, min(height, top + rows))).tobytes())
    return digest.digest()[:16]


def shrunk_grey(image: Image.Image, longest: int) -> Image.Image:
    """The image in grey with its longer side at most so many pixels; a box filter does most of it, for its speed."""
    factor = max(image.size) // longest
    grey = (image.reduce(factor) if factor > 1 else image).convert("L")
    if max(grey.size) <= longest:
        return grey
    scale = longest / max(grey.size)
    width, height = (max(1, round(side * scale)) for side in grey.size)
    return grey.resize((width, height), Image.Resampling.BILINEAR)


def laplacian_variance(levels: npt.NDArray[np.float32]) -> float:
    """How much fine detail an image has: the variance of its Laplacian; 0 where a side is under 3 pixels.

    Args:
        levels: (H, W) float32 grey levels, 0 to 255.

    Source: Pech-Pacheco, Cristobal, Chamorro-Martinez and Fernandez-Valdivia 2000, ICPR, section 2.
    """
    if min(levels.shape) < 3:
        return 0.0
    centre = levels[1:-1, 1:-1]
    around = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    return float((around - 4 * centre).var())


def _bits(image_hash: imagehash.ImageHash) -> int:
    return int.from_bytes(np.packbits(image_hash.hash).tobytes(), "big")


# ---- the survey ---------------------------------------------------------------------------------------------------

MAX_FILE_BYTES = 2**30
"""A larger file is not read: no image within `MAX_PIXELS` needs as much, and several are in memory at a time."""

_KIND = "picture"
"""Kind of the cache's entries: by a file's absolute path, its size and times, and the outcome of reading it."""
_CHUNK = 256
"""Files between two accesses to the cache; a kill loses at most as many outcomes."""
_SETTLED_NS = 2_000_000_000
"""Nanoseconds; a file changed less than this before it was read may change again within one tick of its clock."""
_RULES = f"6/{PIL.__version__}/{MAX_PIXELS}/{HEIF_INSTALLED}"
"""What can be opened depends on this; raise the first number when `image.py` accepts more or less than before,
or `facts_of` measures otherwise."""


class FileKey(NamedTuple):
    """A file's state at one time. The change time is part of it since unpacking and copying set the other time."""

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of reading and decoding one file."""

    sha256: str
    reason: str
    """Why it cannot be opened; empty where it can."""
    facts: bytes = b""
    """A row of `FACTS`; empty where it cannot be opened."""
    lasting: bool = True
    """Whether the outcome depends on the file's bytes alone: a permission or a lack of memory may change."""
    no_memory: bool = False
    """Whether it could be opened where there is more memory."""
    used: Used | None = None
    """The values of an image deeper than 8 bits."""
    value_range: ValueRange | None = None
    """What was black and white in it when the facts were recorded."""


@dataclass(frozen=True)
class Survey:
    """The results of reading every image of a dataset once."""

    dataset: Dataset
    """Without the images that cannot be opened; its warnings give their number."""
    unreadable: tuple[tuple[str, str], ...]
    """(name relative to the root, reason) of each image left out, in the order of the splits."""
    sha256: Mapping[Path, str]
    """64 hexadecimal digits for each image that is left."""
    facts: Mapping[Path, bytes]
    """A row of `FACTS` for each image that is left."""
    fingerprint: str
    """Of all (name, class, split, SHA-256), whatever their order and wherever the root: equal means the same data."""
    used: Mapping[Path, Used] = field(default_factory=dict)
    """The values of each image deeper than 8 bits."""
    value_range: ValueRange | None = None
    """What is black and white in these, one range for all; None where there are none, or nobody is to find one."""
    findings: tuple[Finding, ...] = ()
    """Findings of the check of the images, where there was one."""

    @cached_property
    def units(self) -> Mapping[Path, str]:
        """For each image the key of what stays on one side: see `units_of`."""
        return units_of(self.sha256, self.dataset.groups)

    def facts_of(self, paths: Sequence[Path]) -> Facts:
        """(N,) of `FACTS`, in the order of the paths."""
        return as_facts(self.facts[path] for path in paths)

    @property
    def depth(self) -> str:
        """What is black and white in the images deeper than 8 bits, in a sentence; empty where there are none."""
        if self.value_range is None or not self.used:
            return ""
        return range_sentence(self.value_range, list(self.used.values()), len(self.facts))


def survey(
    dataset: Dataset,
    *,
    progress: Progress = SILENT,
    strict: bool = False,
    learnable: bool = True,
    value_range: ValueRange | Literal["found"] | None = "found",
    workers: Workers | None = None,
) -> Survey:
    """Hash and decode every image; files that have not changed since an earlier survey come from the cache.

    Images deeper than 8 bits are read twice: once for the values they use, and once more for their facts, when what is
    black and white in the whole dataset is known.

    Args:
        dataset: its files are only read.
        progress: shows a bar.
        strict: refuse the dataset if any image cannot be opened, instead of leaving those out.
        learnable: refuse a dataset that can no longer be trained on; otherwise its `problem` says why.
        value_range: of images deeper than 8 bits: found in all of them together, given, or a model's; None takes what
            each file says, as a model does that learned from 8 bits.
        workers: that read images; None, as 0 of them, reads in threads of this process.

    Raises:
        DataError: `strict` and an image cannot be opened; if `learnable`, a class has lost all its training images,
            or a split all its images, or images deeper than 8 bits are not on one scale.
        WorkerFailed: see `Workers`.
    """
    paths = list(dict.fromkeys(path for split in dataset.splits.values() for path in split.paths))
    outcomes = examine(paths, progress, "reading pictures", workers=workers)
    used = {path: outcome.used for path, outcome in outcomes.items() if outcome.used}
    problem = None
    if value_range == "found":
        value_range = found_range(list(used.values())) if used else None
        problem = disagreement({dataset.label(path): one for path, one in used.items()})
        if problem is not None:
            problem = DataError(f"{dataset.name}: {problem.message}", hint=problem.hint)
            if learnable:
                raise problem
    if used and value_range is None:
        words = f"{plural(len(used), 'picture')} deeper than 8 bits, and the model learned from none such"
        dataset = dataset.with_splits(dataset.splits, f"{words}: each is read at what its own file can hold.")
    if used:
        known = {path: outcomes[path] for path in used}
        outcomes |= examine(list(used), progress, "scaling pictures", Scaling(value_range, known), workers)
    reasons = {path: outcome.reason for path, outcome in outcomes.items() if outcome.reason}
    unreadable = tuple((dataset.label(path), reason) for path, reason in reasons.items())
    listed = first_few([f"{label} ({reason})" for label, reason in unreadable])
    summary = f"{len(unreadable):,} of {len(paths):,} pictures cannot be opened: {listed}"
    if unreadable and strict:
        raise DataError(f"{dataset.name}: {summary}.", hint="Mend or remove them.")
    kept = _without(dataset, reasons, summary) if unreadable else dataset
    if lost := _lost(dataset, kept):
        problem = DataError(lost, hint=f"{dataset.name}: {summary}.\n  Mend or replace them.")
        if learnable:
            raise problem
    if problem is not None:
        kept = replace(kept, problem=problem)
    sha256 = {path: outcome.sha256 for path, outcome in outcomes.items() if not outcome.reason}
    facts = {path: outcome.facts for path, outcome in outcomes.items() if not outcome.reason}
    used = {path: one for path, one in used.items() if path in facts}
    return Survey(kept, unreadable, sha256, facts, _fingerprint(kept, sha256), used, value_range)


# ---- reading --------------------------------------------------------------------------------------------------------


class Scaling(NamedTuple):
    """For a second look at images deeper than 8 bits."""

    value_range: ValueRange | None
    """What is black and white in them; None: what each file says."""
    known: Mapping[Path, Outcome]
    """Of the first look."""


def examine(
    paths: Sequence[Path],
    progress: Progress,
    title: str,
    scaling: Scaling | None = None,
    workers: Workers | None = None,
) -> dict[Path, Outcome]:
    """Every path with the outcome of reading it; without a `scaling`, of deep images the values alone.

    Files that have not changed since an earlier survey come from the cache.

    Raises:
        WorkerFailed: see `Workers`.
    """
    if scaling is not None:
        known = scaling.known
        paths = [p for p in paths if not known[p].facts or known[p].value_range != scaling.value_range]
        if not paths:
            return {}
    outcomes: dict[Path, Outcome] = {}
    # Decoding releases Python's lock, so threads are enough, and cheaper than processes, until there are many cores.
    pool = ThreadPoolExecutor(min(16, usable_cores()), thread_name_prefix="survey")
    try:
        cache = Cache(progress)
        with progress.bar(title, len(paths)) as bar:
            for start in range(0, len(paths), _CHUNK):
                chunk = paths[start : start + _CHUNK]
                for path, outcome in _examine_chunk(chunk, pool, cache, scaling, workers or Workers()):
                    outcomes[path] = outcome
                    bar.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    return {path: outcomes[path] for path in paths}


def _examine_chunk(
    chunk: Sequence[Path], pool: ThreadPoolExecutor, cache: Cache, scaling: Scaling | None, workers: Workers
) -> Iterator[tuple[Path, Outcome]]:
    """Each path with the outcome of reading it; those that memory lacked for come last, read one by one."""
    keys = list(pool.map(_key, chunk))
    known = {} if scaling else _cached(cache, [key for key in keys if key])
    examine = partial(_examine, scaling=scaling)
    spread: Callable[..., Iterator[Outcome]] = workers.map if workers.count else pool.map
    read = spread(examine, [(path, key) for path, key in zip(chunk, keys, strict=True) if key not in known])
    entries: dict[bytes, bytes] = {}
    again: list[tuple[Path, FileKey | None]] = []

    def alone() -> Iterator[tuple[Path, FileKey | None, Outcome]]:
        if again:
            give_memory_back()
        for path, key in again:
            yield path, key, examine((path, key))

    together = ((p, key, known[key] if key in known else next(read)) for p, key in zip(chunk, keys, strict=True))
    for path, key, outcome in chain(together, alone()):
        if outcome.no_memory and (path, key) not in again:
            again.append((path, key))
            continue
        is_settled = key and time.time_ns() - max(key.mtime_ns, key.ctime_ns) > _SETTLED_NS
        if key and key not in known and outcome.lasting and is_settled:
            scale = outcome.value_range and astuple(outcome.value_range)
            entry = [*key[1:], _RULES, outcome.sha256, outcome.reason, outcome.facts.hex(), outcome.used, scale]
            entries[key.path] = json.dumps(entry).encode()
        yield path, outcome
    cache.remember(_KIND, entries)


def _key(path: Path) -> FileKey | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return FileKey(os.fsencode(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _examine(file: tuple[Path, FileKey | None], scaling: Scaling | None) -> Outcome:
    path, key = file
    try:
        if key is not None and key.size > MAX_FILE_BYTES:
            return Outcome("", f"not a picture: {key.size / 2**30:.1f} GiB is too large a file", lasting=False)
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        return Outcome("", unreadable_reason(error), lasting=False)
    except MemoryError:
        return Outcome("", "not enough memory to read it", lasting=False, no_memory=True)
    return _decode(content, path, scaling)


def _decode(content: bytes, path: Path, scaling: Scaling | None) -> Outcome:
    """The outcome of an image; without a scaling, a deep one has its values and no facts."""
    found, name = Outcome(hashlib.sha256(content).hexdigest(), ""), str(path)
    try:
        mode, is_deep = mode_and_depth(content)
        if is_deep:
            known = scaling.known[path] if scaling else found
            same = known.used and known.sha256 == found.sha256
            found = replace(found, used=known.used if same else used_values(content, name=name))
            if scaling is None:
                return found
        value_range = scaling.value_range if scaling and is_deep else None
        image = open_image(content, name=name, value_range=value_range)
        return replace(found, facts=facts_of(image, mode, has_more_frames(content)), value_range=value_range)
    except (ImageError, MemoryError) as error:
        no_memory = MemoryError in (type(error), type(error.__cause__))
        reason = error.reason if isinstance(error, ImageError) else "not enough memory to look at it"
        return replace(found, reason=reason, lasting=not (no_memory or scaling), no_memory=no_memory)


def _cached(cache: Cache, keys: Sequence[FileKey]) -> dict[FileKey, Outcome]:
    """The outcomes that the cache has of these files, where they have not changed since."""
    found: dict[FileKey, Outcome] = {}
    by_path = {key.path: key for key in keys}
    for path, entry in cache.recall(_KIND, by_path):
        *state, sha256, reason, facts, used, value_range = json.loads(entry)
        if state == [*by_path[path][1:], _RULES]:
            scale = value_range and ValueRange(*value_range)
            outcome = Outcome(sha256, reason, bytes.fromhex(facts), used=used and Used(*used), value_range=scale)
            found[by_path[path]] = outcome
    return found


# ---- leaving out ----------------------------------------------------------------------------------------------------


def _without(dataset: Dataset, reasons: Mapping[Path, str], summary: str) -> Dataset:
    splits = {
        name: split.take(np.flatnonzero([path not in reasons for path in split.paths]))
        for name, split in dataset.splits.items()
    }
    return dataset.with_splits(splits, f"{summary}: left out.")


def _lost(dataset: Dataset, kept: Dataset) -> str:
    """The class that training, or the split that evaluation can no longer use, in a sentence; empty for none."""
    for name, split in kept.splits.items():
        before, after = (named_counts(dataset, s) for s in (dataset.splits[name], split))
        lost = [c for c in dataset.classes if before[c] and not after[c]]
        if lost and (name == TRAIN or not len(split)):
            listed = first_few([f'"{c}" ({before[c]:,})' for c in lost])
            return f"{dataset.name}: no picture that {name} has of class {listed} can be opened."
    return ""


def _fingerprint(dataset: Dataset, sha256: Mapping[Path, str]) -> str:
    rows = [
        fingerprint([dataset.label(path), dataset.classes[label], name, sha256[path]])
        for name, split in dataset.splits.items()
        for path, label in zip(split.paths, split.labels.tolist(), strict=True)
    ]
    return fingerprint(sorted(rows))
