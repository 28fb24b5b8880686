"""Files are written whole or not at all, and never in the place of something that is no file."""

import os

import pytest

from relish.core.errors import WriteFailed
from relish.core.io import atomic_path, write_text


def test_an_error_leaves_the_former_file_and_nothing_beside_it(tmp_path):
    (tmp_path / "a.txt").write_text("former")

    def break_off():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "former"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path):
    """With root's rights `--out /dev/null` would otherwise take the device away from everybody."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WriteFailed, match=r"pipe: cannot write \(it is a device or a pipe\)"):
        write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(WriteFailed, match=r"page\.html: cannot write"):
        write_text(tmp_path / "page.html", "text")
