"""A dataset: the class names, and for each split the paths and labels of its images.

Labels are assigned by class name, never by position: a class that the test split lacks would otherwise shift every
later class by one, and a good model would score like a guess. An image is stored as its path and its label only, so
that a hundred thousand images take a few megabytes.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError, closest, nearest

TRAIN, VALIDATION, TEST, WHOLE = "train", "validation", "test", "all"
"""The names splits go by, whatever their folders are called; `all` is the only split of a dataset that has none."""
CROSS_VALIDATION = "cross-validation"
"""What stands in place of a split's name where every training image was evaluated, by a model that did not see it."""


def split_of(evaluated: str) -> str:
    """The split whose images were evaluated: of cross-validation, those that were trained on."""
    return TRAIN if evaluated == CROSS_VALIDATION else evaluated


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a dataset, in a fixed order: images sorted by class, then by name."""

    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]
    """(N,) int64, each an index into the dataset's `classes`."""

    def __len__(self) -> int:
        return len(self.paths)

    def __add__(self, other: "Split") -> "Split":
        """These images, then those of the other one."""
        return Split(self.paths + other.paths, np.concatenate([self.labels, other.labels]))

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> "Split":
        """The images at these positions, in the order of the positions."""
        where = np.asarray(positions, dtype=np.int64)
        return Split(tuple(self.paths[i] for i in where), self.labels[where])

    def counts(self, classes: int) -> npt.NDArray[np.int64]:
        """(classes,) int64: how many images each class has here."""
        return np.bincount(self.labels, minlength=classes)


NO_IMAGES = Split((), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Dataset:
    """Labelled images and the names of their classes."""

    name: str
    """A short word for folders and titles, such as `hotdog`."""
    source: str
    """What the user gave: a folder, an archive, an address, a table or a registered name."""
    root: Path
    """The folder that image names are relative to."""
    classes: tuple[str, ...]
    """Class names sorted by code point; a label is a position in it."""
    splits: Mapping[str, Split]
    """By the names above. A dataset without splits of its own has the one split `all`."""
    warnings: tuple[str, ...] = field(default=())
    """One sentence each: files skipped, classes missing, names that are suspicious."""
    problem: DataError | None = None
    """Why it cannot be trained on, where it was loaded with `learnable=False`."""
    groups: Mapping[Path, str] = field(default_factory=dict)
    """The known group of an image, such as its patient or scene; an image without one is a group of its own."""
    columns: Mapping[str, Mapping[Path, str]] = field(default_factory=dict)
    """Further columns of a table that have few different values, such as the camera; not those in `groups`."""

    def label(self, path: Path) -> str:
        """The name of an image to show: its path, relative to the root where it lies there."""
        return name_below(path, self.root)

    def with_splits(self, splits: Mapping[str, Split], *warnings: str) -> "Dataset":
        """The same dataset with other splits, and further warnings."""
        return replace(self, splits=dict(splits), warnings=self.warnings + warnings)

    def __len__(self) -> int:
        return sum(len(split) for split in self.splits.values())


# ---- class names ----------------------------------------------------------------------------------------------------


_UNSEEN = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb]"
)
"""Control characters that are no blanks, and signs without a shape: of width zero, of direction, of soft breaks."""
_JOINING = "\u0590-\u10ff\u1200-\u1cff\u2190-\u2bff\ufe0f\ua800-\uabff\U00010800-\U00011fff\U0001f000-\U0001faff"
_JOINER = re.compile(f"(?<=[{_JOINING}])([\u200c\u200d])[\u200c\u200d]*(?=[{_JOINING}])|[\u200c\u200d]+")
"""Joiners and non-joiners; as a group one that changes what is read: in Arabic and Indic scripts, in emoji."""


