"""Names of splits: the words that mean them, and the option that says it instead.

A name is read as words: its letters, without case, cut at blanks, punctuation, digits and camelCase.

    split name     { AFFIX } WORD { AFFIX }; WORD is one of `SPLIT_WORDS`, and no word of another split is beside it
    AFFIX          a number, a word of `NEUTRAL` (`set`, `images`: both say nothing), or any other word
    split folder   a split name without other words: `train`, `01_train`, `TrainingSet`, `val2017`
    series         folders that have the same other words around WORDs of different splits: `seg_train`, `seg_test`,
                   `seg_pred`; written together too: `dogstrain`, `dogstest`. One alone is none: `train_station`

`split_folders.py` holds names against what the folders contain. `valid` beside `invalid` is no name of a split.
"""

import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relish.core.errors import DataError, nearest
from relish.data.dataset import TEST, TRAIN, VALIDATION

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
