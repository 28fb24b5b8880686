"""What the word a user types is taken for."""

import hashlib
import os
import sys
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from relish.core.errors import DataError, DownloadFailed
from relish.data import sources
from relish.data.download import kept_at
from relish.data.sources import REGISTERED, Registered, find_dataset

PICTURES = [f"{split}/{name}/{i}.jpg" for split in ("train", "test") for name in ("cat", "dog") for i in range(3)]


@pytest.fixture(autouse=True)
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and a home of its own beside it."""
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def pets_folder(folder: Path) -> Path:
    for name in PICTURES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def pets_archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name in PICTURES:
            opened.writestr(f"pets/{name}", name)
    return path


def names(dataset, split: str) -> list[str]:
    return sorted(dataset.label(path) for path in dataset.splits[split].paths)


def sha(kind: str, path: Path) -> str:
    return hashlib.new(kind, path.read_bytes()).hexdigest()


def test_a_folder_and_its_archive_are_the_same_dataset(at_work):
    folder = find_dataset(pets_folder(at_work / "pets"))
    archive = find_dataset(pets_archive(at_work / "pets.zip"))
    assert folder.classes == archive.classes == ("cat", "dog")
    assert set(folder.splits) == set(archive.splits) == {"train", "test"}
    for split in folder.splits:
        assert names(folder, split) == names(archive, split)
    assert folder.name == archive.name == "pets"


def test_a_table_is_taken_by_its_ending(at_work):
    pets_folder(at_work / "pets")
    lines = [f"pets/{name},{name.split('/')[1]},{name.split('/')[0]}" for name in PICTURES]
    (at_work / "labels.csv").write_text("\n".join(["path,label,split", *lines]))
    found = find_dataset("labels.csv")
    assert (found.name, found.classes) == ("labels", ("cat", "dog"))
    assert len(found.splits["train"]) == 6


def test_an_address_is_downloaded_checked_and_unpacked(at_work):
    archive = pets_archive(at_work / "pets.zip")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/pets.zip"
        try:
            found = find_dataset(address, sha256=sha("sha256", archive))
            with pytest.raises(DownloadFailed, match="SHA-1 expected"):
                find_dataset(address, sha1="0" * 40)
        finally:
            server.shutdown()
            thread.join()
    assert (found.name, found.source, len(found)) == ("pets", address, len(PICTURES))
    assert len(find_dataset(address)) == len(PICTURES)  # the server is gone


def test_a_page_downloaded_instead_of_an_archive_can_be_got_rid_of():
    place = kept_at("http://host.invalid/pets.zip")
    place.parent.mkdir(parents=True)
    place.write_text("<!doctype html>log in")
    with pytest.raises(DataError, match=r"not a \.zip or \.tar") as caught:
        find_dataset("http://host.invalid/pets.zip")
    assert f"remove {place}" in caught.value.hint


OTHERS = {
    "labels.json": (b'{"a.jpg": "cat"}', "a JSON file", "path,label"),
    "labels.xlsx": (b"PK\3\4" + bytes(60), "a spreadsheet", "CSV"),
    "labels.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60), "an old Office", "CSV"),
    "pets.rar": (b"Rar!\x1a\x07\1\0", "a RAR archive", "Unpack it"),
    "pets.7z": (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it"),
    "pets.zip": (b"Rar!\x1a\x07\0", "a RAR archive", "Unpack it"),
    "pets.tar.zst": (b"\x28\xb5\x2f\xfd" + bytes(9), "packed by Zstandard", "Unpack it"),
    "pets.zip.001": (bytes(9), "one part of a file", "Join"),
    "labels.csv.gz": (b"\x1f\x8b" + bytes(9), "a single packed file", "labels.csv"),
    "arrays.npz": (b"PK\3\4" + bytes(60), "a file of arrays", "folder per class"),
    "data.yaml": (b"names: [cat]", "a YAML file", "folder"),
    "classes.txt": (b"cat", "a text file", "path,label"),
    "model.safetensors": (bytes(9), "a model, not pictures", "folder"),
    "photo.jpg": (b"\xff\xd8\xff\xe0" + bytes(60), "one picture", "folder"),
    "photo.heic": (b"", "an empty file", "again"),
    "download": (b"<!DOCTYPE html><title>log in", "a web page", "logging in"),
    "table": (b"PAR1" + bytes(9), "a Parquet table", ".parquet"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_kind_is_called_what_it_is_and_the_way_on_is_told(at_work, name):
    content, what, advice = OTHERS[name]
    (at_work / name).write_bytes(content)
    with pytest.raises(DataError, match=r"not a \.zip or \.tar archive, a table or a folder") as caught:
        find_dataset(name)
    assert f"{name}: is " in caught.value.message
    assert what in caught.value.message
    assert advice in caught.value.hint


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems refuse such names")
def test_a_folder_whose_path_is_not_utf8_is_refused(at_work):
    """No run could keep it."""
    folder = Path(os.fsdecode(b"caf\xe9"))
    pets_folder(folder)
    with pytest.raises(DataError, match=r"caf\\udce9: this path is not UTF-8"):
        find_dataset(folder)


def test_first_bytes_are_believed_before_a_name(at_work):
    pets_archive(at_work / "pets.zip").rename(at_work / "pets.txt")
    assert len(find_dataset("pets.txt")) == len(PICTURES)


def test_a_registered_name_brings_its_address_and_its_checksum(at_work, monkeypatch):
    archive = pets_archive(at_work / "elsewhere.zip")
    entry = Registered(address="http://host.invalid/a.zip", sha1=sha("sha1", archive), origin="a test")
    monkeypatch.setitem(sources.REGISTERED, "pets", entry)
    place = kept_at(entry.address)
    place.parent.mkdir(parents=True)
    archive.rename(place)
    found = find_dataset("pets")
    assert (found.name, found.source, found.warnings) == ("pets", "pets", ())


def test_the_book_s_dataset_is_registered_as_the_book_has_it():
    assert REGISTERED["hotdog"].address == "http://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip"
    assert REGISTERED["hotdog"].sha1 == "fba480ffa8aa7e0febbb511d181409f899b9baa5"


def test_a_folder_beside_a_registered_name_wins_and_says_so(at_work):
    pets_folder(at_work / "hotdog")
    assert any("not as the registered dataset" in warning for warning in find_dataset("hotdog").warnings)
    assert find_dataset("./hotdog").warnings == ()
    assert find_dataset("hotdog/").warnings == ()


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_the_checksum_of_a_local_archive_is_verified(at_work, kind):
    archive = pets_archive(at_work / "pets.zip")
    assert len(find_dataset("pets.zip", **{kind: sha(kind, archive)})) == len(PICTURES)
    with pytest.raises(DataError, match=r"pets\.zip is not the archive it should be: SHA-.* expected 0+, got"):
        find_dataset("pets.zip", **{kind: "0" * len(sha(kind, archive))})


@pytest.mark.parametrize("given", ["pets", "labels.csv"])
def test_a_checksum_of_what_is_no_archive_is_refused(at_work, given):
    pets_folder(at_work / "pets")
    (at_work / "labels.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="a checksum belongs to an archive"):
        find_dataset(given, sha1="0" * 40)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("hotdgo", 'Did you mean "hotdog"?'),
        ("petz", 'Did you mean "pets"?'),
        ("pets/trian", 'Did you mean "train"?'),
        ("pest/train/cat", 'since pest does not exist.\n  Did you mean "pets"?'),
        ("/no-such-folder-anywhere/at-all", "since /no-such-folder-anywhere does not exist"),
        ("qqqqqqqq", "Give a folder, an archive, an address"),
        ("pets/train/cat/0.jpg/x", "is neither a file, a folder nor a registered name"),
        ("x" * 5000, "cannot be read"),
        ("a\0b", "is neither"),
    ],
)
def test_what_is_not_there_is_an_error_that_offers_what_is(at_work, typed, words):
    pets_folder(at_work / "pets")
    with pytest.raises(DataError) as caught:
        find_dataset(typed)
    assert words in str(caught.value)


@pytest.mark.parametrize("nothing", ["", "  "])
def test_nothing_is_not_the_present_folder(at_work, nothing):
    pets_folder(at_work)
    with pytest.raises(DataError, match="empty"):
        find_dataset(nothing)


def test_a_picture_alone_is_not_a_dataset(at_work):
    (at_work / "one.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"not a \.zip or \.tar"):
        find_dataset("one.jpg")


@pytest.mark.parametrize("address", ["ftp://host/pets.zip", "s3://bucket/pets.zip"])
def test_an_address_of_another_kind_is_refused_as_one(address):
    with pytest.raises(DataError, match="is not an address relish can download from"):
        find_dataset(address)


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}", "file:{}", "FILE://{}"])
@pytest.mark.parametrize("kind", ["folder", "archive", "table"])
def test_the_address_of_a_file_here_is_its_path(at_work, form, kind):
    folder = pets_folder(at_work / "my pets")
    if kind == "archive":
        folder = pets_archive(at_work / "my pets.zip")
    if kind == "table":
        folder = at_work / "my pets.csv"
        folder.write_text("\n".join(["path,label", *(f"my pets/{name},{name.split('/')[1]}" for name in PICTURES)]))
    found = find_dataset(form.format(folder.as_uri().removeprefix("file://")))
    assert (found.classes, len(found)) == (("cat", "dog"), len(PICTURES))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("file://server/share/pets.zip", "a file of another machine, server"),
        ("file:///no/such/pets.zip", "since /no does not exist"),
        ("file://", "the address names no file"),
    ],
)
def test_the_address_of_a_file_that_is_not_here_is_refused(address, words):
    with pytest.raises(DataError) as caught:
        find_dataset(address)
    assert words in str(caught.value)


@pytest.mark.parametrize("given", [".", "../work", "{}/work/"])
def test_a_folder_is_named_after_where_it_really_is(at_work, given):
    pets_folder(at_work)
    assert find_dataset(given.format(at_work.parent)).name == "work"


def test_the_home_sign_is_understood(at_work, monkeypatch):
    monkeypatch.setenv("HOME", str(at_work))
    pets_folder(at_work / "pets")
    assert find_dataset("~/pets").root == at_work / "pets"
