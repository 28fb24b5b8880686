"""Draw the rooms of src/relish and who imports whom: docs/images/rooms.svg, made from the imports.

    python tools/rooms.py

The rooms go down a staircase, in the order of import-linter's contract in pyproject.toml. A room's line runs to the
right, and turns down at a dot into each room that it imports; what points upwards would run to the left, in red.
"""

from pathlib import Path

from structure import ROOT, read_package, room_imports, room_order

PICTURE = ROOT / "docs" / "images" / "rooms.svg"

BOX, WIDTH, HEIGHT = 84, 88, 44
"""In pixels: the width of a room's box, and the step of the staircase."""
TALL, MARGIN = 30, 12
DOT = 5.5

STYLE = """\
  svg { background: #ffffff; font: 13px system-ui, sans-serif; }
  .box { fill: #eef3f8; stroke: #5b7083; } .name { fill: #17212b; text-anchor: middle; dominant-baseline: central; }
  .line { stroke: #c3cdd6; stroke-width: 1.5; } .dot { fill: #2f6f9f; stroke: #2f6f9f; stroke-width: 1.5; }
  .late { fill: #ffffff; } .up { fill: #c62828; stroke: #c62828; } .note { fill: #51606e; }
  @media (prefers-color-scheme: dark) {
    svg { background: #14191e; }
    .box { fill: #24303a; stroke: #8399ab; } .name { fill: #edf2f6; }
    .line { stroke: #43505b; } .dot { fill: #7db8e0; stroke: #7db8e0; }
    .late { fill: #14191e; } .up { fill: #ff8a80; stroke: #ff8a80; } .note { fill: #a9b6c1; }
  }"""


def rooms_svg() -> str:
    """The picture, the same text for the same imports."""
    rooms = [room for layer in room_order() for room in layer]
    place = {room: number for number, room in enumerate(rooms)}
    found = room_imports(read_package())
    pairs = sorted(
        {(a, b) for a, b, kind in found if kind != "typing"}, key=lambda pair: (place[pair[0]], place[pair[1]])
    )
    lines = [line for room in rooms for line in _lines(room, pairs, place)]
    dots = [_dot(place[a], place[b], late=not found[a, b, "loading"]) for a, b in pairs]
    boxes = [_box(room, number) for room, number in place.items()]
    width, height = len(rooms) * WIDTH + 2 * MARGIN, len(rooms) * HEIGHT + 2 * MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            "<title>The rooms of relish: each imports those below it that its line has a dot at</title>",
            f"<style>\n{STYLE}\n</style>",
            *lines,
            *dots,
            *boxes,
            *_notes(height),
            "</svg>\n",
        ]
    )


def _middle(number: int) -> tuple[float, float]:
    """The middle of the box of the room with this number."""
    return MARGIN + number * WIDTH + WIDTH / 2, MARGIN + number * HEIGHT + HEIGHT / 2


def _lines(room: str, pairs: list[tuple[str, str]], place: dict[str, int]) -> list[str]:
    """A room's line to all that it imports, and the one down to it from the highest room that imports it."""
    (x, y), drawn = _middle(place[room]), []
    imported = [_middle(place[b])[0] for a, b in pairs if a == room]
    importers = [_middle(place[a])[1] for a, b in pairs if b == room]
    if imported:
        drawn.append(_line(min(x, *imported), y, max(x, *imported), y))
    if importers:
        drawn.append(_line(x, min(y, *importers), x, max(y, *importers)))
    return drawn


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="line" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _dot(importer: int, imported: int, late: bool) -> str:
    x, y = _middle(imported)[0], _middle(importer)[1]
    kind = "dot" + " late" * late + " up" * (imported < importer)
    return f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{DOT}"/>'


def _box(room: str, number: int) -> str:
    x, y = _middle(number)
    corner = f'x="{x - BOX / 2:g}" y="{y - TALL / 2:g}" width="{BOX}" height="{TALL}" rx="5"'
    return f'<rect class="box" {corner}/><text class="name" x="{x:g}" y="{y:g}">{room}</text>'


def _notes(height: float) -> list[str]:
    """What the dots mean, in the empty corner at the lower left."""
    words = ("imports the room below it", "imports it inside functions only")
    told = []
    for number, (kind, word) in enumerate(zip(("dot", "dot late"), words, strict=True)):
        y = height - MARGIN - HEIGHT / 2 - (1 - number) * 24
        told.append(f'<circle class="{kind}" cx="{MARGIN + 10}" cy="{y:g}" r="{DOT}"/>')
        told.append(f'<text class="note" x="{MARGIN + 24}" y="{y:g}" dominant-baseline="central">{word}</text>')
    return told


def write(path: Path = PICTURE) -> None:
    """Draw the picture anew."""
    path.write_text(rooms_svg(), encoding="utf-8")


if __name__ == "__main__":
    write()
