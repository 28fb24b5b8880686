"""The documents say what is true: their commands run, their tables agree with the code, their links lead somewhere.

How a document is marked, always on the line before a block:

    <!-- needs: photos/ new.jpg -->      once, at the top: what lies in the folder its commands run in (`THINGS`)
    <!-- not run: REASON -->             the block is only read
    <!-- exits 2, printing this -->      the command fails with that code, in exactly these words

Every other `bash`, `console` (lines after `$ `) and `python` block runs, from top to bottom, on a handful of pictures.
A command is run as a user types it, but for the options of `SMALLER` at its end. What one page has cached is found by
the next one, as a user's is.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import torch

from relish.cli import main as app
from relish.data.drawn.datasets import SUBJECTS, draw_classes, draw_hotdogs
from relish.tasks import demo as demo_task
from relish.tasks import sources as sources_task
from relish.training.recipe import RECIPES, Recipe
from tests.conftest import TORTURE, draw
from tests.gluon_files import write_gluon

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCUMENTS = [
    README,
    ROOT / "README.id.md",
    CONTRIBUTING,
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tasks").glob("*.md")),
]
TRANSLATIONS = [document for document in DOCUMENTS if document.name.endswith(".id.md")]

SMALLER = {
    "fit": "--image-size 64 --epochs 1",
    "pretrain": "--image-size 64 --epochs 1",
    "compare": "--image-size 64 --epochs 1",
    "sweep": "--image-size 64 --epochs 1 --points 2",
    "sources": "--image-size 64",
}
"""Put at the end of a command, where they win over the same options before; never behind `--resume`."""

FROZEN = ("checking", "data", "source-models")
"""Pages that are not about recipes: a `fit` that names none takes the quickest there, by `--recipe frozen`."""

LARGEST_IMAGE = 200_000
"""Bytes; a page of documents should open at once."""


@dataclass(frozen=True)
class Block:
    """One fenced block, and the comment on the line before it."""

    language: str
    mark: str
    text: str

    @property
    def commands(self) -> list[str]:
        lines = self.text.splitlines()
        return lines if self.language == "bash" else [line[2:] for line in lines if line.startswith("$ ")]


def blocks(document: Path) -> list[Block]:
    fenced = re.compile(r"(?:<!-- ([^\n]*) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
    return [Block(m[2], m[1] or "", m[3]) for m in fenced.finditer(document.read_text(encoding="utf-8"))]


# ---- the commands run -----------------------------------------------------------------------------------------------


MADE_BY = {"relish fit photos/": "runs", "relish demo": "relish-demo"}
"""What several pages begin with, and the folder it makes: each process of the tests runs it once, and then copies."""
KEPT = Path("..", "kept")
"""Where these folders are kept, seen from the folder of a page."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return draw_hotdogs(tmp_path_factory.mktemp("drawn") / "photos", train=4, test=2)


@pytest.fixture
def page(photos, monkeypatch) -> Iterator[Path]:
    """The folder that a page's commands run in: empty, and at the same place for each page, so that a run may be copied
    into it."""
    folder = photos.parent / "page"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RELISH_HOME", str(photos.parent / "home"))
    yield folder
    shutil.rmtree(folder)


