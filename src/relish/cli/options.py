"""The command line's app, and the arguments and options that several commands share, each written once."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer, confirm

from relish.core.errors import RecipeError
from relish.core.progress import Progress, Screen, Warnings

app = Typer(
    name="relish",
    help="From a folder of labelled pictures and a pretrained model to a classifier you can trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
"""Each module of this room adds its command to it."""

Data = Annotated[
    str, Argument(metavar="DATA", help="Folder, archive, address or table of pictures, or a name such as hotdog.")
]
Run = Annotated[Path, Argument(metavar="RUN", help="Run folder, or a model.safetensors of one.")]
RunOrFile = Annotated[
    Path, Argument(metavar="RUN", help="Run folder, its model.safetensors, or an exported .onnx file.")
]
Source = Annotated[
    str | None,
    Option(
        help="Source model: embedded, lite2, torchvision/NAME, timm/NAME, gluon/NAME or NAME.", show_default="embedded"
    ),
]
Candidates = Annotated[
    str | None,
    Option(
        metavar="NAME,FILE,…",
        help="To try: source models, files of weights, run folders, or NAME=FILE.",
        show_default="a table of good ones",
    ),
]
Yes = Annotated[bool, Option("--yes", help="Fetch weights that are not on this machine without asking.")]
Weights = Annotated[
    str | None, Option(help="Weights file, run folder, or none for random.", show_default="the source's own")
]
Seed = Annotated[int | None, Option(help="Of every random draw.", show_default="0", min=0)]
Workers = Annotated[int | None, Option(help="Processes that read pictures.", show_default="chosen", min=0)]
Device = Annotated[str, Option(help="auto, cpu, cuda or mps.")]
Settings = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change a number of the recipe.")]
Mappings = Annotated[
    list[str] | None,
    Option("--map", metavar="CLASS=SOURCE", help="Start this class from that source class: a name or an index."),
]
Epochs = Annotated[int | None, Option(help="Passes over the training pictures.", show_default="the recipe's")]
BatchSize = Annotated[int | None, Option(help="Pictures in a batch.", show_default="the recipe's")]
LearningRate = Annotated[
    float | None,
    Option(
        "--lr",
        help="Base learning rate; the head learns faster by the recipe's multiplier.",
        show_default="the recipe's",
    ),
]
ImageSize = Annotated[int | None, Option(help="Side of the network's square, in pixels.", show_default="the model's")]
Freeze = Annotated[
    str | None,
    Option(
        help="What does not learn: none, backbone, early, half, or N, the first N groups.", show_default="the recipe's"
    ),
]
HeadInit = Annotated[
    str | None,
    Option(
        "--head-init",
        help="How the head begins: xavier, xavier-zero, zeros, source or library.",
        show_default="the recipe's",
    ),
]
Deterministic = Annotated[
    bool | None,
    Option("--deterministic", help="On a GPU, compute the same bits each time; slower.", show_default=False),
]
ValSplit = Annotated[
    float | None,
    Option(
        help="Share of the training pictures to hold back for scoring.",
        show_default="0.2 where nothing else can be scored, but for 150 pictures or fewer with auto or probe",
    ),
]
Threshold = Annotated[
    str | None,
    Option(
        metavar="AIM",
        help="Two classes: the threshold that reaches precision=0.99, recall=0.95 or f1 on held-out pictures; "
        "precision=0.99:hotdog names the class.",
        show_default="the likelier class",
    ),
]
Unsure = Annotated[
    str | None,
    Option(
        metavar="accuracy=A",
        help="Be unsure of as few pictures as leave the other held-out ones right this often.",
        show_default="never",
    ),
]
Unknown = Annotated[
    str | None,
    Option(
        metavar="SHARE",
        help="Of held-out pictures, at most this share is called unlike anything it learned from; none: no picture is.",
        show_default="0.01",
    ),
]
NewThreshold = Annotated[
    str | None,
    Option(
        "--threshold",
        metavar="AIM",
        help="Two classes: precision=0.99, recall=0.95 or f1, with the class as f1:hotdog; none takes it away.",
        show_default="as it is",
    ),
]
NewUnsure = Annotated[
    str | None,
    Option(
        "--unsure",
        metavar="accuracy=A",
        help="How often the answers that are given should be right; none: never unsure.",
        show_default="as it is",
    ),
]
Sha1 = Annotated[str | None, Option(help="SHA-1 that the archive must have.", show_default=False)]
Sha256 = Annotated[str | None, Option(help="SHA-256 that the archive must have.", show_default=False)]
SplitNames = Annotated[
    str | None,
    Option(
        metavar="SPLIT=FOLDER,…",
        help="Which folders are which split: train=seg_train,test=seg_test; none: every folder is a class.",
        show_default="names and contents say it",
    ),
]
ValueRange = Annotated[
    str | None,
    Option(
        metavar="LOW..HIGH",
        help="Values of black and white in pictures deeper than 8 bits, such as 0..4095.",
        show_default="found in all of them together",
    ),
]
ZipEncoding = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Encoding of names in a zip that are not marked as UTF-8, such as cp932.",
        show_default="UTF-8 where they are that, else a guess",
    ),
]
Root = Annotated[
    Path | None,
    Option(
        help="Of a table: the folder its paths are relative to; paths of another machine are found by their ends.",
        show_default="the table's own",
    ),
]
ColumnNames = Annotated[
    str | None,
    Option(
        metavar="path=COLUMN,…",
        help="Of a table: which column is which, such as path=id,label=breed.",
        show_default="path, label, split and group",
    ),
]
GroupBy = Annotated[
    str | None,
    Option(
        metavar="FOLDER|REGEX",
        help="What stays on one side of every split: pictures of one FOLDER inside a class, or whose names match a "
        "regular expression alike, such as '^[^_]+'; none: nothing but copies.",
        show_default="a table's column group, else pictures that look like one scene",
    ),
]
Strict = Annotated[bool, Option("--strict", help="An unreadable picture is an error.")]
Json = Annotated[bool, Option("--json", help="One JSON document on standard output, and nothing else there.")]
Runs = Annotated[Path, Option(help="Folder where runs are kept and looked for.")]
Quiet = Annotated[bool, Option("--quiet", help="Say nothing on the way but warnings.")]


def voice(quiet: bool = False) -> Progress:
    """What the command says on standard error while it works; warnings it always says."""
    return Warnings() if quiet else Screen()


FIELDS = ("epochs", "batch_size", "learning_rate", "image_size", "freeze", "head", "deterministic")
"""Fields of a recipe that have an option of their own."""


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the Python call that a command stands for: the command's own, which bear the same names.

    Where the command takes `--set`, the options for single fields of the recipe go into `settings` with it.

    Args:
        given: the command's `locals()`, asked for before anything else.

    Raises:
        RecipeError: an option that cannot be read, or a field of the recipe given twice.
    """
    found = {**given, "progress": voice(given.get("quiet", False) or given.get("json", False))}
    if "settings" in given:
        fields = {field: found.pop(field) for field in FIELDS if field in given}
        found["settings"] = recipe_settings(given["settings"], fields)
    if "mapping" in given:
        found["mapping"] = mappings(given["mapping"])
    if "recipes" in given:
        found["recipes"] = names(given["recipes"])
    if "budget" in given:
        found["budget"] = seconds("--budget", given["budget"])
    return {name: value for name, value in found.items() if name not in ("quiet", "json")}


