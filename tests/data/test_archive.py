"""Archives, honest ones and those made to do harm."""

import io
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from threading import Thread
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core.errors import DataError, WriteFailed
from relish.data import archive as archives
from relish.data.archive import extract, short_name

TREE = {
    "pets/cat/1.jpg": b"one" * 1000,
    "pets/cat/2.jpg": b"",
    "pets/dog/a b.png": random.Random(0).randbytes(3000),
    "pets/dog/ünï.png": b"three",
}
TAR_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
SUFFIXES = [".zip", *TAR_MODES]
BESIDE = (".lock", ".count")
"""What stays beside an unpacked folder."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """An archive of these files, of the kind its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in files.items():
                opened.writestr(name, content)
    else:
        mode = next(mode for suffix, mode in TAR_MODES.items() if path.name.endswith(suffix))
        with tarfile.open(path, mode) as opened:
            for name, content in files.items():
                add(opened, name, content)
    return path


def add(
    opened: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname, member.mode = len(content), kind, link, 0o777
    opened.addfile(member, io.BytesIO(content))


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_refused(archive: Path, home: Path, *words: str) -> None:
    """It is named, the reason is given, and nothing has been left anywhere."""
    before = sorted(archive.parent.iterdir())
    with pytest.raises(DataError) as caught:
        extract(archive)
    for word in (str(archive), *words):
        assert word in str(caught.value)
    assert sorted(archive.parent.iterdir()) == sorted({*before, home})
    assert [path for path in home.rglob("*") if path.suffix != ".lock" and path != home / "datasets"] == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_comes_out_is_what_went_in(tmp_path, suffix):
    assert files_in(extract(pack(tmp_path / f"pets{suffix}", TREE))) == TREE


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_an_archive_is_its_bytes_decide_not_its_name(tmp_path, suffix):
    renamed = pack(tmp_path / f"pets{suffix}", TREE).rename(tmp_path / "download")
    assert files_in(extract(renamed)) == TREE


def test_an_archive_is_unpacked_once_and_another_one_never_takes_its_place(tmp_path):
    first = extract(pack(tmp_path / "pets.zip", TREE))
    born = first.stat().st_ino
    assert extract(tmp_path / "pets.zip") == first
    assert first.stat().st_ino == born
    other = extract(pack(tmp_path / "pets.zip", {"cat/1.jpg": b"another"}))
    assert other != first
    assert files_in(first) == TREE


def test_files_that_are_gone_since_are_missed(tmp_path):
    """Without a word, the dataset would be a smaller one."""
    folder = extract(pack(tmp_path / "pets.zip", TREE))
    (folder / "pets/cat/1.jpg").unlink()
    with pytest.raises(DataError, match=f"3 of 4 files are left where it was unpacked, {folder}"):
        extract(tmp_path / "pets.zip")
    shutil.rmtree(folder)
    assert files_in(extract(tmp_path / "pets.zip")) == TREE


def test_empty_class_folders_are_kept_for_the_index_to_complain_of(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.mkdir("pets/cat")
        opened.writestr("./pets//dog/1.jpg", b"x")
    folder = extract(tmp_path / "a.zip")
    assert (folder / "pets" / "cat").is_dir()
    assert (folder / "pets" / "dog" / "1.jpg").is_file()


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_what_macos_adds_is_left_out(tmp_path, suffix):
    junk = {"__MACOSX/pets/cat/._1.jpg": b"x", "pets/.DS_Store": b"x", "pets/cat/.DS_Store": b"x"}
    assert files_in(extract(pack(tmp_path / f"a{suffix}", TREE | junk))) == TREE


def test_files_are_made_with_modes_of_our_own(tmp_path):
    """Neither executable nor set-user-id, whatever the archive says."""
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        member = tarfile.TarInfo("cat/1.jpg")
        member.mode, member.uid = 0o4777, 12345
        opened.addfile(member)
    made = (extract(tmp_path / "a.tar") / "cat" / "1.jpg").stat()
    assert stat.S_IMODE(made.st_mode) & 0o7111 == 0
    assert made.st_uid == os.getuid()


OUTSIDE = ["../evil", "a/../../evil", "a/..", "/srv/evil", "//evil", "C:/evil", "c:evil", "..\\evil"]


@pytest.mark.parametrize(
    ("suffix", "name"),
    [*((suffix, name) for suffix in (".zip", ".tar", ".tgz") for name in OUTSIDE), (".tar", "a\\b.jpg")],
)
def test_a_member_that_could_land_outside_is_refused(tmp_path, home, suffix, name):
    assert_refused(pack(tmp_path / f"a{suffix}", TREE | {name: b"evil"}), home, name)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["cat/" + "x" * 300, "x/" * 800 + "1.jpg"])
def test_a_name_no_file_can_have_is_refused(tmp_path, home, suffix, name):
    assert_refused(pack(tmp_path / f"a{suffix}", {name: b"x"}), home, "no file can have")


def test_an_empty_name_is_refused(tmp_path, home):
    archive = pack(tmp_path / "a.zip", {"x": b"y"})
    content = archive.read_bytes().replace(b"x", b"")
    for length_at in (content.index(b"PK\3\4") + 26, content.index(b"PK\1\2") + 28):
        content = content[:length_at] + b"\0" + content[length_at + 1 :]
    directory, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    place = (end - directory).to_bytes(4, "little") + directory.to_bytes(4, "little")
    archive.write_bytes(content[: end + 12] + place + content[end + 20 :])
    assert_refused(archive, home)


def test_a_name_that_is_not_text_is_refused(tmp_path, home):
    """It could be written, but not shown or saved as JSON."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as opened:
        add(opened, "cat/\udcff.jpg", b"x")
    assert_refused(tmp_path / "a.tar", home, "not UTF-8")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Z", "unusual"),
    ],
)
def test_a_tar_member_that_is_no_file_is_refused(tmp_path, home, kind, word):
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        add(opened, "cat/1.jpg", b"x")
        add(opened, "cat/2.jpg", kind=kind, link="1.jpg")
    assert_refused(tmp_path / "a.tar", home, "cat/2.jpg", word)


@pytest.mark.parametrize(
    ("form", "word"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device"), (stat.S_IFIFO, "pipe")]
)
def test_a_zip_member_that_is_no_file_is_refused(tmp_path, home, form, word):
    member = zipfile.ZipInfo("cat/passwd.jpg")
    member.create_system, member.external_attr = 3, (form | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(member, "/etc/passwd")
    assert_refused(tmp_path / "a.zip", home, "cat/passwd.jpg", word)


def test_an_encrypted_member_is_refused(tmp_path, home):
    archive = pack(tmp_path / "a.zip", {"cat/1.jpg": b"x"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the first of the flags in the central directory
    archive.write_bytes(content)
    assert_refused(archive, home, "cat/1.jpg", "encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize(
    "names", [("a/1.jpg", "a/1.jpg"), ("a/1.jpg", "a/./1.jpg"), ("a", "a/1.jpg"), ("a/1.jpg", "a")], ids=" then ".join
)
def test_two_members_that_collide_are_refused(tmp_path, home, suffix, names):
    archive = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for name in names:
                opened.writestr(name, name)
    else:
        with tarfile.open(archive, "w") as opened:
            for name in names:
                add(opened, name, name.encode())
    assert_refused(archive, home, names[1], "the same name")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_a_bomb_is_refused(tmp_path, home, monkeypatch, suffix):
    monkeypatch.setattr(archives, "SMALL", 10**6)
    archive = pack(tmp_path / f"a{suffix}", {f"cat/{i}.bmp": bytes(10**6) for i in range(5)})
    assert_refused(archive, home, "too much", "cat/")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_too_many_members_are_refused(tmp_path, home, monkeypatch, suffix):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert_refused(pack(tmp_path / f"a{suffix}", TREE), home, "over 3 members")


def test_a_tar_header_is_never_read_at_any_length(tmp_path, home, monkeypatch):
    """tarfile reads an extended header whole; packed well, it could be larger than the memory."""
    monkeypatch.setattr(archives, "LARGEST_READ", 100_000)
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.PAX_FORMAT) as opened:
        member = tarfile.TarInfo("cat/1.jpg")
        member.pax_headers = {"comment": "x" * 200_000}
        opened.addfile(member)
    assert_refused(tmp_path / "a.tgz", home, "header")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_disk_with_too_little_space_is_left_alone(tmp_path, home, monkeypatch, suffix):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(WriteFailed, match="are free there"):
        extract(pack(tmp_path / f"a{suffix}", TREE))
    assert [path for path in (home / "datasets").iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path, home, suffix):
    """A limit on the size of files stands for the disk: writing fails in the middle, as it would there."""
    archive = pack(tmp_path / f"a{suffix}", TREE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(WriteFailed, match="cannot write"):
            extract(archive)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in (home / "datasets").iterdir() if path.suffix != ".lock"] == []
    assert files_in(extract(archive)) == TREE


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.97])
def test_a_truncated_archive_is_refused(tmp_path, home, suffix, share):
    archive = pack(tmp_path / f"a{suffix}", TREE | {"pets/dog/noise.png": random.Random(1).randbytes(20_000)})
    size = len(archive.read_bytes().rstrip(b"\0"))  # losing the padding of a tar file is no loss
    os.truncate(archive, int(size * share))
    assert_refused(archive, home)


def test_a_tar_that_stops_between_two_members_is_refused(tmp_path, home):
    """tarfile alone would take what is there for the whole."""
    archive = pack(tmp_path / "a.tar", {"cat/1.jpg": b"x", "dog/1.jpg": b"x"})
    os.truncate(archive, 2 * tarfile.BLOCKSIZE)
    assert_refused(archive, home, "no end mark")


def test_a_tar_with_a_damaged_header_in_the_middle_is_refused(tmp_path, home):
    archive = pack(tmp_path / "a.tar", {"cat/1.jpg": b"x", "dog/1.jpg": b"x"})
    content = archive.read_bytes().replace(b"dog/1.jpg", b"dog/2.jpg")
    archive.write_bytes(content)
    assert_refused(archive, home, "damaged")


def test_a_picture_whose_checksum_is_wrong_is_refused(tmp_path, home):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("cat/1.jpg", b"a picture")
    archive.write_bytes(archive.read_bytes().replace(b"a picture", b"b picture"))
    assert_refused(archive, home, "cat/1.jpg", "damaged")


def test_a_zip_whose_list_of_members_swallows_one_is_refused(tmp_path, home):
    """zipfile alone would take what is left of the list for the whole of it."""
    archive = pack(tmp_path / "a.zip", {"cat/1.jpg": b"x", "dog/1.jpg": b"y"})
    content = bytearray(archive.read_bytes())
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 4)
    content[first + 32] = content.index(b"PK\5\6") - second  # the length of the first one's comment
    archive.write_bytes(content)
    assert_refused(archive, home, "lists 1 of 2 members")


def test_a_zip_that_leaves_counting_to_zip64_is_taken(tmp_path):
    """What a zip of more than 65,535 members says in the old counter."""
    archive = pack(tmp_path / "a.zip", TREE)
    content = bytearray(archive.read_bytes())
    end = content.index(b"PK\5\6")
    content[end + 8 : end + 12] = b"\xff" * 4
    archive.write_bytes(content)
    assert files_in(extract(archive)) == TREE


@settings(max_examples=60, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".zip", ".tar.gz", ".tar.xz", ".tar.bz2"]))
def test_a_damaged_archive_gives_an_error_or_the_very_same_files(data, suffix):
    """These formats carry checksums, so a changed byte is noticed, or did not matter."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, RELISH_HOME=f"{folder}/home"):
        archive = pack(Path(folder) / f"a{suffix}", TREE)
        content = bytearray(archive.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        archive.write_bytes(content)
        try:
            assert files_in(extract(archive)) == TREE
        except (DataError, WriteFailed):
            assert list((Path(folder) / "home" / "datasets").glob("[!.]*")) == []


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.binary(max_size=20), max_size=4), st.sampled_from([".zip", ".tar"]))
def test_no_name_whatever_writes_outside_the_target(files, suffix):
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, RELISH_HOME=f"{folder}/home"):
        archive = Path(folder) / f"a{suffix}"
        try:
            pack(archive, files)
        except (ValueError, IndexError):  # a name that cannot even be packed
            return
        try:
            target = extract(archive)
        except DataError:
            target = None
        outside = [path for path in Path(folder).rglob("*") if path.is_file() and path.suffix not in BESIDE]
        assert [path for path in outside if target is None or not path.is_relative_to(target)] == [archive]


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", b"\x89PNG\r\n", zlib.compress(b"x"), b"PK\3\4", b"PK"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, home, content):
    (tmp_path / "a.zip").write_bytes(content)
    assert_refused(tmp_path / "a.zip", home, "not a .zip or .tar archive")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_without_files_is_refused(tmp_path, home, suffix):
    assert_refused(pack(tmp_path / f"a{suffix}", {"__MACOSX/x": b""}), home, "holds no files")


