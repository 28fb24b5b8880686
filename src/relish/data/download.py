"""Download one file from an address, complete and checked, once, to a fixed path under `RELISH_HOME/downloads`.

Bytes go to a partial file, which survives a kill. The next call requests the rest, and only of the same version
(`If-Range`, RFC 9110 section 13.1.5). The file is renamed to its final name after the check. Processes take turns under
a lock of the kernel, which a killed process releases.
"""

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote
from urllib.request import proxy_bypass

import httpx

from relish.core.cache import one_at_a_time
from relish.core.errors import DataError, DownloadFailed, WriteFailed
from relish.core.io import cannot_write, relish_home, sha256_of_file, write_json
from relish.core.progress import SILENT, Progress

TRIES = 5
"""Connections for one file before giving up."""
UNREACHABLE_TRIES = 2
"""The same where no server is reached: without a network the error should come soon."""
FIRST_PAUSE = 0.5
"""Seconds before the second try; doubled before each further one."""
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
"""Seconds of silence after which a connection counts as dropped."""
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which a request is repeated (RFC 9110, RFC 6585)."""

SPACE_HINT = "Free some space, or set RELISH_HOME to a folder on another disk, then again"


def download(
    address: str,
    *,
    sha1: str | None = None,
    sha256: str | None = None,
    progress: Progress = SILENT,
    folder: Path | None = None,
) -> Path:
    """Download the file at an address, resume an earlier download of it, or find it already here.

    Args:
        address: begins with http:// or https://.
        sha1: what its SHA-1 must be, 40 hexadecimal digits.
        sha256: what its SHA-256 must be, 64 hexadecimal digits.
        progress: shows a bar in bytes.
        folder: where downloads are kept, instead of `RELISH_HOME/downloads`.

    Returns:
        The path of the whole file, checked.

    Raises:
        DataError: the address or a checksum is not one.
        DownloadFailed: the server cannot be reached, does not have the file, or sent another one.
        WriteFailed: no space, no permission; the bytes received so far are kept.
    """
    url = _url(address)
    wanted = checksums(sha1, sha256)
    place = kept_at(address, folder)
    if place.is_file() and not mismatch(place, wanted):
        return place
    with one_at_a_time(place.with_name(".lock"), place.name, progress):
        stale = mismatch(place, wanted) if place.is_file() else ""
        if place.is_file() and not stale:
            return place
        if stale:
            progress.warn(
                f"{place} is not the file asked for ({stale}); it will be replaced by the one at {shown(url)}."
            )
        _Fetch(url, place, stale, wanted, progress).run()
    return place


def kept_at(address: str, folder: Path | None = None) -> Path:
    """The path of the file at this address, where it can also be put by hand. It may not exist yet."""
    url = _url(address)
    last = unquote(url.path).rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).lstrip(".-")[-100:] or "download"
    key = hashlib.sha256(str(url).encode()).hexdigest()[:16]
    return (folder or relish_home() / "downloads") / key / name


def shown(url: httpx.URL | str) -> str:
    """An address without its parts that may be secret: user, password, query and fragment."""
    return str(httpx.URL(url).copy_with(username=None, password=None, query=None, fragment=None))


def proxy_words(address: httpx.URL | str) -> str:
    """A sentence on the proxy that the environment names for an address, with a blank behind it; else empty."""
    url = httpx.URL(address)
    for name in (f"{url.scheme}_proxy", f"{url.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"):
        if os.environ.get(name) and not proxy_bypass(f"{url.host}:{url.port or ''}"):
            return f"Is {name}, the proxy that was asked, right? "  # its value may hold a password
    return ""


def size_words(count: int) -> str:
    """A number of bytes in a readable unit, such as `38.3 MB`."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} bytes"


