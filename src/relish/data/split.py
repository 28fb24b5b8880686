"""Splits: the words that mean them, the option that says it instead, and holding out those that a dataset lacks.

A name is read as words: its letters, without case, cut at blanks, punctuation, digits and camelCase.

    split name     { AFFIX } WORD { AFFIX }; WORD is one of `SPLIT_WORDS`, and no word of another split is beside it
    AFFIX          a number, a word of `NEUTRAL` (`set`, `images`: both say nothing), or any other word
    split folder   a split name without other words: `train`, `01_train`, `TrainingSet`, `val2017`
    series         folders that have the same other words around WORDs of different splits: `seg_train`, `seg_test`,
                   `seg_pred`; written together too: `dogstrain`, `dogstest`. One alone is none: `train_station`

`split_folders.py` holds names against what the folders contain. `valid` beside `invalid` is no name of a split.

Which images are held out, stratified by class, depends on the seed and on the images' contents, not on the order of
files on the disk, so that two computers validate on the same ones. Copies of a file, and images of one group, stay on
one side: they would only measure memorisation.
"""

import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError, RecipeError, nearest
from relish.core.runtime import derive_seed
from relish.data.dataset import (
    TEST,
    TRAIN,
    VALIDATION,
    WHOLE,
    Dataset,
    Split,
    TooFewImages,
    check_trainable,
    named_counts,
)
from relish.data.groups import is_group, not_on_both_sides, refuse_large_groups

# ---- words ----------------------------------------------------------------------------------------------------------

SPLIT_WORDS = {
    **dict.fromkeys(["train", "training", "trn", "trainval", "trainvalid"], TRAIN),
    **dict.fromkeys(["val", "valid", "validation", "validate", "validating", "vld", "dev"], VALIDATION),
    **dict.fromkeys(["test", "testing", "tests", "tst", "holdout", "eval", "evaluation"], TEST),
}
"""The split that each word of a folder's name, or of a table, means."""
SHORT = {"tr": TRAIN, "tra": TRAIN, "va": VALIDATION, "vl": VALIDATION, "te": TEST, "ts": TEST, "tes": TEST}
"""Words that may mean a split where the same classes are in each; languages go by such names too."""
ELSE = {"eval": VALIDATION, "evaluation": VALIDATION, "trainval": "", "trainvalid": ""}
"""What these words mean where another folder means their split too; `trainval` then repeats others: it is no split."""
UNLABELLED = frozenset(
    {"pred", "preds", "predict", "prediction", "predictions", "inference", "submission", "submissions", "unlabel"}
    | {"unlabeled", "unlabelled", "unknown", "unsupervised"}
)
"""Words of folders beside splits that hold images without labels."""
NEUTRAL = frozenset(
    {"set", "sets", "data", "dataset", "split", "splits", "folder", "files", "images", "image", "imgs", "img"}
    | {"pictures", "photos", "samples", "x", "px"}
)
"""Words that say nothing about which split a folder is."""
HOLDERS = frozenset(
    {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "pics", "jpg", "jpeg", "jpegs", "png"}
    | {"pngs", "jpegimages", "data", "dataset", "datasets", "class", "classes", "object", "objects", "categories"}
)
"""Words of folders that hold those of all classes."""
SIDECARS = frozenset(
    {"annotation", "annotations", "label", "labels", "meta", "metadata", "list", "lists", "imagesets", "doc", "docs"}
    | {"code", "src", "script", "scripts", "notebook", "notebooks", "model", "models", "weights", "csv", "xml", "json"}
    | {"sample", "example", "examples", "demo", "papers", "readme", "license", "logs", "masks", "trimaps"}
)
"""Words of folders beside images that hold something else."""
NEGATIONS = ("not", "no", "non", "in", "un", "without")
"""A name behind one of these is the other class: valid and invalid, train and not-train."""

Frame = tuple[tuple[str, ...], tuple[str, ...]]
"""The words before and behind a split's word, those left out that say nothing."""
PLAIN: Frame = ((), ())


_TOGETHER = re.compile("({0})({1})|({1})({0})".format("|".join(SPLIT_WORDS), "|".join(NEUTRAL)))


