"""Downloads, against a server on this computer that misbehaves on purpose."""

import hashlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from relish.core.cache import one_at_a_time
from relish.core.errors import DataError, DownloadFailed, Failed, WriteFailed
from relish.core.progress import Progress
from relish.data import download as module
from relish.data.download import download, kept_at
from tests.conftest import Heard

CONTENT = bytes(range(256)) * 1600  # 400 kB: more than a socket's buffer holds, so that a drop is in the middle
SHA1, SHA256 = hashlib.sha1(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()  # noqa: S324


class Misbehaving(BaseHTTPRequestHandler):
    """Answers every request with the next of the server's `answers`, the last one for ever."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    answers: list[Callable[[Misbehaving], None]]
    asked: list[dict[str, str]]

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the game."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/pictures/hotdog.zip"


def well(content: bytes = CONTENT, etag: str = '"one"', stop: int | None = None, **extra: str):
    """A good server: whole files, or the rest of one where the version asked for is the one it has."""

    def answer(request: Misbehaving) -> None:
        headers = {"ETag": etag, **extra} if etag else dict(extra)
        begin = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if begin and request.headers.get("If-Range", etag) == etag:
            first = int(begin[1])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            send_part(request, 206, headers, content[first:], stop)
        else:
            send_part(request, 200, headers, content, stop)

    return answer


def without_ranges(content: bytes = CONTENT, stop: int | None = None):
    """A server that always sends everything."""
    return lambda request: send_part(request, 200, {"ETag": '"one"'}, content, stop)


def send_part(request: Misbehaving, status: int, headers: dict[str, str], body: bytes, stop: int | None) -> None:
    """Promise all of `body`, and hang up after `stop` bytes of it."""
    request.send(status, {"Content-Length": str(len(body)), **headers}, body[:stop])
    if stop is not None:
        request.close_connection = True


def status(code: int, **headers: str):
    return lambda request: request.send(code, {"Content-Length": "0", **headers})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Misbehaving) as running:
        running.answers, running.asked = [well()], []
        thread = Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)


def left_beside(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir() if path.name != ".lock")


class Counted(Progress):
    """Adds up what the bars were told."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.total = 0
        self.lines: list[str] = []

    def say(self, line: str = "") -> None:
        self.lines.append(line)

    warn = say

    def bar(self, title: str, total: int, done: int = 0):  # type: ignore[no-untyped-def]
        self.total = total
        self.done.append(done)
        return super().bar(title, total, done)


def test_a_file_comes_whole_and_is_asked_for_once(server):
    first = download(server.address, sha1=SHA1)
    assert first.read_bytes() == CONTENT
    assert first.name == "hotdog.zip"
    assert download(server.address, sha1=SHA1) == first
    assert len(server.asked) == 1
    assert left_beside(first) == ["hotdog.zip"]


def test_a_file_put_there_by_hand_is_used_without_a_network(tmp_path):
    place = kept_at("http://nowhere.invalid/hotdog.zip")
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert download("http://nowhere.invalid/hotdog.zip", sha256=SHA256.upper()) == place


def test_a_download_without_a_checksum_tells_the_one_to_give_next_time(server):
    seen = Counted()
    download(server.address, progress=seen)
    assert any(f"--sha256 {SHA256}" in line for line in seen.lines)


def test_the_progress_bar_counts_bytes_from_where_the_last_try_stopped(server):
    server.answers = [well(stop=100_000), well()]
    seen = Counted()
    download(server.address, progress=seen)
    assert seen.total == len(CONTENT)
    assert seen.done == [0, 100_000]


@pytest.mark.parametrize("checked", [True, False])
def test_a_dropped_connection_goes_on_from_where_it_stopped(server, checked):
    server.answers = [well(stop=100_000), well(stop=50_000), well()]
    assert download(server.address, sha1=SHA1 if checked else None).read_bytes() == CONTENT
    assert [asked.get("Range") for asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert server.asked[1]["If-Range"] == '"one"'


def test_without_an_etag_the_date_tells_the_versions_apart(server):
    date = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    server.answers = [well(etag="", stop=100_000, **date), well(etag="", **date)]
    server.answers[1] = lambda request, rest=CONTENT[100_000:]: request.send(
        206, {**date, "Content-Range": f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}"}, rest
    )
    assert download(server.address).read_bytes() == CONTENT
    assert server.asked[1]["If-Range"] == date["Last-Modified"]


@pytest.mark.parametrize(("sha1", "asked"), [(SHA1, "bytes=100000-"), (None, None)])
def test_with_nothing_to_tell_versions_apart_only_a_checksum_allows_going_on(server, sha1, asked):
    server.answers = [well(etag="", stop=100_000), well(etag="")]
    assert download(server.address, sha1=sha1).read_bytes() == CONTENT
    assert server.asked[1].get("Range") == asked


def test_a_server_that_ignores_ranges_starts_over(server):
    server.answers = [without_ranges(stop=100_000), without_ranges()]
    assert download(server.address).read_bytes() == CONTENT
    assert server.asked[1]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("looks_at_if_range", [True, False])
def test_two_versions_of_a_file_are_never_glued_together(server, looks_at_if_range):
    """The second server has another file of the same length, and may send the rest of it unasked."""
    other = CONTENT[::-1]
    rest = {"ETag": '"two"', "Content-Range": f"bytes 100000-{len(other) - 1}/{len(other)}"}
    careless = lambda request: request.send(206, rest, other[100_000:])  # noqa: E731
    second = [] if looks_at_if_range else [careless]
    server.answers = [well(stop=100_000), *second, well(other, etag='"two"')]
    assert download(server.address).read_bytes() == other


def test_a_partial_file_longer_than_the_file_starts_over(server):
    server.answers = [well(stop=100_000), status(416), well()]
    assert download(server.address).read_bytes() == CONTENT


def test_a_wrong_checksum_says_both_and_leaves_nothing(server):
    server.answers = [well(b"another file"), well()]
    with pytest.raises(DownloadFailed, match=f"SHA-1 expected {SHA1}, got [0-9a-f]{{40}}"):
        download(server.address, sha1=SHA1)
    assert left_beside(kept_at(server.address)) == []
    assert download(server.address, sha1=SHA1).read_bytes() == CONTENT
    assert "Range" not in server.asked[1]


def test_a_kept_file_with_another_checksum_is_replaced_and_that_is_said(server):
    server.answers = [well(b"an older version"), well()]
    download(server.address)
    seen = Counted()
    assert download(server.address, sha256=SHA256, progress=seen).read_bytes() == CONTENT
    assert any("is not the file asked for" in line for line in seen.lines)


def test_a_kept_file_with_another_checksum_survives_a_failed_download(server):
    server.answers = [well(b"an older version"), status(404)]
    kept = download(server.address)
    with pytest.raises(DownloadFailed, match="The file there now will not do: SHA-256 expected"):
        download(server.address, sha256=SHA256)
    assert kept.read_bytes() == b"an older version"


def test_a_server_that_promises_more_than_it_sends_is_given_up_after_some_tries(server):
    server.answers = [without_ranges(stop=1000)]
    with pytest.raises(DownloadFailed, match="5 tries"):
        download(server.address)
    assert len(server.asked) == module.TRIES
    assert not kept_at(server.address).exists()


def test_a_rest_of_the_wrong_length_never_becomes_the_file(server):
    headers = {"ETag": '"one"', "Content-Range": f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}"}
    long = lambda request: request.send(206, headers, CONTENT[100_000:] + b"more")  # noqa: E731
    server.answers = [well(stop=100_000), long, well()]
    assert download(server.address).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [403, 404, 410])
def test_an_answer_that_will_not_change_is_not_asked_for_again(server, code):
    server.answers = [status(code)]
    with pytest.raises(DownloadFailed, match=f"answered {code}"):
        download(server.address)
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_passing_trouble_is_waited_out(server, code):
    server.answers = [status(code), well()]
    assert download(server.address).read_bytes() == CONTENT


def test_redirects_are_followed(server):
    server.answers = [status(302, Location="/elsewhere/file"), well()]
    assert download(server.address).name == "hotdog.zip"


@pytest.mark.parametrize("where", ["/again", "ftp://127.0.0.1/file"])
def test_redirects_to_nowhere_end(server, where):
    server.answers = [status(302, Location=where)]
    with pytest.raises(DownloadFailed):
        download(server.address)


def test_without_a_network_the_error_says_where_to_put_the_file():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/hotdog.zip"
        with pytest.raises(DownloadFailed) as caught:
            download(address)
    place = kept_at(address)
    assert caught.value.message.startswith("hotdog.zip is missing and could not be downloaded")
    assert str(place) in caught.value.hint
    place.write_bytes(CONTENT)  # the folder is there already
    assert download(address, sha1=SHA1) == place


def test_a_proxy_that_cannot_be_used_is_said(server, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "nonsense://proxy:1")
    with pytest.raises(DownloadFailed, match="the proxy set in the environment"):
        download(server.address)


def test_secrets_in_an_address_are_not_shown(server):
    server.answers = [status(403)]
    address = server.address.replace("http://", "http://me:hush@") + "?token=hush"
    with pytest.raises(DownloadFailed) as caught:
        download(address)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["ftp://host/file.zip", "file:///etc/passwd", "hotdog.zip", "http://", "http://[::1"]
)
def test_only_web_addresses_are_taken(address):
    with pytest.raises(DataError, match="is not an address"):
        download(address)