def class_name(label: str) -> str:
    """The one form of a class name, whichever folder, table, model or call it comes from.

    Unicode's NFC (macOS writes é as two code points, others as one), every blank a plain one and none at the edges,
    without characters that cannot be seen. What is written differently for all to see stays different.
    """
    if label.isascii() and label.isprintable():
        return label.strip()
    plain = "".join(" " if letter.isspace() else letter for letter in _UNSEEN.sub("", label))
    joined = _JOINER.sub(lambda met: met[1] or "", unicodedata.normalize("NFC", plain))
    return unicodedata.normalize("NFC", joined).strip()


def is_utf8(name: str) -> bool:
    """Whether a name can be printed and written: file systems and JSON can have one that holds half a character."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


def spelt(label: str) -> str:
    """A label with accents of their own and what cannot be seen as escapes: `cafe\\u0301`."""
    return "".join(
        letter if letter.isprintable() and not unicodedata.combining(letter) else ascii(letter)[1:-1]
        for letter in label
    )


def plain_name(name: str) -> str:
    """A class name without case, width, hyphens, underscores and repeated blanks, which people write inconsistently."""
    folded = unicodedata.normalize("NFKC", re.sub("[\u200c\u200d\ufe0e\ufe0f]", "", name)).casefold()
    return " ".join(folded.replace("_", " ").replace("-", " ").split())


# ---- numbering the classes, and checking them between the splits ----------------------------------------------------


ByClass = Mapping[str, Sequence[Path]]
"""Label to the paths of its images; an empty list is a class whose folder holds none."""


class TooFewImages(DataError):
    """A class with fewer images than what was asked for needs.

    Args:
        dataset: its name.
        name: the class.
        need: how many it needs, no unit.
        why: what the images are needed for.
        counts: images of each class.
        notes: warnings about files left out, which may be why they are missing.
    """

    def __init__(
        self, dataset: str, name: str, need: int, why: str, counts: Mapping[str, int], notes: Sequence[str] = ()
    ) -> None:
        have = counts[name]
        images = {0: "no pictures", 1: "1 picture"}.get(have, f"{have:,} pictures")
        needs = (
            f"; every class needs at least {need} ({why})"
            if have < need
            else f", but not {need} different ones ({why})"
        )
        found = f'{dataset}: class "{name}" has {images}{needs}.'
        close = nearest(name, [other for other in counts if other != name])
        advice = "Add pictures to it, or remove the class" + (f" ({close})." if close else ".")
        hint = "\n  ".join([f"found: {_counted(counts, name)}", advice, *notes[:3]])
        super().__init__(found, hint=hint)
        self.name, self.need, self.counts = name, need, dict(counts)


def label_by_name(
    images: Mapping[str, ByClass],
    *,
    name: str,
    source: str,
    root: Path,
    warnings: Iterable[str] = (),
    learnable: bool = True,
) -> Dataset:
    """Build the dataset whose classes are those of its training split, sorted by code point.

    Args:
        images: split name to its labels, as they are spelt; labels of one `class_name` are one class. Where there is
            no training split, the classes of all splits count.
        name, source, root: as in `Dataset`.
        warnings: those so far; classes missing from validation or test are added.
        learnable: refuse a dataset that cannot be trained on; otherwise all classes count, and `problem` says why.

    Raises:
        DataError: a label is empty; if `learnable`, another split has a class that training lacks; or, with a training
            split, what `check_trainable` raises.
    """
    images, respelt = _by_class_name(images, source)
    warnings = [*warnings, *respelt]
    known = {c for split, by_class in images.items() for c in by_class if split == TRAIN or TRAIN not in images}
    messages, problem = list(warnings), None
    for split in (VALIDATION, TEST):
        if TRAIN in images and split in images:
            try:
                _refuse_unknown_classes(name, split, images[split], images[TRAIN])
            except DataError as error:
                if learnable:
                    raise
                known, problem = {*known, *images[split]}, error
    classes = tuple(sorted(known))
    for split in (VALIDATION, TEST):
        if split in images:
            messages += _missing_classes(split, images[split], classes)
    order = [split for split in (TRAIN, VALIDATION, TEST, WHOLE) if split in images]
    splits = {split: _numbered(images[split], classes, root) for split in order}
    dataset = Dataset(name, source, root, classes, splits, tuple(messages), problem)
    if TRAIN in splits and learnable:
        check_trainable(dataset)
    return dataset


def check_trainable(dataset: Dataset) -> None:
    """Check that a model can be trained: two classes or more, none of them empty, in `train` or `all`.

    Raises:
        DataError: there is no such split, or one class only.
        TooFewImages: a class has no training images.
    """
    split = dataset.splits.get(TRAIN, dataset.splits.get(WHOLE))
    if split is None:
        have = ", ".join(f'"{s}"' for s in dataset.splits) or "none"
        raise DataError(
            f"{dataset.name}: there are no pictures to learn from (splits found: {have}).",
            hint='Put the class folders to learn from into a folder named "train".',
        )
    counts = named_counts(dataset, split)
    for name, count in counts.items():
        if count == 0:
            raise TooFewImages(dataset.name, name, 1, "to learn from", counts, dataset.warnings)
    if len(counts) < 2:
        only = ", ".join(f'"{c}"' for c in counts) or "none"
        raise DataError(
            f"{dataset.name}: one class only ({only}); telling classes apart takes at least two.",
            hint="Add a folder beside it, with pictures of what it is to be told from.",
        )


def named_counts(dataset: Dataset, split: Split) -> dict[str, int]:
    """How many images each class has in a split, in class order."""
    return dict(zip(dataset.classes, split.counts(len(dataset.classes)).tolist(), strict=True))


def first_few(names: Sequence[str], shown: int = 3) -> str:
    """The first names and the number of the rest: `a, b, c and 9 more`."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def plural(count: int, noun: str) -> str:
    """`1 picture`, `2,000 pictures`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def name_below(path: Path, root: Path) -> str:
    """A path relative to the root where it lies there, otherwise as it is."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _by_class_name(images: Mapping[str, ByClass], source: str) -> tuple[dict[str, dict[str, list[Path]]], list[str]]:
    """The images by class name, and what is to be said of labels that are spelt in another way."""
    spellings: dict[str, set[str]] = {}
    named: dict[str, dict[str, list[Path]]] = {}
    for split, by_label in images.items():
        here = named.setdefault(split, {})
        for label, paths in by_label.items():
            here.setdefault(class_name(label), []).extend(paths)
            spellings.setdefault(class_name(label), set()).add(label)
    if "" in spellings:
        raise DataError(
            f'{source}: the class name "{spelt(min(spellings[""]))}" holds nothing that can be seen.',
            hint="Give the class a name of letters.",
        )
    return named, _respelt({name: sorted(labels) for name, labels in sorted(spellings.items())})