def words_of(name: str) -> list[str]:
    """The words of a folder's name: `Seg_trainSet2` and `seg_trainset` have seg, train, set."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    words = [word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)]
    together = [(word, _TOGETHER.fullmatch(word)) for word in words]
    return [part for word, match in together for part in (match.groups() if match else [word]) if part]


def splits_in(name: str) -> set[str]:
    """The splits that words of a name mean, whatever stands around them, short words included."""
    return {split for word in words_of(name) if (split := SPLIT_WORDS.get(word) or SHORT.get(word))}


def holds_any_class(name: str) -> bool:
    """Whether all words of a name are among `HOLDERS`: `JPEGImages`, and not `cat_images`."""
    words = words_of(name)
    return bool(words) and HOLDERS.issuperset(words)


def any_classes(names: Sequence[str]) -> bool:
    """Whether names of several folders say nothing of classes: `images_part_1` and `images_part_2`."""
    words = [tuple(words_of(name)) for name in names]
    return all(not HOLDERS.isdisjoint(part) for part in words) or (len(words) > 1 and len({*words}) == 1)


def is_sidecar(name: str) -> bool:
    """Whether a word of a name is among `SIDECARS`: `Annotations`, `seg_labels`."""
    return not SIDECARS.isdisjoint(words_of(name))


def is_unlabelled(name: str) -> bool:
    """Whether a word of a name is among `UNLABELLED`: `seg_pred`."""
    return not UNLABELLED.isdisjoint(words_of(name))


def split_words(names: Iterable[str]) -> dict[str, str]:
    """The split of each of these names that means one without other words: `{"Training": "train"}`.

    `eval` is the test split, as in other tools, unless another of the names means test: then it is validation.
    """
    plain = {name: word for name in names for frame, word in _readings(name) if frame == PLAIN and word in SPLIT_WORDS}
    return _settled(plain)


def split_series(names: Sequence[str]) -> list[dict[str, str]]:
    """The groups of names that mean splits, each as name to split: those without other words, and every series."""
    written = {"".join(words_of(name)) for name in names}
    framed: dict[Frame, dict[str, str]] = defaultdict(dict)
    for name in names:
        opposites = {negation + "".join(words_of(name)) for negation in NEGATIONS}
        for frame, word in _readings(name) if written.isdisjoint(opposites) else ():
            framed[frame][name] = word
    groups = []
    for frame, word_of in framed.items():
        split_of = _settled({name: word for name, word in word_of.items() if word in SPLIT_WORDS})
        if split_of and (frame == PLAIN or len({SPLIT_WORDS.get(word) for word in word_of.values()}) > 1):
            groups.append(split_of)
    return groups


def _readings(name: str) -> list[tuple[Frame, str]]:
    """The ways to read a name as that of a split, or of unlabelled images: what is around the word, and the word."""
    words = words_of(name)
    if not {*NEGATIONS}.isdisjoint(words):
        return []
    places = [place for place, word in enumerate(words) if word in SPLIT_WORDS or word in UNLABELLED]
    means = {SPLIT_WORDS.get(words[place], "") for place in places}
    if not places:
        return _written_together("".join(words))
    if len(means) > 1 and means != {TRAIN, VALIDATION}:
        return []
    word = words[places[0]] if len(means) == 1 else "trainval"
    before, behind = ([w for w in part if w not in NEUTRAL] for part in (words[: places[0]], words[places[0] + 1 :]))
    return [((tuple(before), tuple(w for w in behind if w not in SPLIT_WORDS)), word)]


def _written_together(name: str) -> list[tuple[Frame, str]]:
    """`segtrain` as seg around train; only a series is believed."""
    before = [(name.removesuffix(word), word) for word in SPLIT_WORDS if name.endswith(word)]
    behind = [(name.removeprefix(word), word) for word in SPLIT_WORDS if name.startswith(word)]
    found: list[tuple[Frame, str]] = [(((rest,), ()), word) for rest, word in before if rest not in ("", *NEGATIONS)]
    return found + [(((), (rest,)), word) for rest, word in behind if rest]


def _settled(word_of: Mapping[str, str]) -> dict[str, str]:
    """Name to split, with what words of `ELSE` mean beside the others."""
    sure = {SPLIT_WORDS[word] for word in word_of.values() if word not in ELSE}
    meant = {n: ELSE[w] if w in ELSE and SPLIT_WORDS[w] in sure else SPLIT_WORDS[w] for n, w in word_of.items()}
    return {name: split for name, split in meant.items() if split}


# ---- the option -----------------------------------------------------------------------------------------------------

NONE = "none"
"""`split_names` that says: no folder is a split."""
SplitNames = Mapping[str, Sequence[str]] | str | None
"""Split to the folders, or words of a table, that are it; `none`; or None: names and contents decide."""


def checked_split_names(given: Any) -> SplitNames:
    """The option as it is kept: split to a list of names, `NONE` or None.

    Args:
        given: `train=seg_train,test=seg_test`, a split repeated where several folders are it; `none`; or a mapping of
            splits to a name or to several.

    Raises:
        DataError: another form, an unknown split, a name for two splits.
    """
    if given is None or given == NONE:
        return None if given is None else NONE
    pairs = re.split(r",(?=[^,=]*=)", given) if isinstance(given, str) else []
    named = [tuple(pair.split("=", 1)) for pair in pairs if "=" in pair]
    if isinstance(given, Mapping):
        named = [(split, n) for split, names in given.items() for n in ([names] if isinstance(names, str) else names)]
    found: dict[str, list[str]] = defaultdict(list)
    for split, name in named:
        found[_split_of(split.strip())].append(name.strip().rstrip("/"))
    folders = [name for names in found.values() for name in names]
    if not folders or len(named) < len(pairs) or not all(folders) or len({*folders}) < len(folders):
        raise DataError(f"--split-names {given}: not of the form SPLIT=FOLDER, each folder once.", hint=_FORM)
    return dict(found)


_FORM = "Such as --split-names train=seg_train,test=seg_test, or --split-names none where all folders are classes."


def _split_of(word: str) -> str:
    known = SPLIT_WORDS.get(word.lower())
    if known is None:
        raise DataError(
            f'--split-names: there is no split "{word}".',
            hint=f"Splits are {TRAIN}, {VALIDATION} and {TEST}; {nearest(word, SPLIT_WORDS) or _FORM}",
        )
    return known


def option_text(names: Mapping[str, Sequence[str]]) -> str:
    """What to type behind `--split-names`."""
    words = ",".join(f"{split}={name}" for split in (TRAIN, VALIDATION, TEST) for name in names.get(split, ()))
    return shlex.quote(words.encode("utf-8", "backslashreplace").decode())


# ---- validation -----------------------------------------------------------------------------------------------------


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the positions 0 to `count - 1`, ascending, from the first to the last.

    A split is sorted by class, so such a sample has every class in about its proportion.
    """
    return [int(position) for position in np.linspace(0, count - 1, min(count, most)).round()]