def test_an_archive_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.zip: cannot be read"):
        extract(tmp_path / "gone.zip")


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from relish.core.progress import Bar, Progress
from relish.data.archive import extract

class Killing(Progress):
    @contextmanager
    def bar(self, title, total, done=0):
        class Dying(Bar):
            def advance(self, steps=1, words=""):
                os.kill(os.getpid(), signal.SIGKILL)
        yield Dying()

extract(Path(sys.argv[1]), progress=Killing())
"""


def test_a_kill_in_the_middle_leaves_no_dataset_and_the_next_call_cleans_up(tmp_path, home):
    archive = pack(tmp_path / "pets.zip", TREE)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(archive)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(path.suffix == ".tmp" for path in (home / "datasets").iterdir())
    assert not list((home / "datasets").glob("pets*"))
    folder = extract(archive)
    assert files_in(folder) == TREE
    assert [path for path in (home / "datasets").iterdir() if path.suffix not in BESIDE] == [folder]


def test_several_at_once_unpack_once(tmp_path, home):
    archive, got = pack(tmp_path / "pets.zip", TREE), []
    threads = [Thread(target=lambda: got.append(extract(archive))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [files_in(folder) == TREE for folder in got] == [True] * 4
    assert [path for path in (home / "datasets").iterdir() if path.suffix not in BESIDE] == [got[0]]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("hotdog.zip", "hotdog"),
        ("My photos.tar.gz", "My-photos"),
        ("PETS.ZIP", "PETS"),
        ("pets.v2", "pets.v2"),
        ("labels.csv", "labels"),
        ("..", "data"),
        ("日本", "data"),
        (".hidden", "hidden"),
    ],
)
def test_short_names_are_words_a_shell_need_not_quote(name, word):
    assert short_name(name) == word
