"""Names in zips: whatever program packed them, the folders are called what they were called there."""

import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core.errors import DataError
from relish.data.archive import extract
from relish.data.sources import Reading, find_dataset
from relish.data.zip_names import CODE_PAGES, checked_encoding, likeliest
from tests.conftest import draw, unpacked_case


def pack(path: Path, names: list[bytes], *, extra: dict[bytes, bytes] | None = None, content: bytes = b"") -> Path:
    """A zip of files under these names, byte for byte and not marked as UTF-8."""
    standing = [chr(65 + place).encode() * len(name) for place, name in enumerate(names)]
    with zipfile.ZipFile(path, "w") as opened:
        for name, stand_in in zip(names, standing, strict=True):
            info = zipfile.ZipInfo(stand_in.decode())
            info.extra = (extra or {}).get(name, b"")
            opened.writestr(info, content)
    packed = path.read_bytes()
    for name, stand_in in zip(names, standing, strict=True):
        assert packed.count(stand_in) == 2, "the name in the file's own header and in the list"
        packed = packed.replace(stand_in, name)
    path.write_bytes(packed)
    return path


def unpacked(archive: Path, **told: str) -> set[str]:
    folder = extract(archive, **told)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def encoded(encoding: str, *names: str) -> list[bytes]:
    return [f"pets/{name}/1.png".encode(encoding) for name in names]


# ---- what the names say ---------------------------------------------------------------------------------------------


def test_names_in_utf8_without_the_flag_are_utf8(tmp_path):
    """As Info-ZIP writes them on Linux, and Archive Utility, in NFD, on a Mac."""
    archive = pack(tmp_path / "a.zip", encoded("utf-8", "caf\u00e9", "nin\u0303o", "猫", "dog"))
    assert unpacked(archive) == {f"pets/{name}/1.png" for name in ("caf\u00e9", "nin\u0303o", "猫", "dog")}


def test_a_unicode_path_beside_a_name_is_the_name_if_it_belongs_to_it(tmp_path):
    """The extra field of WinZip and Info-ZIP on Windows; of a name that was changed since, it is of no account."""
    names = [b"caf\x82/1.png", b"ni\xa4o/1.png"]

    def field(of: bytes, text: str) -> bytes:
        content = b"\1" + struct.pack("<L", zlib.crc32(of)) + text.encode()
        return struct.pack("<HH", 0x7075, len(content)) + content

    extra = {names[0]: b"\xfe\xca\x01\x00x" + field(names[0], "cafè/1.png"), names[1]: field(names[0], "other/1.png")}
    assert unpacked(pack(tmp_path / "a.zip", names, extra=extra)) == {"cafè/1.png", "niño/1.png"}


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("cp437", ["café", "niño"]),
        ("cp850", ["bjørn", "maçã"]),
        ("cp1252", ["Größe", "crème brûlée"]),
        ("cp852", ["żółw", "łabędź"]),
        ("cp866", ["кошка", "собака"]),
        ("cp1251", ["кошка", "собака"]),
        ("cp737", ["γάτα", "σκύλος"]),
        ("cp932", ["猫", "ホットドッグ", "表"]),
        ("gbk", ["猫", "狗"]),
        ("cp949", ["고양이", "강아지"]),
        ("cp950", ["蘋果", "熱狗"]),
    ],
)
def test_names_in_a_code_page_are_guessed_and_the_guess_is_reported(tmp_path, encoding, names):
    archive = tmp_path / "a.zip"
    draw(tmp_path / "p.png", (9, 9, 9), 1)
    pack(archive, encoded(encoding, *names, "dog"), content=(tmp_path / "p.png").read_bytes())
    for _ in range(2):  # also where it lies unpacked already
        found = find_dataset(archive)
        assert found.classes == tuple(sorted([*names, "dog"]))
        (warning,) = found.warnings
        assert "not UTF-8" in warning
        assert f'"{sorted(names, key=lambda name: name.encode(encoding))[0]}"' in warning
        assert "--zip-encoding" in warning


