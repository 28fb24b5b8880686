"""The images of a dataset in one sequence, and findings about single images, class sizes and class folders."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError
from relish.data.dataset import (
    TEST,
    TRAIN,
    VALIDATION,
    WHOLE,
    Dataset,
    Finding,
    Kind,
    Severity,
    Split,
    check_trainable,
    first_few,
    plain_name,
    plural,
)
from relish.data.depth import NARROW
from relish.data.near_copies import BLANK_CONTRAST
from relish.data.split_names import split_words
from relish.data.survey import Facts, Survey

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The N images of all splits that can be opened, sorted by split, class and name."""

    dataset: Dataset
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    """As `Dataset.label` gives them."""
    labels: Positions
    """(N,) int64, positions in the dataset's classes."""
    splits: Positions
    """(N,) int64, positions in `split_names`."""
    split_names: tuple[str, ...]
    sha256: tuple[str, ...]
    """Of each file."""
    facts: Facts
    """(N,), recorded by the survey."""
    narrow: Bools | None = None
    """(N,) bool: deeper than 8 bits, and its values span little of what is black to white; None: no image is."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """The dataset's class names."""
        return self.dataset.classes

    def as_split(self) -> Split:
        """All of them as one split."""
        return Split(self.paths, self.labels)

    def named(self, positions: Sequence[int] | Positions) -> tuple[str, ...]:
        """The names of some images."""
        return tuple(self.names[i] for i in positions)


def image_set(surveyed: Survey) -> ImageSet:
    """Every image of a survey, once for each split that it is in."""
    dataset = surveyed.dataset
    splits = list(dataset.splits.items())
    paths = tuple(path for _, split in splits for path in split.paths)
    empty = np.zeros(0, dtype=np.int64)
    return ImageSet(
        dataset=dataset,
        paths=paths,
        names=tuple(map(dataset.label, paths)),
        labels=np.concatenate([empty, *(split.labels for _, split in splits)]),
        splits=np.concatenate([empty, *(np.full(len(s), i, dtype=np.int64) for i, (_, s) in enumerate(splits))]),
        split_names=tuple(name for name, _ in splits),
        sha256=tuple(surveyed.sha256[path] for path in paths),
        facts=surveyed.facts_of(paths),
        narrow=_narrow(surveyed, paths),
    )


def _narrow(surveyed: Survey, paths: Sequence[Path]) -> Bools | None:
    scale = surveyed.value_range
    if scale is None:
        return None
    used = (surveyed.used.get(path) for path in paths)
    return np.array([u is not None and 0 < u.high - u.low <= NARROW * (scale.high - scale.low) for u in used])


def unreadable(surveyed: Survey) -> list[Finding]:
    """One finding for each file that cannot be opened."""
    return [
        Finding(
            kind="unreadable",
            severity="warning",
            message=f"Cannot be opened: {reason}.",
            advice="It is left out of everything. Get the file again, or take it away.",
            paths=(name,),
        )
        for name, reason in surveyed.unreadable
    ]


# ---- blank, dark, blurred and odd images, classes with few of them ---------------------------------------------------
# Measured against the dataset itself: where many images are dark, as scans are, that is no fault.


DARK_BRIGHTNESS = 20.0
"""Mean grey level, of 255, up to which an image is dark."""
BLURRED_DETAIL = 0.01
"""Variance of the Laplacian over the variance of the grey levels, up to which an image is blurred."""
TINY = 48
"""Pixels of the shorter side below which an image has little detail; networks usually see 224."""
STRETCHED = 3.0
"""Longer over shorter side from which a square crop shows little of an image, or a squeezed one distorts it."""
RARE = 0.05
"""Fraction of the images up to which a property is odd; where more have it, it is usual in this dataset."""
_GREY = (b"1", b"L", b"LA", b"La", b"I", b"F", b"I;16", b"I;16B", b"I;16L")
UNEVEN, VERY_UNEVEN = 3.0, 10.0
"""Images of the largest class over those of the smallest, from which there is a note, and a warning."""
FEW = 20
"""Training images of a class below which it can hardly be learned."""
FEW_TO_EVALUATE = 100
"""Images of a split below which a 95% interval is more than 12 points wide at an accuracy of 0.9."""