def with_consent(given: dict[str, Any], *, asks: bool = True) -> dict[str, Any]:
    """`candidates` as a list, and `--yes` as `fetch`: without it a terminal is asked, and nothing else.

    Args:
        asks: whether anything may be asked.
    """
    asking = asks and sys.stdin.isatty() and (lambda question: confirm(question, err=True))
    named = None if given["candidates"] is None else names(given["candidates"])
    kept = {name: value for name, value in given.items() if name != "yes"}
    return {**kept, "candidates": named, "fetch": given["yes"] or asking}


def recipe_settings(words: list[str] | None, fields: Mapping[str, object]) -> dict[str, object]:
    """`--set` and the options for single fields as one mapping.

    Raises:
        RecipeError: a word of `--set` without an equals sign, or a field given twice.
    """
    from relish.training.recipe import parse_settings

    settings: dict[str, object] = dict(parse_settings(words or []))
    for name, value in fields.items():
        if value is None:
            continue
        if name in settings:
            raise RecipeError(f"--set {name} and its own option are both given.", hint="Omit one of them.")
        settings[name] = value
    return settings


def seconds(option: str, words: str | None) -> float | None:
    """`90s`, `2m`, `1.5h` or plain seconds as a number.

    Raises:
        RecipeError: none of these.
    """
    if words is None:
        return None
    met = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", words.strip().lower(), re.ASCII)
    if met is None:
        raise RecipeError(f"{option} {words}: not a length of time.", hint="Such as 90s, 2m or 1h.")
    return float(met[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[met[2]]


def names(words: str) -> list[str]:
    """`book,frozen` as a list."""
    return [name.strip() for name in words.split(",") if name.strip()]


def mappings(words: list[str] | None) -> dict[str, str] | None:
    """`--map hotdog=934` words as a mapping.

    Raises:
        RecipeError: a word is not of the form CLASS=SOURCE.
    """
    found: dict[str, str] = {}
    for word in words or []:
        name, equals, row = word.partition("=")
        if not (name and equals and row):
            raise RecipeError(f'--map {word}: not of the form "class=source class", such as hotdog=934.')
        found[name] = row
    return found or None