def test_the_encoding_that_is_told_is_taken_and_its_folder_is_another(tmp_path):
    archive = pack(tmp_path / "a.zip", encoded("cp437", "café", "dog"))
    assert unpacked(archive) == {"pets/café/1.png", "pets/dog/1.png"}
    assert unpacked(archive, zip_encoding="cp866") == {"pets/cafВ/1.png", "pets/dog/1.png"}
    assert unpacked(archive) == {"pets/café/1.png", "pets/dog/1.png"}


def test_an_encoding_that_names_are_not_in_is_refused_with_one_that_they_may_be_in(tmp_path):
    archive = pack(tmp_path / "a.zip", encoded("cp932", "猫", "犬"))
    with pytest.raises(DataError, match=r"--zip-encoding utf-8: the name pets/\\x\w\w.* is not in it") as caught:
        extract(archive, zip_encoding="utf-8")
    assert "cp932" in caught.value.hint


@pytest.mark.parametrize("name", ["klingon", "utf-16", "hex", "", "cp437\0"])
def test_what_is_no_encoding_of_names_is_refused(name):
    with pytest.raises(DataError, match="there is no such encoding of names"):
        Reading(zip_encoding=name)
    assert checked_encoding("SJIS") == "shift_jis"


def test_an_encoding_belongs_to_a_zip(tmp_path):
    draw(tmp_path / "pets/cat/1.png", (9, 9, 9), 1)
    with pytest.raises(DataError, match="an encoding of names belongs to an archive, and this is a folder"):
        find_dataset(tmp_path / "pets", reading=Reading(zip_encoding="cp932"))


@pytest.mark.parametrize(
    ("page", "word"), [("cp1252", "été"), ("gbk", "向日葵"), ("cp932", "りんご"), ("cp1251", "яблоко")]
)
def test_a_word_alone_is_read_as_a_word(page, word):
    assert word.encode(page).decode(likeliest([word.encode(page)])[0]) == word


@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw), min_size=1, max_size=4))
@settings(max_examples=100)
def test_any_bytes_are_some_name(parts):
    assert set(likeliest(parts)) <= {*CODE_PAGES, "latin-1"}
    assert likeliest(parts)


def test_a_name_that_is_marked_as_utf8_and_is_none_is_shown(tmp_path):
    archive = pack(tmp_path / "a.zip", [b"caf\x82/1.png"])
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\3\4") + 7] |= 8
    content[content.index(b"PK\1\2") + 9] |= 8
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"marked as UTF-8 and is none \(caf\\x82/1.png\)"):
        extract(archive)


# ---- backslashes ----------------------------------------------------------------------------------------------------


def test_backslashes_part_folders(tmp_path):
    """As .NET and older PowerShells pack them, folders of their own among the members."""
    names = [b"pets\\", b"pets\\cat\\", b"pets\\cat\\1.png", b"pets\\caf\x82\\1.png"]
    assert unpacked(pack(tmp_path / "a.zip", names)) == {"pets/cat/1.png", "pets/café/1.png"}


@pytest.mark.parametrize(
    "name", [b"..\\evil.png", b"\\evil.png", b"\\\\host\\evil.png", b"c:\\evil.png", b"a\\..\\b.png"]
)
def test_backslashes_lead_nowhere_else(tmp_path, name):
    with pytest.raises(DataError, match="Nothing was unpacked"):
        extract(pack(tmp_path / "a.zip", [b"cat\\1.png", name]))


# ---- the cases of the wild ------------------------------------------------------------------------------------------


def test_a_zip_of_info_zip_on_linux(shared, tmp_path):
    (archive,) = unpacked_case(shared, "08-zip-infozip", tmp_path).rglob("infozip_linux.zip")
    assert find_dataset(archive).classes == ("café", "niño")