def hard_to_see(images: ImageSet) -> list[Finding]:
    """Findings of the kinds `blank`, `dark` and `blurred`; an image is in the first that fits.

    A deep image with little to see may only be badly scaled: then nobody is told to take it out.
    """
    contrast, brightness = images.facts["contrast"], images.facts["brightness"]
    blank = contrast <= BLANK_CONTRAST
    narrow = blank & images.narrow if images.narrow is not None else np.zeros(len(images), dtype=np.bool_)
    blank &= ~narrow
    dark = (brightness <= DARK_BRIGHTNESS) & ~blank & ~narrow
    detail = images.facts["sharpness"] / np.maximum(contrast.astype(np.float64) ** 2, 1.0)
    blurred = (detail <= BLURRED_DETAIL) & ~blank & ~narrow & ~dark
    rare = max(1, RARE * len(images))
    return [
        *_found(images, blank, contrast, "blank", "seem blank or nearly so: one colour, hardly anything to see",
                "Nothing can be learned from a blank picture: look at the file, and take it out.",
                most=len(images), severity="warning"),
        *_found(images, narrow, contrast, "dark",
                "are deeper than 8 bits, and span so little of what is black to white that hardly anything can be seen",
                "If another program shows more, the scale is not theirs: give it, as --value-range 0..4095.",
                most=len(images), severity="warning"),
        *_found(images, dark, brightness, "dark", "seem very dark",
                "Look whether their class can still be seen; if not, brighten them or take them out.", most=rare),
        *_found(images, blurred, detail, "blurred", "seem blurred, or enlarged from much smaller ones",
                "Look whether their class can still be seen; if you expect such pictures in use, keep them.",
                most=rare),
    ]  # fmt: skip


def odd_shapes(images: ImageSet) -> list[Finding]:
    """`odd-size` findings, at most one each for tiny images, long ones, grey among coloured and coloured among grey."""
    width, height = images.facts["width"], images.facts["height"]
    shorter = np.minimum(width, height).astype(np.float64)
    ratio = np.maximum(width, height) / np.maximum(shorter, 1)
    grey = np.isin(images.facts["mode"], _GREY)
    colour = "If one class has most of them, a model may learn the colour instead of the class."
    properties = [
        (shorter < TINY, shorter, f"are smaller than {TINY} pixels on a side",
         "Their details are gone: take them from a larger original if there is one."),
        (ratio >= STRETCHED, -ratio, f"are {STRETCHED:.0f} times as long as wide, or longer",
         "Crop them to what they show: squeezed into a square, it can hardly be told."),
        (grey, shorter, "are grey, the others in colour", colour),
        (~grey, shorter, "are in colour, the others grey", colour),
    ]  # fmt: skip
    most = min(max(1, RARE * len(images)), len(images) - 1)
    return [
        finding
        for odd, oddest_first, words, advice in properties
        for finding in _found(images, odd, oddest_first, "odd-size", words, advice, most=most)
    ]


def many_pages(images: ImageSet) -> list[Finding]:
    """A finding of the files of which only the first page or frame is read, however usual they are here."""
    more = images.facts["more"]
    words = "are the first of several pages or frames of a file; the others are not read"
    advice = "If what you want is on another one, or on each, save each as a picture of its own."
    return _found(images, more, images.facts["contrast"], "many-pages", words, advice, most=len(images))


