"""Measure the shape of src/relish: modules, lines, import circles, what a recipe takes reading, calls down to a step.

    python tools/structure.py                     print the figures
    python tools/structure.py --check             the same, and exit 1 where a limit below is broken
    python tools/structure.py --check --frames    with the calls, which two small trainings are run for

A limit may be raised by whoever needs it; the reason goes into the comment beside it.
"""

import argparse
import ast
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "relish"

MODULES_MAX = 165
"""Files other than `__init__.py`: as many as a newcomer can find the way among. It was 125 until whatever the world
calls a dataset was to be read: which folders are splits, Hugging Face's and other programs' tables, names in zips,
kinds of files, values deeper than 8 bits, and worker processes took eight more. Groups, series and their intervals,
accuracy by column, what is unlike the images learned from, and the pace of a budget took another eight; three of these
sixteen have since joined a neighbour. Steps captured on a GPU, features through ONNX Runtime, training images kept on a
GPU or decoded there, and how a batch is fitted to a device took one each; choosing a source model took five. The page
of `relish teach` is a program of its own, with a room of its own: seventeen, among them its part of the split, its
exported page, and the framing that it chooses while nothing else is to be done."""
LINES_MAX = 39_080
"""Of all files together, blank lines and docstrings included. It was 25,000; the first took 4,600, the second 3,300,
a GPU and ONNX Runtime 1,200, choosing a source model 1,200, hubs and their failures 200, `relish teach` 3,800,
notebooks 100."""
LONGEST = 450
"""Lines of one module: about what can be read at one sitting."""
SHORTEST = 60
"""Lines of one module; what is shorter lives in the module that uses it."""
MAY_BE_SHORT = ("relish.__main__", "relish.cli.")
"""Modules, or rooms with a dot at the end, that may be shorter: one file a command, and registries."""
CIRCLES = 0
"""Groups of modules that import one another, inside functions too: none can be understood without the others."""
FRAMES_MAX = 6
"""Functions of ours that `relish fit` goes through to a gradient step: those below the command's own, which only reads
words, down to the one that calls `optimizer.step`, that one counted."""

_BOOK = ("recipe", "train", "optim")
READINGS: dict[str, tuple[tuple[str, ...], int]] = {
    "book": (_BOOK, 1_000),
    "auto": ((*_BOOK, "auto", "probe_stage", "budget", "finetune"), 2_000),
}
"""For each recipe, the modules of `training` that hold its numbers and what is done with them, at most 3 and 8, and how
many lines they may have together: what whoever changes it has to read. What they call changes with other things: with
the device (`gradients`), with resuming (`checkpoint`), with how time is measured (`measure`), with a solver
(`linear_probe`), with how images hang together (`scenes`)."""

Kind = Literal["loading", "late", "typing"]
"""When an import happens: with the module, inside a function that is called, or for the type checker alone."""


class Import(NamedTuple):
    """One module's import of another one of ours."""

    importer: str
    imported: str
    kind: Kind


@dataclass(frozen=True)
class Package:
    """The modules of a package by their dotted names, and what they import of one another."""

    lines: dict[str, int]
    """Lines of every file; a package's `__init__` bears the package's name."""
    inits: frozenset[str]
    imports: tuple[Import, ...]

    @property
    def modules(self) -> dict[str, int]:
        """The lines of every file that is no `__init__`, shortest first."""
        return {name: self.lines[name] for name in sorted(self.lines, key=self._by_length) if name not in self.inits}

    def _by_length(self, name: str) -> tuple[int, str]:
        return self.lines[name], name


# ---- the imports ----------------------------------------------------------------------------------------------------


def read_package(folder: Path = PACKAGE) -> Package:
    """Parse every module below a package's folder; nothing is imported."""
    files = {_name(path, folder): path for path in sorted(folder.rglob("*.py"))}
    inits = frozenset(name for name, path in files.items() if path.stem == "__init__")
    lines, imports = {}, []
    for name, path in files.items():
        source = path.read_text(encoding="utf-8")
        lines[name] = source.count("\n")
        package = name if name in inits else name.rpartition(".")[0]
        for imported, kind in _imports(ast.parse(source), package, "loading"):
            target = _nearest(imported, files)
            if target and target != name:
                imports.append(Import(name, target, kind))
    return Package(lines, inits, tuple(dict.fromkeys(imports)))


