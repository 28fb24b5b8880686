"""Archives with hostile members, and with damaged bytes: all of it comes out, or nothing."""

import io
import stat
import tarfile
import zipfile
from unittest import mock

from hypothesis import strategies as st

from relish.data import archive as archives
from relish.data.sources import find_dataset
from tests.fuzz.harness import folder, fuzz, kept_in
from tests.fuzz.mutation import WORDS, mutated

SMALL = 100_000
"""Bytes that any archive may unpack to, instead of 1 GiB."""
PARTS = ("a", "b", "cat", "1.png", "..", ".", "", "__MACOSX", ".DS_Store", "é", "e\u0301", "CAT", *WORDS)
KINDS = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    b"S",
    b"L",
    b"x",
)

RENAMING = {b"L", b"x"}
"""Members that say the name of the next one."""

names = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("/".join)
contents = st.one_of(st.binary(max_size=40), st.sampled_from([b"", bytes(3 * SMALL), b"\x89PNG\r\n\x1a\n"]))
kinds = st.one_of(st.just(tarfile.REGTYPE), st.sampled_from(KINDS))
members = st.lists(st.tuples(names, contents, kinds), max_size=4)


def shown(name: str) -> str:
    """A name as an archive can hold it."""
    return name.encode(errors="replace").decode().partition("\0")[0]


def zipped(rows) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened, mock.patch("warnings.warn"):
        for name, content, kind in rows:
            info = zipfile.ZipInfo(shown(name))
            info.compress_type = zipfile.ZIP_DEFLATED
            form = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO}.get(kind, 0)
            info.external_attr = form << 16
            opened.writestr(info, content)
    return file.getvalue()


def tarred(rows, mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.GNU_FORMAT) as opened:
        for name, content, kind in rows:
            info = tarfile.TarInfo(shown(name))
            info.type, info.linkname = kind, "../../x"
            info.size = len(content) if kind not in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE) else 0
            opened.addfile(info, io.BytesIO(content))
    return file.getvalue()


GOOD = [
    ("a/1.png", b"1" * 30, tarfile.REGTYPE),
    ("b/2.png", b"2" * 700, tarfile.REGTYPE),
    ("b/é.png", b"", tarfile.REGTYPE),
]
SEEDS = [
    zipped(GOOD),
    *(tarred(GOOD, mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")),
    b"Rar!\x1a\7\0",
    b"7z\xbc\xaf\x27\x1c",
]


def resummed(content: bytes) -> bytes:
    """A tar file with right checksums of its headers again."""
    blocks = [content[start : start + 512] for start in range(0, len(content), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            blocks[number] = block[:148] + f"{total:06o}\0 ".encode() + block[156:]
    return b"".join(blocks)


archive_bytes = st.one_of(
    members.map(lambda rows: (rows, zipped(rows))),
    st.tuples(members, st.sampled_from(["w", "w:gz"])).map(lambda both: (both[0], tarred(*both))),
    mutated(SEEDS).map(lambda content: (None, content)),
    mutated([tarred(GOOD)]).map(lambda content: (None, resummed(content))),
)


@fuzz(archive_bytes, examples=150)
def test_an_archive_comes_out_whole_or_not_at_all(given):
    rows, content = given
    with (
        folder() as here,
        mock.patch.object(archives, "SMALL", SMALL),
        mock.patch("os.sync"),
        mock.patch("os.fsync"),
    ):
        archive = here / "pets.zip"
        archive.write_bytes(content)
        home = here.parent / "home"
        with kept_in(home):
            try:
                find_dataset(str(archive), learnable=False)
            finally:
                unpacked = [path for path in home.glob("datasets/*") if path.is_dir()]
                assert not [path for path in unpacked if path.name.endswith(".tmp")]
                files = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]
                assert sum(path.stat().st_size for path in files) <= max(SMALL, 100 * len(content))
                assert not any(path.is_symlink() or not (path.is_dir() or path.is_file()) for path in home.rglob("*"))
        if rows is not None and unpacked and not {kind for _, _, kind in rows} & RENAMING:
            for name, data, form in rows:
                path = shown(name).replace("\\", "/")  # of a zip; a tar file with one is refused
                parts = [part for part in path.split("/") if part not in ("", ".")]
                if form == tarfile.REGTYPE and not path.endswith("/") and not {"__MACOSX", ".DS_Store"} & {*parts}:
                    assert unpacked[0].joinpath(*parts).read_bytes() == data