def _respelt(labels: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence on labels that are one class, and one on those that are a class under another spelling."""
    merged = [" and ".join(f'"{spelt(one)}"' for one in each) for each in labels.values() if len(each) > 1]
    changed = [f'"{spelt(one)}" is "{name}"' for name, (one, *more) in labels.items() if not more and one != name]
    verb = "are one class:" if len(merged) == 1 else "are one class each:"
    return [f"{first_few(merged)} {verb} the names differ in nothing that can be seen."] * bool(merged) + [
        f"class names go without what cannot be seen in them: {first_few(changed)}."
    ] * bool(changed)


def _refuse_unknown_classes(name: str, split: str, here: ByClass, training: ByClass) -> None:
    unknown = {c: len(paths) for c, paths in sorted(here.items()) if c not in training and paths}
    if not unknown:
        return
    listed = first_few([f'"{c}" ({plural(count, "picture")})' for c, count in unknown.items()])
    guesses = {c: _likely_class(c, training) for c in unknown}
    advice = [f'"{c}" looks like "{guess}": give it that name.' for c, guess in guesses.items() if guess][:3]
    have = _counted({c: len(paths) for c, paths in sorted(training.items())})
    otherwise = f"Add {'it' if len(unknown) == 1 else 'them'} to training, or move out of {split}."
    raise DataError(
        f"{name}: {split} has what training does not have: {'class' if len(unknown) == 1 else 'classes'} {listed}.",
        hint="\n  ".join([f"training has: {have}", *(advice or [otherwise])]),
    )


def _likely_class(name: str, known: ByClass) -> str:
    """The class that was probably meant: one that differs by case or spaces only, or the closest in spelling."""
    plain = plain_name(name)
    return next((c for c in known if plain_name(c) == plain), "") or closest(name, known)


def _missing_classes(split: str, here: ByClass, classes: Sequence[str]) -> list[str]:
    missing = [f'"{c}"' for c in classes if not here.get(c)]
    if not missing:
        return []
    one = len(missing) == 1
    return [
        f"{split} has no pictures of {first_few(missing)}: how well {'it is' if one else 'they are'} told cannot be "
        "measured there."
    ]


def _numbered(by_class: ByClass, classes: Sequence[str], root: Path) -> Split:
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(by_class.get(name, ()), key=lambda path: name_below(path, root))
        paths += found
        labels += [number] * len(found)
    return Split(tuple(paths), np.asarray(labels, dtype=np.int64))


def _counted(counts: Mapping[str, int], among: str = "", shown: int = 12) -> str:
    """`cat 212, cta 1, dog 198`, with the class `among` always among those shown."""
    names = list(counts)
    kept = names[:shown]
    if among and among not in kept:
        kept = [*kept[:-1], among]
    rest = len(names) - len(kept)
    return ", ".join(f"{c} {counts[c]:,}" for c in kept) + (f" and {rest:,} more" if rest else "")


# ---- findings about a dataset ----------------------------------------------------------------------------------------

Kind = Literal[
    "unreadable", "exact-duplicate", "near-duplicate", "shared-group", "series", "wrong-label", "off-topic", "blank",
    "blurred", "dark", "odd-size", "many-pages", "imbalance", "too-few", "layout",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The gravest first. `error`: figures or model cannot be trusted before it is dealt with; `warning`: look at it;
`note`: good to know."""
Border = Literal["split", "class"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One suspicion about an image, a group of images, or the dataset.

    It is worded as a suspicion: of the labels that such a check flags, human reviewers confirm about half (Northcutt,
    Athalye and Mueller 2021, arXiv:2103.14749, table 2: 51% on average over ten datasets).
    """

    kind: Kind
    severity: Severity
    message: str
    """The suspicion, in a sentence."""
    advice: str
    """What to do about it."""
    paths: tuple[str, ...] = ()
    """The images, as `Dataset.label` names them; none where it is about the dataset."""
    across: tuple[Border, ...] = ()
    """Whether a group of duplicates, or a series, spans splits (the test is then no test) or classes (their labels
    contradict)."""
    given: str | None = None
    """Of `wrong-label`: the class the image lies in."""
    suggested: str | None = None
    """Of `wrong-label`: the class it is taken for."""
    confidence: float | None = None
    """Of `wrong-label`: probability of the suggested class, 0 to 1, by a probe that did not learn from the image."""

    def as_json(self) -> dict[str, Any]:
        """The document of `relish check --json`; fields that this kind has no use for are omitted."""
        document: dict[str, Any] = {
            "kind": self.kind,
            "severity": self.severity,
            "paths": list(self.paths),
            "message": self.message,
            "advice": self.advice,
        }
        if self.across:
            document["across"] = list(self.across)
        if self.kind == "wrong-label":
            document |= {"given": self.given, "suggested": self.suggested, "confidence": self.confidence}
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Finding":
        """The finding of an `as_json` document."""
        return cls(**{**document, "paths": tuple(document["paths"]), "across": tuple(document.get("across", ()))})
