"""Execute `docs/notebooks/book.en.ipynb`, and keep its code and its outputs in every language.

    OMP_NUM_THREADS=1 python docs/make_notebooks.py

Words are edited in each notebook, with any editor of notebooks; code in the English one alone.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "notebooks"
ENGLISH = FOLDER / "book.en.ipynb"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook with what its cells give when they run in `folder`, and nothing of when or where.

    Raises:
        CellExecutionError: a cell failed.
    """
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources, record_timing=False)
    done = client.execute()
    for number, cell in enumerate((cell for cell in done.cells if cell.cell_type == "code"), 1):
        cell.execution_count, cell.metadata = number, {}
        cell.outputs = [output for output in cell.outputs if output.output_type != "display_data" or _shown(output)]
        for output in cell.outputs:
            if output.get("execution_count"):
                output.execution_count = number
            if {"image/jpeg", "image/png"} <= set(output.get("data", {})):
                del output.data["image/png"]  # Pillow offers both, and JPEG is a fifth of it
    done.metadata = METADATA
    return done


def _shown(output: Any) -> bool:
    """Whether an output shows something: the place of a bar is empty once it is gone."""
    return any(output.data.values())


def translated(notebook: nbformat.NotebookNode, words: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with another language's words.

    Raises:
        SystemExit: they are not cell for cell the same kinds.
    """
    if [cell.cell_type for cell in notebook.cells] != [cell.cell_type for cell in words.cells]:
        sys.exit("The notebooks have other cells: translate what is new first.")
    cells = [
        mine if mine.cell_type == "code" else theirs for mine, theirs in zip(notebook.cells, words.cells, strict=True)
    ]
    return nbformat.from_dict({**notebook, "cells": cells})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = executed(read(ENGLISH), Path(folder))
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(done if path == ENGLISH else translated(done, read(path)), path)


if __name__ == "__main__":
    main()
