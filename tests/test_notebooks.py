"""The notebooks of docs/: the English one runs, its kept outputs are what it gives, and the other has the same code."""

import os
import re
import runpy

import pytest

from tests.test_docs import README, ROOT, anchors

FOLDER = ROOT / "docs" / "notebooks"
MADE = runpy.run_path(str(ROOT / "docs" / "make_notebooks.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TRAINED = re.compile(r"relish\.(fit|compare|sweep|load)\(|clf\.")
"""Cells whose figures depend on the processor's arithmetic."""


def cells(path, kind):
    return [cell for cell in MADE["read"](path).cells if cell.cell_type == kind]


def shown(output, number: str | None = None) -> tuple[str, str]:
    """Kind and text of an output; with `number` in place of each of its numbers, whatever their widths."""
    text = output.get("text") or output.data["text/plain"]
    kind = output.get("name") or " ".join(sorted(output.data))
    return kind, text if number is None else re.sub(r"[\d.]+(e-\d+)?", number, text)


def test_both_languages_have_the_same_cells_with_the_same_code_and_outputs():
    english, indonesian = FOLDER / "book.en.ipynb", FOLDER / "book.id.ipynb"
    assert [english, indonesian] == NOTEBOOKS
    assert cells(english, "code") == cells(indonesian, "code")
    assert len(cells(english, "code")) > 10
    told, said = (cells(path, "markdown") for path in NOTEBOOKS)
    assert [cell.id for cell in told] == [cell.id for cell in said]
    assert not {cell.source for cell in told} & {cell.source for cell in said}
    for one, other in zip(told, said, strict=True):
        assert [len(re.findall(mark, one.source, re.MULTILINE)) for mark in (r"^#+ ", r"\]\(", r"^\|")] == [
            len(re.findall(mark, other.source, re.MULTILINE)) for mark in (r"^#+ ", r"\]\(", r"^\|")
        ], one.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_kept_outputs_are_small_and_say_nothing_of_where_and_how_long(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 400_000
    for cell in cells(path, "code"):
        assert cell.metadata == {}
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            _, plain = shown(output)
            page = re.sub(r"base64,[^\"]*", "", output.get("data", {}).get("text/html", ""))
            assert not re.search(r"/(tmp|home|root|work|Users)\b|\\x1b|\d s\b|pictures/s", plain + page), plain


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_lead_somewhere_and_figures_of_photographs_are_the_readmes(path):
    words = "\n".join(cell.source for cell in cells(path, "markdown"))
    for link in re.findall(r"\]\(([^)\s]+)\)", words):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = (FOLDER / file).resolve()
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
    readme = README.read_text(encoding="utf-8")
    quoted = re.findall(r"(\d+)\s(?:of|dari)\s800", words)
    assert len(quoted) >= 5
    assert [count for count in quoted if f"{count} of 800" not in readme] == []


@pytest.mark.slow
def test_the_notebook_runs_and_gives_what_is_kept(tmp_path, monkeypatch):
    """Where nothing was trained, word for word; elsewhere the same words around other figures."""
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    kept = cells(MADE["ENGLISH"], "code")
    done = MADE["executed"](MADE["read"](MADE["ENGLISH"]), tmp_path)
    run = [cell for cell in done.cells if cell.cell_type == "code"]
    for before, after in zip(kept, run, strict=True):
        trained = TRAINED.search(before.source)
        said, says = ([words_of(output, trained) for output in cell.outputs] for cell in (before, after))
        assert says == said, before.source


def words_of(output, trained) -> list[str]:
    """What is the same on every machine: all of it, or where something was trained its kind and the first words."""
    kind, text = shown(output, "0" if trained else None)
    text = re.sub("─+", "─", text)
    return [kind, *([line.split()[0] for line in text.splitlines() if line.split()] if trained else [text])]
