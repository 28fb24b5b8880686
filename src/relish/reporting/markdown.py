"""Words and tables as Markdown, whatever the words are: class names come from strangers' folders."""

import re
from collections.abc import Collection, Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")
_ACTIVE = re.compile(r"[\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|@(?=\w)|^(?=[#+=-])")


def plain(words: object) -> str:
    """Words that Markdown shows as they are, on one line: no link, no HTML, no further column of a table."""
    return _ACTIVE.sub(r"\\\g<0>", _CONTROL.sub(" ", str(words)).strip())


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, right: Collection[int] = ()) -> list[str]:
    """The lines of a table; every cell is taken as it is, see `plain`.

    Args:
        right: positions of the columns that hold numbers and stand to the right.
    """
    rule = ["---:" if place in right else "---" for place in range(len(headings))]
    return [f"| {' | '.join(cells)} |" for cells in (headings, rule, *([plain(cell) for cell in row] for row in rows))]


def fenced(language: str, text: str) -> list[str]:
    """The lines of a block of code, fenced by more backticks than it holds."""
    fence = "`" * max(3, *(len(met) + 1 for met in re.findall("`+", text)), 3)
    return [f"{fence}{language}", *text.splitlines(), fence]