@dataclass(frozen=True)
class _Unit:
    """Images that must stay on one side."""

    positions: tuple[int, ...]
    sizes: Mapping[int, int]
    """Images of each class."""
    contradicts: bool
    """Whether they are copies of a file that are labelled differently."""


def with_validation(dataset: Dataset, fraction: float, seed: int, units: Mapping[Path, str] | None = None) -> Dataset:
    """Hold out a share of each class's images for validation.

    Args:
        dataset: one with `train` or `all`; if it has `validation` already, it comes back as it is.
        fraction: share of each class's images to hold out, between 0 and 1. Each class gets the nearest whole
            number of images, as far as units allow, but at least one on each side.
        seed: of the random order in which images are held out.
        units: by path, as `units_of` gives them; without it each image stands alone.

    Raises:
        RecipeError: the fraction is not between 0 and 1.
        DataError: there are no training images, or one class only; or a group is too large to be on one side.
        TooFewImages: a class has no two different images, one to train on and one to validate on.
    """
    check_trainable(dataset)
    if VALIDATION in dataset.splits:
        return dataset
    if not 0 < fraction < 1:
        raise RecipeError(f"val_split must be above 0 and below 1, got {fraction}.")
    divided, units = TRAIN if TRAIN in dataset.splits else WHOLE, units or {}
    split = dataset.splits[divided]
    refuse_large_groups(dataset, split, units, fraction, each_class=True)
    # Of each class at least one image is held out, and at least one is left.
    counts = split.counts(len(dataset.classes)).tolist()
    targets = [max(1, min(count - 1, round(fraction * count))) for count in counts]
    held_out = _hold_out(_ordered_units(dataset, split, seed, units), targets)
    _refuse_one_sided_classes(dataset, split, held_out, units)
    train = split.take([i for i in range(len(split)) if i not in held_out])
    others = {name: other for name, other in dataset.splits.items() if name != divided}
    return dataset.with_splits({TRAIN: train, VALIDATION: split.take(sorted(held_out))} | others)