def _found(
    images: ImageSet,
    odd: Bools,
    worst_first: npt.NDArray[np.floating],
    kind: Kind,
    words: str,
    advice: str,
    *,
    most: float,
    severity: Severity = "note",
) -> list[Finding]:
    """One finding of the odd images, worst first; none where there are none, or more than `most`.

    Args:
        words: a verb in the plural, `are` or `seem`, and what follows it.
    """
    positions = np.flatnonzero(odd)
    if not 0 < len(positions) <= most:
        return []
    positions = positions[np.argsort(worst_first[positions], kind="stable")]
    verb, _, rest = words.partition(" ")
    one = {"are": "1 picture is", "seem": "1 picture seems"}[verb]
    subject = one if len(positions) == 1 else f"{len(positions):,} pictures {verb}"
    message, paths = f"{subject} {rest}.", images.named(positions)
    return [Finding(kind=kind, severity=severity, message=message, advice=advice, paths=paths)]


def shared_groups(images: ImageSet) -> list[Finding]:
    """A finding for each split to score on that holds images of known groups which an earlier split holds too."""
    groups = [images.dataset.groups.get(path, "") for path in images.paths]
    split_of = [images.split_names[split] for split in images.splits]
    order, findings = (TRAIN, VALIDATION, TEST), list[Finding]()
    held = {name: {g for g, split in zip(groups, split_of, strict=True) if g and split == name} for name in order}
    for place, name in enumerate(order):
        others = [other for other in order[:place] if held[other] & held[name]]
        met = sorted({group for other in others for group in held[other] & held[name]})
        shared = [i for i, group in enumerate(groups) if split_of[i] == name and group in met]
        if shared:
            subject = f"{plural(len(shared), f'{name} picture')} {'is' if len(shared) == 1 else 'are'}"
            have = f"{' and '.join(others)} {'has' if len(others) == 1 else 'have'}"
            findings.append(
                Finding(
                    kind="shared-group",
                    severity="error",
                    message=f"{subject} of {plural(len(met), 'group')} that {have} too ({first_few(met)}).",
                    advice="What was learned of a group is no measure of how others fare: keep it in one split, or say "
                    "--group-by none where pictures of a group are no more alike than others.",
                    paths=images.named(shared),
                    across=("split",),
                )
            )
    return findings


def balance(images: ImageSet) -> list[Finding]:
    """Classes much larger than others, classes with few training images, splits with few images to evaluate on."""
    trained = [name for name in (TRAIN, WHOLE) if name in images.split_names]
    findings = []
    for name in trained[:1]:
        counts = _counts(images, name)
        findings += [*_uneven(images.classes, counts), *_few(images.classes, counts)]
    for name in (VALIDATION, TEST):
        count = int(_counts(images, name).sum())
        if 0 < count < FEW_TO_EVALUATE:
            counted = f"{count} {name} picture{'s' * (count != 1)}"
            message = f"{counted}: an accuracy measured on so few is uncertain by many points."
            advice = "Mind the interval beside the figure; more pictures make it narrower."
            findings.append(Finding(kind="too-few", severity="note", message=message, advice=advice))
    return findings


def _counts(images: ImageSet, split: str) -> npt.NDArray[np.int64]:
    """(K,) images of each class in a split."""
    here = [i for i, name in enumerate(images.split_names) if name == split]
    return np.bincount(images.labels[np.isin(images.splits, here)], minlength=len(images.classes))


def _uneven(classes: tuple[str, ...], counts: npt.NDArray[np.int64]) -> list[Finding]:
    if len(counts) < 2 or counts.min() == 0 or counts.max() < UNEVEN * counts.min():
        return []
    most, least = int(counts.argmax()), int(counts.argmin())
    return [
        Finding(
            kind="imbalance",
            severity="warning" if counts.max() >= VERY_UNEVEN * counts.min() else "note",
            message=f'Class "{classes[most]}" has {counts[most]:,} pictures to learn from, '
            f'"{classes[least]}" has {counts[least]:,}.',
            advice="Read the figures class by class: saying the large class always would be right often. "
            "More pictures of the small ones help most.",
        )
    ]