def make_things(folder: Path, photos: Path, needed: list[str]) -> None:
    """Put what a document needs into the folder its commands run in."""
    one = photos / "test" / "hotdog" / "000.jpg"
    for thing in needed:
        match thing:
            case "photos/":
                shutil.copytree(photos, folder / "photos")
            case "photos.zip":
                shutil.make_archive(str(folder / "photos"), "zip", photos)
            case "flowers/":
                for number in range(6):
                    draw(folder / "flowers" / "rose" / f"{number}.png", (200, 40, 60), number)
                    draw(folder / "flowers" / "tulip" / f"{number}.png", (220, 200, 40), 100 + number)
            case "pictures.csv":
                found = sorted(photos.glob("*/*/*.jpg"))
                rows = [f"{path},{path.parent.name},{path.parent.parent.name}" for path in found]
                (folder / "pictures.csv").write_text("\n".join(["path,label,split", *rows]))
            case "cameras.csv":
                found = sorted(photos.glob("test/*/*.jpg"))
                rows = [f"{path},{path.parent.name},{'AB'[i % 2]},{i // 2}" for i, path in enumerate(found)]
                (folder / "cameras.csv").write_text("\n".join(["path,label,camera,group", *rows]))
            case "things/":
                subjects = {name: [SUBJECTS[name]] for name in ("banana", "carrot")}
                draw_classes(folder / "things", {"train": 4, "test": 2}, subjects, "things")
            case "holiday/":
                shutil.copytree(photos / "test" / "hotdog", folder / "holiday")
            case "new.jpg":
                shutil.copy(one, folder / "new.jpg")
            case "notes.txt":
                (folder / "notes.txt").write_text("mustard, buns, napkins\n")
            case "resnet18.pth":
                import timm

                torch.save(timm.create_model("resnet18").state_dict(), folder / "resnet18.pth")
            case "resnet18_v2.params":
                write_gluon(folder / thing, "resnet18_v2", layers=[1, 1, 1, 1], channels=[8, 8, 16, 24, 32])
            case "broken.params":
                whole = write_gluon(folder / thing, "resnet18_v2", 5, layers=[1], channels=[8, 8])
                whole.write_bytes(whole.read_bytes()[:1000])
            case "runs/photos-auto-1":
                assert (folder / "photos").is_dir(), "a run needs photos/ before it"
                assert relish("relish fit photos/") == 0
            case _:
                raise AssertionError(f"no test knows how to make {thing}")


def relish(command: str, recipe: str = "") -> int:
    """Run one command in this process, which spares it a start of its own; its exit code.

    Args:
        recipe: of a `fit` that names none; by default relish's own.
    """
    made = MADE_BY.get(command)
    if made and (KEPT / made).is_dir():
        shutil.copytree(KEPT / made, made)
        return 0
    words = shlex.split(command)[1:]
    if recipe and words[0] == "fit" and "--recipe" not in words:
        words += ["--recipe", recipe]
    if "--resume" not in words:
        words += shlex.split(SMALLER.get(words[0], ""))
    sys.argv = ["relish", *words]
    code = 0
    try:
        app.main()
    except SystemExit as end:
        code = int(end.code or 0)
    if made and code == 0:
        shutil.copytree(made, KEPT / made)
    return code


def in_a_shell(command: str) -> int:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(["env", f"PATH={path}", "bash", "-o", "pipefail", "-c", command]).returncode


# A translation has the same blocks in the same order, which test_translation.py holds it to.
@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [one for one in DOCUMENTS if one not in TRANSLATIONS or TORTURE], ids=lambda path: path.name
)
def test_the_commands_of_this_document_do_what_it_says(document, photos, page, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "stdin", sys.stdin)
    monkeypatch.setattr(sources_task, "LASTING", 0.0)
    monkeypatch.setattr(demo_task, "TRAIN_PICTURES", 4)
    monkeypatch.setattr(demo_task, "TEST_PICTURES", 2)
    monkeypatch.setattr(demo_task, "NUMBERS", {"image_size": 64, "batch_size": 16, "epochs": 1})
    needed = re.search(r"<!-- needs: (.*) -->", document.read_text(encoding="utf-8"))
    make_things(page, photos, needed[1].split() if needed and needed[1] != "nothing" else [])
    names = {"__name__": document.stem}  # a page's Python is one program
    for block in blocks(document):
        if block.mark.startswith("not run"):
            continue
        if block.language == "python":
            exec(compile(block.text, document.name, "exec"), names)  # noqa: S102 - our own documents
        elif block.language in ("bash", "console"):
            for command in block.commands:
                run_one(command, block, capfd, "frozen" if document.stem in FROZEN else "")


