"""A table as plain text, as `compare` and `sweep` print it and keep it.

In:   headings and rows of words.
Out:  lines whose columns stand under one another, wide characters counted as wide.
"""

from collections.abc import Collection, Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def share_words(value: float | None) -> str:
    """A figure between 0 and 1 to three digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Set rows under headings.

    Args:
        headings: one a column.
        rows: as many words each as there are headings; taken literally, brackets too.
        right: positions of the columns that hold numbers and stand to the right.

    Returns:
        The table, without trailing spaces and without a final line end.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if position in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    # Wide enough for any row: a table that wraps or cuts its cells cannot be read back.
    width = sum(max(len(str(row[i])) for row in (headings, *rows)) * 2 + 4 for i in range(len(headings)))
    page = StringIO()
    Console(file=page, width=width, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines() if line.strip())