@pytest.mark.parametrize("wrong", [{"sha1": SHA256}, {"sha256": SHA1}, {"sha1": "g" * 40}, {"sha1": ""}])
def test_a_checksum_that_cannot_be_one_is_refused_before_anything_is_asked(server, wrong):
    with pytest.raises(DataError, match="digits"):
        download(server.address, **wrong)
    assert server.asked == []


@pytest.mark.parametrize("name", ["a b.zip", "..%2F..%2Fetc", "%2e%2e", "", "x" * 300 + ".zip", "日本.zip"])
def test_a_download_stays_in_its_folder_whatever_its_name(tmp_path, name):
    place = kept_at(f"http://host/{name}", tmp_path)
    assert place.parent.parent == tmp_path
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", place.name)
    assert not place.name.startswith(".")


def test_two_addresses_never_share_a_place():
    places = {kept_at(f"http://{host}/hotdog.zip{query}") for host in "ab" for query in ("", "?v=2")}
    assert len(places) == 4


def test_a_file_larger_than_the_free_space_is_not_begun(server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(WriteFailed, match="are still to come"):
        download(server.address)


def test_a_disk_that_fills_up_keeps_what_has_come(server):
    """A limit on the size of files stands for the disk: writing fails in the middle, as it would there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(WriteFailed, match="cannot write"):
            download(server.address)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not kept_at(server.address).exists()
    assert download(server.address, sha1=SHA1).read_bytes() == CONTENT
    assert server.asked[1]["Range"] == "bytes=200000-"


def test_a_home_that_cannot_be_written_to_is_said(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "file"))
    with pytest.raises(WriteFailed, match="cannot write"):
        download(server.address)


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from relish.core.progress import Bar, Progress
from relish.data.download import download

class Killing(Progress):
    @contextmanager
    def bar(self, title, total, done=0):
        came = done
        class Counting(Bar):
            def advance(self, steps=1, words=""):
                nonlocal came
                came += steps
                if came > 200_000:
                    os.kill(os.getpid(), signal.SIGKILL)
        yield Counting()

download(sys.argv[1], progress=Killing())
"""


def test_a_killed_download_goes_on_at_the_next_call(server):
    killed = subprocess.run([sys.executable, "-c", KILLED, server.address], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not kept_at(server.address).exists()
    assert download(server.address, sha1=SHA1).read_bytes() == CONTENT
    assert int(server.asked[1]["Range"].removeprefix("bytes=").removesuffix("-")) > 100_000


def test_a_kill_before_the_rename_needs_no_network(server):
    """Everything has come; only the name is missing."""
    place = download(server.address)
    partial = module._Partial(place)
    partial.begin(module._Version('"one"', "", len(CONTENT)))
    place.rename(partial.path)
    assert download(server.address, sha1=SHA1) == place
    assert len(server.asked) == 1


def test_several_at_once_download_once(server):
    got: list[Path] = []
    threads = [Thread(target=lambda: got.append(download(server.address, sha1=SHA1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in got] == [True] * 4
    assert len(server.asked) == 1


def test_a_lock_is_let_go_of_when_its_holder_is_killed(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from relish.core.progress import Progress\n"
        "from relish.core.cache import one_at_a_time\n"
        "with one_at_a_time(Path(sys.argv[1]), 'x', Progress()): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False)
    with one_at_a_time(tmp_path / "lock", "x", Progress()) as alone:
        assert alone


def test_a_wait_for_another_process_says_whose_it_is_and_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr("relish.core.cache.WORK_SECONDS", 0.05)
    holder = rf"another process \(process {os.getpid()} on .+\)"
    heard = Heard()
    with (
        one_at_a_time(tmp_path / "lock", "x.zip", Progress()),
        pytest.raises(Failed, match=f"{holder} has been at work on x.zip"),
        one_at_a_time(tmp_path / "lock", "x.zip", heard),
    ):
        raise AssertionError("two at a time")
    assert re.match(f"{holder} is at work on x.zip; waiting for it", heard.lines[0])