def run_one(command: str, block: Block, capfd: pytest.CaptureFixture[str], recipe: str) -> None:
    """Run a command of a document, and compare what it says with what the block promises."""
    capfd.readouterr()
    before, _, written = command.partition(" > ")
    plain, _, given = before.partition(" < ")
    ours = plain.startswith("relish ") and not re.search(r"[|<>&]", plain)
    with open(given if ours and given else os.devnull, encoding="utf-8") as sys.stdin:
        code = relish(plain, recipe) if ours else in_a_shell(command)
    out, err = capfd.readouterr()
    if ours and written:
        Path(written).write_text(out, encoding="utf-8")
    wanted = re.fullmatch(r"exits (\d), printing this", block.mark)
    assert code == (int(wanted[1]) if wanted else 0), f"$ {command}\n{out}{err}"
    if wanted:
        assert err == block.text.partition("\n")[2], command


# ---- the marks are understood ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_is_marked_in_a_way_the_tests_know(document):
    """A mark with a slip in it would silently leave its commands untested, or test what cannot run."""
    for block in blocks(document):
        assert block.language in ("bash", "console", "javascript", "python", "text"), block.text
        assert re.fullmatch(
            r"|not run: .+|exits \d, printing this|printed by docs/make_images.py|needs: .+", block.mark
        ), block.mark
        if block.language in ("bash", "console"):
            assert block.commands, block.text
        if block.mark.startswith("exits"):
            assert len(block.commands) == 1, block.text


# ---- the words agree with the code ----------------------------------------------------------------------------------


def table_after(heading: str) -> list[list[str]]:
    """The rows, without the heads, of the first tables below a heading of fine-tuning.md."""
    section = (ROOT / "docs" / "fine-tuning.md").read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in row] for row in rows if not set(row[0]) <= set("-: ")]


def test_every_field_of_a_recipe_is_documented_with_its_default():
    rows = {row[0]: row[1] for row in table_after("## Every field") if len(row) == 4}
    del rows["field"]
    assert list(rows) == [field.name for field in fields(Recipe) if field.name != "name"]
    for name, told in rows.items():
        assert told == ("the model's" if name == "image_size" else told)
        default = getattr(Recipe(), name)
        if isinstance(default, bool):
            assert told == str(default).lower(), name
        elif default is not None:
            assert type(default)(told) == default, name


def read(told: str, like: object) -> object:
    """A cell of a table as a value like another."""
    return None if told == "none" and like is None else type(like)(told)


def test_what_each_recipe_changes_is_documented():
    (head, *rows) = [row for row in table_after("The other recipes change these:") if len(row) == len(RECIPES)]
    assert {"book", *head[1:]} == set(RECIPES)
    book = RECIPES["book"].as_dict()
    for place, recipe in enumerate(head[1:], 1):
        told = {row[0]: row[place] for row in rows if row[place]}
        changed = {k: v for k, v in RECIPES[recipe].as_dict().items() if v != book[k] and k != "name"}
        assert {key: read(value, changed.get(key, "")) for key, value in told.items()} == changed, recipe


def test_every_command_is_documented():
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    commands = [command.callback.__name__ for command in app.app.registered_commands if command.callback]
    assert len(commands) >= 9
    for name in commands:
        assert f"relish {name}" in text, name


# ---- the links lead somewhere ---------------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_picture_of_this_document_is_there(document):
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_every_file_of_ours_that_this_document_names_is_there(document):
    named = re.findall(r"`((?:src|tests|docs|tools|benchmarks)/[\w./-]*)", document.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_picture_is_shown_and_small():
    shown = {name for document in DOCUMENTS for name in re.findall(r"images/([\w.-]+)", document.read_text("utf-8"))}
    kept = sorted((ROOT / "docs" / "images").iterdir())
    assert {path.name for path in kept} == shown
    assert [path.name for path in kept if path.stat().st_size > LARGEST_IMAGE] == []


def test_the_tables_of_figures_are_those_of_the_results():
    """`python benchmarks/tables.py` puts them there."""
    found = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    pages = [page.read_text(encoding="utf-8") for page in found["PAGES"]]
    assert sum(page.count("<!-- results: ") for page in pages) >= 12
    for page in pages:
        assert found["filled"](page) == page