def _few(classes: tuple[str, ...], counts: npt.NDArray[np.int64]) -> list[Finding]:
    few = [int(i) for i in np.argsort(counts, kind="stable") if counts[i] < FEW]
    if not few:
        return []
    listed = first_few([f'"{classes[i]}" ({counts[i]:,})' for i in few])
    return [
        Finding(
            kind="too-few",
            severity="warning",
            message=f"Fewer than {FEW} pictures to learn from: {listed}.",
            advice="Add pictures, of as many different things and places as the model will meet.",
        )
    ]


# ---- class folders ---------------------------------------------------------------------------------------------------


_HOLDERS = frozenset(
    {"image", "images", "img", "imgs", "picture", "pictures", "photos", "pics", "jpg", "jpeg", "jpegs", "png", "pngs"}
    | {"data", "dataset", "datasets", "label", "labels", "annotations", "class", "classes", "folder", "misc"}
    | {"unsorted", "temp", "tmp", "backup", "download", "downloads", "output", "outputs"}
)
"""Names of folders that hold images of any class."""
_MISSING = frozenset({"nan", "nat", "null", "n/a", "na", "#n/a", "<na>", "undefined"})
"""What programs write for a cell without a value; `none` is not among them, which people call classes."""
_UNNAMED = re.compile(r"(new|untitled|neuer|nouveau|nuova) (folder|ordner|dossier|cartella)( ?\(?\d+\)?)?")
_COPY = re.compile(r"^copy of | copy( ?\(\d+\))?$| ?\(\d+\)$")


def layout(dataset: Dataset) -> list[Finding]:
    """Why `fit` would refuse the dataset, class names that hint at a wrong folder, and the warnings of reading it."""
    return [
        *_refused(dataset),
        *_doubtful_names(
            list(split_words(dataset.classes)),
            "named like a split",
            "If it is a split, let the classes be folders inside it, and only splits lie beside it.",
        ),
        *_doubtful_names(
            [name for name in dataset.classes if _holds_any_class(plain_name(name))],
            "named like a folder of anything",
            "If the classes are folders inside it, give that folder; if not, name it after what it shows.",
        ),
        *_doubtful_names(
            [name for name in dataset.classes if name.casefold() in _MISSING],
            "named like a missing value",
            "If its pictures have no label, leave them out of the table; if it is a class, another name is clearer.",
        ),
        *_variants(dataset.classes),
        *(
            _finding("note", warning, "Look whether that was meant; move what belongs in.")
            for warning in dataset.warnings
        ),
    ]


def _finding(severity: Severity, message: str, advice: str) -> Finding:
    return Finding(kind="layout", severity=severity, message=message, advice=advice)


def _holds_any_class(name: str) -> bool:
    return name in _HOLDERS or _UNNAMED.fullmatch(name) is not None


def _refused(dataset: Dataset) -> list[Finding]:
    """Why `fit` would refuse this dataset, in its own words."""
    problem = dataset.problem
    if problem is None:
        try:
            check_trainable(dataset)
        except DataError as error:
            problem = error
    if problem is None:
        return []
    advice = " ".join(problem.hint.split()) or "Mend it before fit."
    return [_finding("error", problem.message, advice)]


def _doubtful_names(names: Sequence[str], words: str, advice: str) -> list[Finding]:
    if not names:
        return []
    verb = "is" if len(names) == 1 else "are"
    message = f"{_listed(names)} {verb} taken for a class, and {words}."
    return [_finding("warning", message, advice)]


def _variants(classes: Sequence[str]) -> list[Finding]:
    """Classes whose names differ in spelling alone."""
    by_plain_name: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        plain = re.sub(r"^(\d+)\.0+$", r"\1", plain_name(name))  # 1.0 is 1 that was stored beside a missing value
        by_plain_name[_COPY.sub("", plain).strip() or plain].append(name)
    return [
        _finding(
            "warning",
            f"Classes {_listed(names)} differ in spelling alone.",
            "If they mean one class, put their pictures into one folder.",
        )
        for names in by_plain_name.values()
        if len(names) > 1
    ]


def _listed(names: Sequence[str]) -> str:
    return first_few([f'"{name}"' for name in names])