def _name(path: Path, folder: Path) -> str:
    parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(node: ast.AST, package: str, kind: Kind) -> Iterator[tuple[str, Kind]]:
    """Every dotted name that is imported below a node, relative ones completed."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, kind) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield from ((f"{base}.{alias.name}", kind) for alias in node.names)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for statement in node.body:
            yield from _imports(statement, package, "typing")
        for statement in node.orelse:
            yield from _imports(statement, package, kind)
    else:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and kind == "loading":
            kind = "late"
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, package, kind)


def _nearest(name: str, known: dict[str, Path]) -> str | None:
    """The module that a name is, or is in: `relish.data.dataset.Split` is in `relish.data.dataset`."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def find_circles(package: Package) -> list[list[str]]:
    """Groups of modules each of which reaches the others by imports, late ones included, those for typing not."""
    after: dict[str, set[str]] = {name: set() for name in package.lines}
    for found in package.imports:
        if found.kind != "typing":
            after[found.importer].add(found.imported)
    reached = {name: _reached(name, after) for name in after}
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in after if a in reached[a]}
    return [list(group) for group in sorted(groups)]


def _reached(start: str, after: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = after[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def room_order() -> list[list[str]]:
    """The rooms, highest layer first, as import-linter's contract in pyproject.toml has them."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        (contract,) = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return [[room.strip().removeprefix("relish.") for room in layer.split("|")] for layer in contract["layers"]]


def room_imports(package: Package) -> Counter[tuple[str, str, Kind]]:
    """How many imports go from one room to another; files beside the rooms are no room."""
    rooms = {name.split(".")[1] for name in package.lines if name.count(".") > 1}
    pairs = ((i.importer.split("."), i.imported.split("."), i.kind) for i in package.imports)
    return Counter(
        (a[1], b[1], kind)
        for a, b, kind in pairs
        if len(a) > 1 and len(b) > 1 and {a[1], b[1]} <= rooms and a[1] != b[1]
    )


# ---- the calls ------------------------------------------------------------------------------------------------------

TRAININGS = {
    "book": ("--recipe", "book", "--epochs", "1"),
    "auto": ("--recipe", "auto", "--epochs", "1"),
}
"""The recipes whose steps are looked at, each as a command runs it on a few drawn images."""
_TINY = ("--source", "timm/test_resnet", "--weights", "none", "--image-size", "32", "--batch-size", "8", "--quiet")
_NO_CALLS = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
"""Frames of Python 3.11 that no function call of ours makes."""


def frames_to_step(folder: Path) -> dict[str, list[str]]:
    """For each recipe of `TRAININGS`, the functions of ours below the command, down to the one that calls `step`.

    A tiny model is trained in `folder` on drawn images; the stack is read at every step of an optimizer, and the
    deepest one is returned. L-BFGS is left out: it solves for the probe's head, which is no training step.
    """
    sys.path.insert(0, str(PACKAGE.parent))  # this checkout's relish, wherever another one is installed
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    import relish.cli.main  # noqa: F401 (the commands register themselves)
    from relish.cli.options import app
    from relish.data.drawn.datasets import draw_hotdogs

    import_module("relish.cli.main")  # gathers the commands
    draw_hotdogs(folder / "images", train=16, test=4)
    deepest: dict[str, list[str]] = {}
    for recipe, words in TRAININGS.items():

        def look(optimizer: torch.optim.Optimizer, *_: object, recipe: str = recipe) -> None:
            if not isinstance(optimizer, torch.optim.LBFGS):
                found = _our_calls(sys._getframe(1))
                deepest[recipe] = max(deepest.get(recipe, []), found, key=len)

        hook = register_optimizer_step_pre_hook(look)
        try:
            app(["fit", str(folder / "images"), *_TINY, *words, "--out", str(folder / recipe)], standalone_mode=False)
        finally:
            hook.remove()
        if recipe not in deepest:
            raise SystemExit(f"recipe {recipe} took no gradient step on {folder / 'images'}.")
    return deepest


def _our_calls(frame: FrameType | None) -> list[str]:
    """The functions of relish on the stack, the outermost first, from the one that the command `fit` calls."""
    found: list[str] = []
    while frame is not None:
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_qualname
        if path.is_relative_to(PACKAGE) and frame.f_code.co_name not in _NO_CALLS:
            found.append(f"{_name(path, PACKAGE).removeprefix('relish.')}.{name}")
        frame = frame.f_back
    return found[: found.index("cli.fit.fit")][::-1]


# ---- figures and limits ---------------------------------------------------------------------------------------------


def broken_limits(package: Package, frames: dict[str, list[str]] | None = None) -> list[str]:
    """A sentence for each limit that is broken, with what breaks it."""
    modules, lines, circles = package.modules, sum(package.lines.values()), find_circles(package)
    broken = []
    if len(modules) > MODULES_MAX:
        broken.append(f"{len(modules)} modules, at most {MODULES_MAX}.")
    if lines > LINES_MAX:
        broken.append(f"{lines:,} lines, at most {LINES_MAX:,}.")
    broken += [f"{name} has {count} lines, at most {LONGEST}." for name, count in modules.items() if count > LONGEST]
    broken += [f"{name} has {count} lines, at least {SHORTEST}." for name, count in too_short(package).items()]
    if len(circles) > CIRCLES:
        broken += [f"these import one another: {', '.join(circle)}." for circle in circles]
    broken += [
        f"recipe {recipe} takes reading {count:,} lines, at most {READINGS[recipe][1]:,}."
        for recipe, count in reading_lengths(package).items()
        if count > READINGS[recipe][1]
    ]
    for recipe, calls in (frames or {}).items():
        if len(calls) > FRAMES_MAX:
            broken.append(f"recipe {recipe} takes {len(calls)} calls to a gradient step, at most {FRAMES_MAX}.")
    return broken


def reading_lengths(package: Package) -> dict[str, int]:
    """Lines of what `READINGS` has for each recipe; modules that are not there have none."""
    lines = {name.rpartition("training.")[2]: count for name, count in package.lines.items() if ".training." in name}
    return {recipe: sum(lines.get(name, 0) for name in names) for recipe, (names, _) in READINGS.items()}


def too_short(package: Package) -> dict[str, int]:
    """The modules below `SHORTEST` that have no leave to be."""
    return {
        name: count
        for name, count in package.modules.items()
        if count < SHORTEST
        and not any(name == short or (short.endswith(".") and name.startswith(short)) for short in MAY_BE_SHORT)
    }


def figures(package: Package, frames: dict[str, list[str]] | None = None) -> str:
    """What was measured, a line each."""
    modules = package.modules
    shortest, longest = next(iter(modules)), list(modules)[-1]
    kinds = Counter(found.kind for found in package.imports)
    circles = find_circles(package)
    said = [
        f"modules       {len(modules)}, and {len(package.inits)} __init__",
        f"lines         {sum(package.lines.values()):,}",
        f"longest       {modules[longest]} ({longest})",
        f"shortest      {modules[shortest]} ({shortest})",
        f"above {LONGEST}     {sum(count > LONGEST for count in modules.values())}",
        f"below {SHORTEST}      {len(too_short(package))}, commands and registries not counted",
        f"imports       {kinds['loading']} with the module, {kinds['late']} late, {kinds['typing']} for typing",
        f"circles       {len(circles)}, late imports counted, those for typing not",
        *(f"  {' '.join(circle)}" for circle in circles),
        *(f"reading       {count:,} lines for {recipe}" for recipe, count in reading_lengths(package).items()),
        *_rooms_in_words(package),
    ]
    for recipe, calls in (frames or {}).items():
        said += [f"{recipe:13} {len(calls)} calls from below the command to the one that calls optimizer.step"]
        said += [f"  {call}" for call in calls]
    return "\n".join(said)


def _rooms_in_words(package: Package) -> Iterator[str]:
    """What each room imports, from the highest down; an import that points upwards is marked."""
    level = {room: place for place, layer in enumerate(room_order()) for room in layer}
    found = room_imports(package)
    for room in sorted({a for a, _, _ in found}, key=lambda room: level.get(room, -1)):
        below = sorted({b for a, b, kind in found if a == room and kind != "typing"}, key=lambda b: level.get(b, -1))
        marked = [b if level.get(b, -1) > level.get(room, -1) else f"{b} (upwards!)" for b in below]
        yield f"{room:13} imports {', '.join(marked)}" if marked else f"{room:13} imports nothing of ours"


def main() -> None:
    """Print the figures; with `--check`, fail where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a limit is broken")
    parser.add_argument("--frames", action="store_true", help="train twice, and count the calls down to a step")
    given = parser.parse_args()
    package, frames = read_package(), None
    if given.frames:
        with tempfile.TemporaryDirectory() as folder:
            frames = frames_to_step(Path(folder))
    print(figures(package, frames))
    broken = broken_limits(package, frames) if given.check else []
    for sentence in broken:
        print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