def _ordered_units(dataset: Dataset, split: Split, seed: int, units: Mapping[Path, str]) -> list[_Unit]:
    """The units in a random order: each has a seed of its own, so that adding an image moves few others."""
    inside: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(split.paths):
        inside[units.get(path) or f"name/{dataset.label(path)}"].append(position)
    sizes = {name: Counter(split.labels[inside[name]].tolist()) for name in inside}
    return [
        _Unit(tuple(inside[name]), sizes[name], contradicts=len(sizes[name]) > 1 and not is_group(name))
        for name in sorted(inside, key=lambda name: (derive_seed(seed, f"validation/{name}"), name))
    ]


def _hold_out(units: list[_Unit], targets: list[int]) -> set[int]:
    """Positions for validation.

    Units come in turn as long as they fit; a class that has none by then takes its smallest one. A file with several
    labels is held out only where a class has nothing else, and only while all its classes keep some.
    """
    side = _ValidationSide(units, targets)
    for unit in units:
        if not unit.contradicts and side.fits(unit):
            side.add(unit)
    by_size = sorted(units, key=lambda u: (len(u.sizes), len(u.positions)))  # stable: equals stay in random order
    for label in range(len(targets)):
        small = [u for u in by_size if label in u.sizes and side.leaves_some(u)]
        if not side.counts[label] and small:
            side.add(small[0])
    for unit in by_size:
        if not unit.contradicts and side.leaves_some(unit) and side.comes_closer(unit):
            side.add(unit)
    return side.positions


class _ValidationSide:
    """The validation split while it fills."""

    def __init__(self, units: list[_Unit], targets: list[int]) -> None:
        self.positions: set[int] = set()
        self.targets = targets
        self.counts = [0] * len(targets)
        self.totals = [sum(unit.sizes.get(label, 0) for unit in units) for label in range(len(targets))]

    def add(self, unit: _Unit) -> None:
        self.positions.update(unit.positions)
        for label, size in unit.sizes.items():
            self.counts[label] += size

    def fits(self, unit: _Unit) -> bool:
        return all(self.counts[label] + size <= self.targets[label] for label, size in unit.sizes.items())

    def leaves_some(self, unit: _Unit) -> bool:
        new = unit.positions[0] not in self.positions
        return new and all(self.counts[label] + size < self.totals[label] for label, size in unit.sizes.items())

    def comes_closer(self, unit: _Unit) -> bool:
        missing = {label: self.targets[label] - self.counts[label] for label in unit.sizes}
        after = sum(abs(missing[label] - size) for label, size in unit.sizes.items())
        return after < sum(map(abs, missing.values()))


def _refuse_one_sided_classes(dataset: Dataset, split: Split, held_out: set[int], units: Mapping[Path, str]) -> None:
    counts = named_counts(dataset, split)
    validation = Counter(split.labels[list(held_out)].tolist())
    for label, name in enumerate(dataset.classes):
        if not 0 < validation[label] < counts[name]:
            own = {units.get(split.paths[i], "") for i in np.flatnonzero(split.labels == label)}
            if counts[name] > 1 and any(map(is_group, own)):
                raise not_on_both_sides(dataset, name, own)
            copies = "Its pictures are copies of each other, or of another class's: copies count as one."
            notes = (*[copies] * (counts[name] > 1), *dataset.warnings)
            raise TooFewImages(dataset.name, name, 2, "one to learn from and one to check with", counts, notes)


# ---- folds of cross-validation --------------------------------------------------------------------------------------


