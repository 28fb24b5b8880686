"""Unpack a .zip or .tar archive (plain, gzip, bzip2 or xz) of images into a folder, completely or not at all.

The folder lies under `RELISH_HOME/datasets`, named after the archive and the SHA-256 of its bytes, so that the same
archive is unpacked once. The standard library reads the archive, but relish writes every file: a member can only name
a new file below the target and fill it. Links and devices are refused, not skipped, since an archive of images that
holds them is not what it claims to be.

A zip's names may be in any encoding, which `zip_names` finds, and its folders may be parted by backslashes.

Damage is detected by the checksums of zip, gzip, bzip2 and xz. A plain .tar has one for its names only: damaged pixels
in it show when the images are opened, or against the archive's own checksum, where that was given.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, cast

from relish.core.cache import one_at_a_time
from relish.core.errors import DataError, one_line
from relish.core.io import atomic_folder, relish_home, sha256_of_file, write_text
from relish.core.progress import SILENT, Progress
from relish.data.download import require_space, size_words
from relish.data.zip_names import member_names

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Usual endings of archives; the format is detected by the first bytes."""
MAX_MEMBERS = 5_000_000
"""Members of one archive; a few times ImageNet-1k."""
MAX_EXPANSION = 100
"""Largest ratio of unpacked to packed size where the former is over `SMALL`; photographs hardly shrink at all."""
SMALL = 2**30
"""Bytes that any archive may unpack to, whatever the ratio."""
MAX_NAME = 1000
"""Bytes of a member's path; file systems allow 255 for each part of it."""
CHUNK = 2**20
"""Bytes copied at a time."""
LARGEST_READ = 2**24
"""Bytes of one tar header, or of padding after the end mark: far more than any honest archive has."""
DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, RuntimeError, OverflowError, struct.error),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)
"""Exceptions that the standard library raises on damaged archives."""


def extract(archive: Path, *, zip_encoding: str | None = None, progress: Progress = SILENT) -> Path:
    """Unpack an archive, or find it unpacked already.

    Args:
        zip_encoding: of the names in a zip that are not marked as UTF-8; None takes UTF-8 where they are that, else a
            guess, which `unpacking_note` reports.

    Returns:
        A folder whose content is that of the archive, without what macOS adds (`__MACOSX`, `.DS_Store`).

    Raises:
        DataError: the archive is none, is damaged, encrypted or a bomb, or a member would land outside the folder,
            is a link or a device, or shares its name with another; names the archive and the member.
        WriteFailed: no space, no permission; nothing stays behind.
    """
    unpack = partial(unpack_into, archive, zip_encoding=zip_encoding, progress=progress)
    return unpacked_once(archive, unpack, progress, variant=zip_encoding or "", instead=_AS_IT_IS)


_AS_IT_IS = " Or give that folder, to go on without them."


