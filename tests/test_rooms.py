"""The picture of the rooms is what the imports are."""

import re

import rooms
import structure


def test_the_picture_of_the_rooms_is_as_the_imports_are():
    """`python tools/rooms.py` draws it anew."""
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.rooms_svg()


def test_the_picture_names_every_room():
    assert re.findall(r'class="name"[^>]*>([^<]+)<', rooms.rooms_svg()) == [
        room for layer in structure.room_order() for room in layer
    ]


def test_the_table_of_the_rooms_has_all_of_them_and_names_files_that_are_there():
    """The table of docs/design.md."""
    table = re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", (structure.ROOT / "docs/design.md").read_text("utf-8"), re.M)
    assert sorted(room for room, _ in table) == sorted(room for layer in structure.room_order() for room in layer)
    for room, files in table:
        there = {path.stem for path in (structure.PACKAGE / room).iterdir()}
        assert {name.rstrip("/") for name in re.findall(r"`([\w/]+)`", files)} <= there, room


def test_no_room_imports_a_room_above_it():
    assert ' up"' not in rooms.rooms_svg()
