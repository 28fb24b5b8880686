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


def test_no_room_imports_a_room_above_it():
    assert ' up"' not in rooms.rooms_svg()