Labels = npt.NDArray[np.int64]
NEVER = -1
"""The fold of an image that is never held out."""


def stratified_folds(labels: Labels, units: Sequence[str], folds: int, seed: int) -> Labels:
    """Deal the images of each class to the folds, whole units at a time.

    Larger units come first, in a random order. Each goes to the fold with the least of its classes, which keeps small
    the sum over folds and classes of (images of the class in the fold)² / (images of the class). So units of one image,
    as all are where no groups are known, go to the folds in turn, class by class.

    Args:
        labels: (N,) int64.
        units: N keys; images of one go to one fold: a group's (`is_group`), or copies, which count as the first alone.
        folds: their number, 2 or more.
        seed: of the random order.

    Returns:
        (N,) int64 from 0 to `folds` - 1, or `NEVER`: of a unit whose classes all have fewer units than folds; and of
        one without which a class would be missing from training.
    """
    sizes = _sizes_of_units(labels, units)
    have = Counter(label for size in sizes.values() for label in size)
    totals = Counter(label for size in sizes.values() for label in size.elements())

    def order(unit: str) -> tuple[int, int, int, str]:
        twice_as_large = sizes[unit].total().bit_length()  # the rest of the order is left to chance
        return -twice_as_large, min(sizes[unit]), derive_seed(seed, f"fold/{unit}"), unit

    dealt = (unit for unit, size in sizes.items() if any(have[label] >= folds for label in size))
    images, met = ({label: [0] * folds for label in have} for _ in range(2))
    filled, fold_of = [0] * folds, dict.fromkeys(sizes, NEVER)
    for unit in sorted(dealt, key=order):
        size = sorted(sizes[unit].items())
        costs: Iterable[tuple[float, int, int]] = (
            (sum(count * images[label][fold] / totals[label] for label, count in size), filled[fold], fold)
            for fold in range(folds)
            if all(met[label][fold] + 1 < have[label] for label, _ in size)
        )
        if len(size) == 1:  # the same order, sooner
            costs = zip(images[size[0][0]], filled, range(folds), strict=True)
        fold_of[unit] = fold = min(costs, default=(0, 0, NEVER))[2]
        for label, count in size if fold != NEVER else ():
            images[label][fold] += count
            met[label][fold] += 1
            filled[fold] += count
    return np.array([fold_of[unit] for unit in units], dtype=np.int64)


def _sizes_of_units(labels: Labels, units: Sequence[str]) -> dict[str, Counter[int]]:
    """How many images of each class count in a unit."""
    sizes: dict[str, Counter[int]] = {}
    for unit, label in zip(units, labels.tolist(), strict=True):
        if unit not in sizes:
            sizes[unit] = Counter({label: 1})
        elif is_group(unit):
            sizes[unit][label] += 1
    return sizes


def usable_folds(labels: Labels, units: Sequence[str], most: int) -> int:
    """The number of folds that at least half of the classes have units for, from 2 to `most`."""
    different = set(zip(labels.tolist(), units, strict=True))
    sizes = sorted(Counter(label for label, _ in different).values())
    return max(2, min(most, sizes[len(sizes) // 2] if sizes else 2))


def stratified_sample(labels: Labels, contents: Sequence[str], count: int, seed: int) -> Labels:
    """The positions of about `count` random images, each class in proportion and at least once.

    Returns:
        (n,) int64, ascending; all positions where N is at most `count`. Every class is in it, so n may be above
        `count` where classes are many.
    """
    if len(labels) <= count:
        return np.arange(len(labels), dtype=np.int64)
    order = sorted(range(len(labels)), key=lambda i: (derive_seed(seed, f"sample/{contents[i]}"), contents[i], i))
    sizes = np.bincount(labels)
    before = np.zeros_like(sizes)
    rank = np.empty(len(labels))
    for i in order:
        # 0 for the first image of a class, so that no class is left out; then its quantile within the class.
        label = labels[i]
        rank[i] = (before[label] + 0.5) / sizes[label] if before[label] else 0.0
        before[label] += 1
    chosen = np.argsort(rank, kind="stable")[: max(count, np.count_nonzero(sizes))]
    return np.sort(chosen).astype(np.int64)
