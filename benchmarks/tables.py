"""Put the tables of `benchmarks/results/` into the pages of `docs/`, so that no figure is copied by hand.

    python benchmarks/tables.py

Each table stands behind a line `<!-- results: NAME -->`, followed by the line that says what it was measured on. What
has no results file is said to be unmeasured.
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGES = sorted((HERE.parent / "docs").glob("*.md"))
UNMEASURED = "Not measured yet."


def words(name: str) -> str:
    """The table of one results file as Markdown, the machine beneath it."""
    file = HERE / "results" / f"{name}.json"
    if not file.is_file():
        return UNMEASURED
    found = json.loads(file.read_text(encoding="utf-8"))
    head, *rows = ["| " + " | ".join(row) + " |" for row in found["table"]]
    rule = "|" + "---|" * len(found["table"][0])
    count = len(found["rounds"])
    of = found.get("of") or f"{count} round{'s' if count > 1 else ''}"
    beneath = f"`{found['command']}`: {found['processor']}, {found['threads']} threads, PyTorch {found['torch']}, "
    return "\n".join([head, rule, *rows, "", f"{beneath}{of}."])


def filled(page: str) -> str:
    """The page with every table as its results file has it now."""
    return re.sub(
        r"(<!-- results: ([\w-]+) -->\n)(?:\|.*\n)*\n*(?:`python benchmarks/.*\n|Not measured yet\.\n)?\n*",
        lambda found: f"{found[1]}{words(found[2])}\n\n",
        page,
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