def unpacked_once(
    packed: Path, unpack: Callable[[Path], str | None], progress: Progress, *, variant: str = "", instead: str = ""
) -> Path:
    """The folder of what is in a file, found again by the SHA-256 of its bytes, or filled now, whole or not at all.

    Args:
        unpack: writes into the empty folder that it is given; what it returns is that folder's `unpacking_note`.
        variant: a word for the way it is unpacked, where there are several; each has a folder of its own.
        instead: what else than unpacking it anew may be done where files are gone, a sentence.

    Raises:
        DataError: the file cannot be read, or `unpack` raises it; or files that were unpacked are gone.
        WriteFailed: no space, no permission; nothing stays behind.
    """
    try:
        digest = sha256_of_file(packed)
    except OSError as error:
        raise DataError(f"{packed}: cannot be read ({error.strerror}).") from error
    name = "-".join([short_name(packed.name), digest[:16], *([variant] if variant else [])])
    target = relish_home() / "datasets" / name
    if target.is_dir():
        return _whole(target, packed, instead)
    with one_at_a_time(target.with_name(f".{target.name}.lock"), packed.name, progress) as exclusive:
        if target.is_dir():
            return _whole(target, packed, instead)
        if exclusive:  # otherwise another process may be writing there
            for left in target.parent.glob(f".{target.name}.*.tmp"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
        with atomic_folder(target) as folder:
            if note := unpack(folder):
                write_text(_note(target), note)
            write_text(_count(target), str(_files(folder)))
    progress.say(f"unpacked {packed.name} to {target}")
    return target


def _whole(folder: Path, packed: Path, instead: str) -> Path:
    """The folder, which has as many files as were unpacked: somebody may have tidied up."""
    try:
        count, have = int(_count(folder).read_text(encoding="utf-8")), _files(folder)
    except (OSError, ValueError):  # nobody counted
        return folder
    if have < count:
        raise DataError(
            f"{packed}: {have:,} of {count:,} files are left where it was unpacked, {folder}.",
            hint=f"Remove that folder: the same command then unpacks it anew.{instead}",
        )
    return folder


def _files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _count(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.count")


def unpacking_note(folder: Path) -> str:
    """What is to be said of the names in an archive that was unpacked to this folder, or an empty string."""
    note = _note(folder)
    return note.read_text(encoding="utf-8") if note.is_file() else ""


def _note(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.note")


def short_name(name: str) -> str:
    """A file's or folder's name as a short word of safe characters: `My photos.tar.gz` becomes `My-photos`."""
    for suffix in sorted((*ARCHIVE_SUFFIXES, ".csv", ".parquet"), key=len, reverse=True):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:40].strip("-._") or "data"


@dataclass(frozen=True)
class _Member:
    """One entry of an archive, of whichever format."""

    name: str
    """As it is written in the archive."""
    path: str
    """The same with `/` between folders."""
    kind: str
    """`file`, `folder`, or what else it is, in words."""
    size: int
    """Of its content, in bytes, as the archive claims."""
    packed: int
    """Bytes of the archive that it takes, for the progress bar."""
    open: Callable[[], IO[bytes]]


@dataclass
class _Limits:
    """Checks each member against the limits and the members before it."""

    archive: Path
    zip_encoding: str | None = None
    note: str = ""
    """On the names of a zip, once its members are known."""
    members: int = 0
    unpacked: int = 0
    """Bytes of all members so far."""
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def check(self, member: _Member) -> tuple[str, ...] | None:
        """The parts of the member's path below the target; None where it is left out.

        Raises:
            DataError: it must not be unpacked, or not together with those before it.
        """
        parts = self._parts(member)
        if member.kind not in {"file", "folder"}:
            raise self.refusal(member, f"is {member.kind}; only files and folders are unpacked")
        self.members += 1
        self.unpacked += member.size
        if self.members > MAX_MEMBERS:
            raise self.refusal(member, f"is one too many: over {MAX_MEMBERS} members")
        if self.unpacked > _max_unpacked(self.archive):
            raise self.refusal(member, f"is too much: with it the archive unpacks to {size_words(self.unpacked)}")
        if "__MACOSX" in parts or (parts and parts[-1] == ".DS_Store"):
            return None
        self._reserve_name(member, parts)
        return parts

    def refusal(self, member: _Member, reason: str) -> DataError:
        return DataError(
            f'{self.archive}: member "{one_line(member.name)[:200]}" {reason}. Nothing was unpacked.',
            hint="Get the archive again from a source you trust, or unpack it yourself and give the folder.",
        )

    def _parts(self, member: _Member) -> tuple[str, ...]:
        name = member.path
        if "\\" in name or name.startswith("/") or re.match("[A-Za-z]:", name):
            raise self.refusal(member, "has an absolute path, a drive letter or a backslash in its name")
        parts = tuple(part for part in name.split("/") if part not in {"", "."})
        if ".." in parts:
            raise self.refusal(member, 'leads outside the folder ("..")')
        try:
            lengths = [len(part.encode()) for part in parts]
        except UnicodeEncodeError as error:
            raise self.refusal(member, "has a name that is not UTF-8") from error
        nameless = member.kind == "file" and not parts
        if nameless or "\0" in name or max(lengths, default=0) > 255 or sum(lengths) + len(parts) > MAX_NAME:
            raise self.refusal(member, "has a name that no file can have")
        return parts

    def _reserve_name(self, member: _Member, parts: tuple[str, ...]) -> None:
        path = "/".join(parts)
        above = {"/".join(parts[:i]) for i in range(1, len(parts))}
        taken = self.files if member.kind == "folder" else self.files | self.folders
        if path in taken or not above.isdisjoint(self.files):
            raise self.refusal(member, "has the same name as another one")
        self.folders |= above
        (self.files if member.kind == "file" else self.folders).add(path)


def unpack_into(archive: Path, folder: Path, *, zip_encoding: str | None, progress: Progress) -> str:
    """Fill the folder; what is to be said of the names."""
    limits = _Limits(archive, zip_encoding)
    title = f"unpacking {archive.name}"
    with closing(_members(archive, limits)) as members, progress.bar(title, archive.stat().st_size) as bar:
        for member in members:
            parts = limits.check(member)
            if parts is not None and member.kind == "folder":
                folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
            elif parts is not None:
                _write(member, folder.joinpath(*parts), limits)
            bar.advance(member.packed)
    os.sync()  # before the folder gets its name: a power cut must not leave empty files in it
    if not limits.files:
        raise DataError(f"{archive}: holds no files.", hint="Give an archive with one folder of pictures per class.")
    return limits.note


def _write(member: _Member, path: Path, limits: _Limits) -> None:
    _require_space(path, member.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("xb")
    except FileExistsError as error:  # where the file system does not tell upper from lower case
        raise limits.refusal(member, "has a name that this disk cannot tell from another one") from error
    written = 0
    with file:
        for piece in _content(member, limits):
            written += file.write(piece)
    if written != member.size:
        raise limits.refusal(member, f"is damaged: {written} bytes instead of {member.size}")


def _content(member: _Member, limits: _Limits) -> Iterator[bytes]:
    try:
        with member.open() as source:
            while piece := source.read(CHUNK):
                yield piece
    except DAMAGE as error:
        raise limits.refusal(member, f"is damaged or cannot be read ({error})") from error


def _members(archive: Path, limits: _Limits) -> Generator[_Member, None, None]:
    """What is in an archive, in its order; a member is opened before the next one is asked for.

    Raises:
        DataError: it is no archive, or damaged; it is none whose names could have an encoding, and one is given.
    """
    try:
        with archive.open("rb") as raw:
            start = raw.read(6)
            raw.seek(0)
            if start.startswith(b"PK"):
                yield from _zip_members(raw, archive, limits)
            elif limits.zip_encoding is not None:
                raise DataError(f"{archive}: --zip-encoding belongs to a zip, and this is none.", hint="Omit it.")
            else:
                yield from _tar_members(raw, start)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{archive}: a name in it is marked as UTF-8 and is none ({ascii(error.object)[2:-1][:200]}).",
            hint="Pack it anew, or unpack it yourself and give the folder.",
        ) from error
    except DAMAGE as error:
        raise DataError(
            f"{archive}: not a .zip or .tar archive, or a truncated or damaged one ({error}).",
            hint="Get it again, or unpack it yourself and give the folder.",
        ) from error


def _zip_members(raw: IO[bytes], archive: Path, limits: _Limits) -> Iterator[_Member]:
    counted = _zip_count(raw)
    with zipfile.ZipFile(raw) as opened:
        members = opened.infolist()
        if counted is not None and counted != len(members) % 2**16:
            raise zipfile.BadZipFile(f"it lists {len(members)} of {counted} members")
        total = sum(info.file_size for info in members)
        if total <= _max_unpacked(archive):  # above, `_Limits.check` names the member
            _require_space(archive, total)
        names, limits.note = member_names(members, limits.zip_encoding)
        for info, name in zip(members, names, strict=True):
            opener, path = partial(opened.open, info), name.replace("\\", "/")  # as programs on Windows write folders
            yield _Member(name, path, _zip_kind(info, path), info.file_size, info.compress_size, opener)


def _zip_count(raw: IO[bytes]) -> int | None:
    """How many members the end of a zip file counts, modulo 2**16; None where it leaves that to zip64.

    zipfile does not look at it: a damaged length in the list of members may hide those that follow.
    """
    raw.seek(max(0, raw.seek(0, os.SEEK_END) - 2**16 - 22))
    tail = raw.read()
    end = tail.rfind(b"PK\5\6")
    count = int.from_bytes(tail[end + 10 : end + 12], "little")
    return None if end < 0 or count == 0xFFFF else count


def _zip_kind(info: zipfile.ZipInfo, path: str) -> str:
    if info.flag_bits & 0x41:  # plain and strong encryption (APPNOTE 6.3.10, section 4.4.4)
        return "encrypted"
    form = stat.S_IFMT(info.external_attr >> 16)
    if form == stat.S_IFLNK:
        return "a link"
    if form not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "a device, a pipe or a socket"
    return "folder" if path.endswith("/") else "file"


def _tar_members(raw: IO[bytes], start: bytes) -> Iterator[_Member]:
    with _decompressed(raw, start) as plain:
        stream = _Stream(plain)
        with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as opened:
            behind = 0
            while (info := opened.next()) is not None:
                packed, behind = raw.tell() - behind, raw.tell()
                content = cast(Callable[[], IO[bytes]], partial(opened.extractfile, info))  # of a file, there is one
                yield _Member(info.name, info.name, _tar_kind(info), info.size, packed, content)
                opened.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
            stream.expect_end()


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link"
    if info.isdev():
        return "a device or a pipe"
    if info.issparse() or not (info.isreg() or info.isdir()):
        return "of an unusual kind"
    return "folder" if info.isdir() else "file"


def _decompressed(raw: IO[bytes], start: bytes) -> IO[bytes]:
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(raw))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(raw))
    if start.startswith(b"\xfd7zXZ\0"):
        return cast(IO[bytes], lzma.open(raw))
    return raw


class _Stream(io.RawIOBase):
    """A tar file as `tarfile` reads it, guarded where that is too trusting.

    It reads a header of any length into memory, and takes a damaged header for the end of the archive, so that half
    of the images would be missing without a word.
    """

    def __init__(self, plain: IO[bytes]) -> None:
        self._plain = plain
        self._last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size_words(size)}")
        self._last = self._plain.read(size)
        return self._last

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._plain.seek(offset, whence)

    def tell(self) -> int:
        return self._plain.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def expect_end(self) -> None:
        """Make sure that the header read last was the end mark; read on, so that the checksum of gzip is compared."""
        if self._last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark where the archive ends")
        behind = 0
        while piece := self._plain.read(CHUNK):
            behind += len(piece)
            if behind > LARGEST_READ:
                raise tarfile.ReadError("data after the end mark")


def _max_unpacked(archive: Path) -> int:
    return max(SMALL, MAX_EXPANSION * archive.stat().st_size)


def _require_space(path: Path, needed: int) -> None:
    require_space(path, needed, relish_home(), f"unpacking needs {size_words(needed)}")