def require_space(path: Path, needed: int, folder: Path, purpose: str) -> None:
    """Check that the disk of `folder` has room for so many bytes.

    Raises:
        WriteFailed: it has fewer; the message names `path` and the purpose.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WriteFailed(f"{path}: {purpose}, and {size_words(free)} are free there.", hint=f"{SPACE_HINT}.")


@dataclass(frozen=True)
class _Version:
    """The version of the file that the bytes of a partial file belong to."""

    etag: str = ""
    modified: str = ""
    size: int | None = None
    """Of the whole file, in bytes; None where the server does not say."""

    @property
    def validator(self) -> str:
        """What `If-Range` may carry; a weak ETag may not, since it allows the bytes to differ."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    @classmethod
    def of(cls, response: httpx.Response) -> "_Version":
        """The version a server says it is sending, in whole (200) or in part (206)."""
        if response.status_code == 206:
            size = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("content-range", "").strip())
            length = size[1] if size else ""
        else:
            length = response.headers.get("content-length", "")
        return cls(
            response.headers.get("etag", ""),
            response.headers.get("last-modified", ""),
            int(length) if length.isdecimal() else None,
        )


class _Partial:
    """The bytes received so far, and, beside them, the version of the file that they belong to."""

    def __init__(self, place: Path) -> None:
        self.path = place.with_name(f".{place.name}.partial")
        self.note = place.with_name(f".{place.name}.partial.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def version(self) -> _Version:
        try:
            return _Version(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return _Version()

    @property
    def is_complete(self) -> bool:
        return self.path.is_file() and self.size == self.version.size

    def begin(self, version: _Version) -> None:
        """Start from nothing; emptied before it is noted, so that no kill can leave bytes under a wrong note."""
        self.path.write_bytes(b"")
        write_json(self.note, asdict(version))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


class _Dropped(Exception):
    """A try that failed, with the reason, where another try may succeed."""


class _Fetch:
    """One download: the tries to fill the partial file, and the check of the whole."""

    def __init__(self, url: httpx.URL, place: Path, stale: str, wanted: dict[str, str], progress: Progress) -> None:
        self.url, self.place, self.stale, self.wanted, self.progress = url, place, stale, wanted, progress
        self.partial = _Partial(place)
        self.reached = False
        """Whether any server has answered yet."""

    def run(self) -> None:
        if not self.partial.is_complete:
            try:
                client = httpx.Client(follow_redirects=True, timeout=TIMEOUT)
            except (ImportError, ValueError, httpx.InvalidURL) as error:  # httpx cannot use the environment's proxy
                raise self._failed(f"the proxy set in the environment cannot be used ({error})") from error
            with client:
                self._try_repeatedly(client)
        self._accept()

    def _try_repeatedly(self, client: httpx.Client) -> None:
        tries = 0
        while True:
            tries += 1
            try:
                return self._try(client)
            except (httpx.TransportError, _Dropped) as error:
                final = isinstance(error, httpx.UnsupportedProtocol)  # a redirect to ftp: or the like
                if final or tries >= (TRIES if self.reached else UNREACHABLE_TRIES):
                    raise self._failed(_reason(error), tries) from error
                self.progress.say(f"{_reason(error)}; trying again")
            except (httpx.HTTPError, httpx.InvalidURL) as error:  # too many redirects, or one to nowhere
                raise self._failed(_reason(error)) from error
            except OSError as error:
                raise self._cannot_write(error) from error
            time.sleep(FIRST_PAUSE * 2 ** (tries - 1))

    def _try(self, client: httpx.Client) -> None:
        headers, have = self._request()
        with client.stream("GET", self.url, headers=headers) as response:
            self.reached = True
            answer = f"the server answered {response.status_code} {response.reason_phrase}".strip()
            if response.status_code == 200:
                have = 0
                self.partial.begin(_Version.of(response))
            elif have and response.status_code in {206, 416}:
                if not self._continues(response, have):
                    self.partial.discard()
                    raise _Dropped("the server no longer has the version that was begun")
            elif response.status_code in TRANSIENT_STATUSES:
                raise _Dropped(answer)
            else:
                raise self._failed(answer)
            self._receive(response, have)

    def _request(self) -> tuple[dict[str, str], int]:
        """Headers that request the missing bytes, and the number of bytes that are here."""
        headers = {"Accept-Encoding": "identity"}  # no compression: the checksum is of the file's own bytes
        have, validator = self.partial.size, self.partial.version.validator
        if have and validator:
            return {**headers, "Range": f"bytes={have}-", "If-Range": validator}, have
        if have and self.wanted:  # without a validator only the checksum tells versions apart, at the end
            return {**headers, "Range": f"bytes={have}-"}, have
        return headers, 0

    def _continues(self, response: httpx.Response, have: int) -> bool:
        """Whether a response is the rest of the partial file: 416 is not, and some servers ignore If-Range."""
        mine, theirs = self.partial.version, _Version.of(response)
        begins = re.match(r"bytes (\d+)-", response.headers.get("content-range", "").strip())
        pairs = ((mine.etag, theirs.etag), (mine.modified, theirs.modified), (mine.size, theirs.size))
        return (
            response.status_code == 206
            and begins is not None
            and int(begins[1]) == have
            and all(a == b for a, b in pairs if a and b)
        )

    def _receive(self, response: httpx.Response, have: int) -> None:
        total = self.partial.version.size
        missing = (total or 0) - have
        require_space(self.place, missing, self.place.parent, f"{size_words(missing)} are still to come")
        of = f" of {size_words(total)}" if total is not None else ""
        with self.partial.path.open("ab") as file, self.progress.bar(self.place.name, total or 0, have) as bar:
            for chunk in response.iter_raw():
                file.write(chunk)
                have += len(chunk)
                bar.advance(len(chunk), size_words(have) + of)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and have > total:
            self.partial.discard()
        if total is not None and have != total:
            raise _Dropped(f"{have} bytes came where the server had promised {total}")

    def _accept(self) -> None:
        """Check the complete file and give it its name."""
        if wrong := mismatch(self.partial.path, self.wanted):
            self.partial.discard()
            raise DownloadFailed(
                f"{self.place.name} from {shown(self.url)} is not the file it should be: {wrong}.",
                hint="It was removed; the next try starts from nothing. If that fails too, doubt the checksum.",
            )
        try:
            self.partial.path.replace(self.place)
            self.partial.note.unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error
        self.progress.say(f"downloaded {self.place.name}, {size_words(self.place.stat().st_size)}, to {self.place}")
        if not self.wanted:
            self.progress.say(f"to be sure of the same file elsewhere: --sha256 {sha256_of_file(self.place)}")

    def _cannot_write(self, error: OSError) -> WriteFailed:
        return cannot_write(self.place, error, f"{SPACE_HINT}; what has come is kept.")

    def _failed(self, reason: str, tries: int = 1) -> DownloadFailed:
        after = f" ({tries} tries)" if tries > 1 else ""
        here = f"; the {size_words(self.partial.size)} that came are kept" if self.partial.size else ""
        stale = f" The file there now will not do: {self.stale}." if self.stale else ""
        proxy = "" if self.reached else proxy_words(self.url)
        by_hand = f"Or save the file by hand as {self.place} and give the same command again."
        return DownloadFailed(
            f"{self.place.name} is missing and could not be downloaded from {shown(self.url)}: {reason}{after}.{stale}",
            hint=f"{proxy}Try again later{here}. {by_hand}",
        )


def _url(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address.strip())
    except httpx.InvalidURL as error:
        raise DataError(f'"{address}" is not an address: {error}.') from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise DataError(
            f'"{shown(url)}" is not an address relish can download from.',
            hint="Give one that begins with http:// or https://, or download it yourself and give its path.",
        )
    return url.copy_with(fragment=None)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().rstrip(".")


# ---- checksums ------------------------------------------------------------------------------------------------------


_NAMES = {"sha1": "SHA-1", "sha256": "SHA-256"}
_DIGITS = {"sha1": 40, "sha256": 64}


def checksums(sha1: str | None, sha256: str | None) -> dict[str, str]:
    """The checksums that are not None, as lower-case digits by algorithm.

    Raises:
        DataError: one of them cannot be a checksum of its kind.
    """
    wanted = {kind: text.strip().lower() for kind, text in (("sha1", sha1), ("sha256", sha256)) if text is not None}
    for kind, text in wanted.items():
        if not re.fullmatch(f"[0-9a-f]{{{_DIGITS[kind]}}}", text):
            raise DataError(f'--{kind} "{text}" is not a {_NAMES[kind]}: it needs {_DIGITS[kind]} digits from 0 to f.')
    return wanted


def mismatch(path: Path, wanted: dict[str, str]) -> str:
    """The checksum that a file should have and does not, in words; empty where all match.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for kind, expected in wanted.items():
                file.seek(0)
                got = hashlib.file_digest(file, kind).hexdigest()
                if got != expected:
                    return f"{_NAMES[kind]} expected {expected}, got {got}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    return ""
