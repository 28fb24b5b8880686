"""A hub on this computer, as huggingface_hub's client meets it, that can be told to misbehave.

The interface is that of huggingface.co for large files: a request for `REPO/resolve/REVISION/FILE` is redirected to
another host, and the answer carries commit, size and SHA-256. Other paths are files, as torchvision's are.
"""

import hashlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest

COMMIT = "c0ffee" * 6 + "c0ff"
ELSEWHERE = "/elsewhere/"
"""Where the paths of the other host begin; it is this server under another name."""


class Handler(BaseHTTPRequestHandler):
    """Answers with a file, or as the next of its troubles says."""

    server: "Mirror"

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_GET

    def answer(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers))
        path = urlsplit(self.path).path  # a proxy is asked for the whole address
        of_hub = re.fullmatch(r"/(.+?)/resolve/[^/]+/model\.safetensors", path)
        name = of_hub[1] if of_hub else path.removeprefix(ELSEWHERE)
        troubles = self.server.troubles.get((self.command, name), [])
        if troubles:
            troubles.pop(0)(self)
        elif name not in self.server.files:
            self.send(404, {"X-Error-Code": "EntryNotFound"})
        elif of_hub:
            self.redirect(name)
        else:
            self.send_file(self.server.sent.get(name, self.server.files[name]))

    def redirect(self, repo: str) -> None:
        content, token = self.server.files[repo], self.server.gated.get(repo)
        given = self.headers.get("Authorization")
        if token and given != f"Bearer {token}":
            self.send(403 if given else 401, {"X-Error-Code": "GatedRepo"})
            return
        what = {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        self.send(302, {"Location": f"{self.server.elsewhere}{ELSEWHERE}{repo}", "X-Repo-Commit": COMMIT, **what})

    def send_file(self, content: bytes, stop: int | None = None) -> None:
        """Promise a file, or the rest of it, and send the first `stop` bytes of that, or all."""
        begin = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(begin[1]) if begin else 0
        extra = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if begin else {}
        self.send(206 if begin else 200, {"ETag": '"one"', **extra}, content[first:], stop)

    def send(self, status: int, headers: dict[str, str], body: bytes = b"", stop: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:stop])

    def log_message(self, *_: object) -> None:
        pass


Trouble = Callable[[Handler], None]


def answers(status: int, **headers: str) -> Trouble:
    """A request that is answered so, and not served."""
    return lambda request: request.send(status, {name.replace("_", "-"): value for name, value in headers.items()})


def drops_after(count: int, *, reset: bool = False) -> Trouble:
    """A file that ends after so many bytes, by a connection that is closed or, with `reset`, broken."""

    def drop(request: Handler) -> None:
        path = urlsplit(request.path).path
        request.send_file(request.server.files[path.removeprefix(ELSEWHERE)], count)
        request.wfile.flush()
        if reset:
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
        request.close_connection = True

    return drop


class Mirror(ThreadingHTTPServer):
    """The server, what it has, and what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        """By repository, or by path."""
        self.sent: dict[str, bytes] = {}
        """What is sent in place of a file."""
        self.gated: dict[str, str] = {}
        """The token that a repository is shown for."""
        self.troubles: dict[tuple[str, str], list[Trouble]] = {}
        """By method and repository, or path: what the next requests meet."""
        self.asked: list[tuple[str, str, Message]] = []
        """Method, path and headers of every request."""
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.elsewhere = f"http://localhost:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the game."""

    def requests_for(self, name: str, method: str = "GET") -> list[Message]:
        """The headers of every request for a path that ends so."""
        return [headers for kind, path, headers in self.asked if kind == method and path.endswith(name)]


@contextmanager
def running_mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def point_hub_at(address: str, patch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which huggingface_hub reads when it is imported."""
    patch.setattr("huggingface_hub.constants.ENDPOINT", address)
    patch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
