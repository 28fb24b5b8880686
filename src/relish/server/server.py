"""Run the application: uvicorn, its socket, its connections, its log and its shutdown.

The server runs until SIGTERM or Ctrl-C; then it takes no new request and answers those under way. uvicorn itself waits
without limit for the rest of a request's head, and for the rest of a body that was refused: either would let a slow
sender keep its connection, so `Connection` bounds both.
"""

import asyncio
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from relish.core.errors import BadInput
from relish.server.limits import RETRY_SECONDS, Limits
from relish.server.middleware import LOG, JsonLines


class Connection(H11Protocol):
    """See above; `bounded` sets the limits."""

    limits = Limits()
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection; one too many is told so and closed."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            reason = "the server is busy: too many connections are open."
            self._refuse(503, reason, "Try again in a second.", f"Retry-After: {RETRY_SECONDS}\r\n")
        else:
            self._wait(self.limits.send_seconds, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        """Bytes; the head's time runs from its first one."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """An answer is sent; what is left of the request is thrown away for a while."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._wait(self.limits.send_seconds, self.transport.close)
        else:
            self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        reading_head = self.conn.their_state is h11.IDLE
        begun = reading_head and bool(self.conn.trailing_data[0])
        if begun and self._deadline is None:
            self._wait(self.limits.send_seconds, self._head_is_late)
        elif not reading_head and self.conn.our_state is not h11.DONE:
            self._stop_waiting()

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        if not self.conn.trailing_data[0]:  # a browser that connected ahead, and asks for nothing
            self.transport.close()
            return
        self._refuse(408, "the request comes too slowly.", "Try a faster connection.")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(400, "this is not an HTTP request.", "Ask with http://, and a head below 64 KiB.")

    def _refuse(self, status: int, reason: str, hint: str, extra: str = "") -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": {"status": status, "reason": reason, "hint": hint}})
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n{extra}"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        self.transport.close()


def bounded(limits: Limits) -> type[Connection]:
    """The class for a server with these limits."""
    return type("Connection", (Connection,), {"limits": limits})


DRAIN_SECONDS = 30
"""For requests under way when the end is asked for."""
WAITING = 128
"""Connections that the system holds for us until we take them."""


def run(app: FastAPI, host: str, port: int, limits: Limits, ready: Callable[[str], None]) -> None:
    """Serve until asked to end.

    Args:
        host, port: where to listen; port 0 takes a free one.
        ready: is called once with the address that is listened on.

    Raises:
        BadInput: it cannot be listened there.
    """
    with closing(listening(host, port)) as taken, _log(), _quiet_end():
        ready(_address(host, taken))
        server(app, limits).run(sockets=[taken])


def server(app: FastAPI, limits: Limits) -> uvicorn.Server:
    """uvicorn as we want it, for a socket that listens already."""
    config = uvicorn.Config(
        app,
        http=bounded(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return uvicorn.Server(config)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        BadInput: the port is taken or not allowed, or there is no such host.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
            taken.listen(WAITING)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise BadInput(f"{host} port {port}: cannot listen there ({words}).", hint="Choose another --port.") from None
    return taken


def _address(host: str, taken: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{taken.getsockname()[1]}"


@contextmanager
def _log() -> Iterator[None]:
    """Our lines and uvicorn's warnings, as JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    loggers = [(LOG, logging.INFO), (logging.getLogger("uvicorn.error"), logging.WARNING)]
    for logger, level in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, _ in loggers:
            logger.removeHandler(handler)
            logger.propagate = True


@contextmanager
def _quiet_end() -> Iterator[None]:
    # uvicorn ends well at a signal and then sends it to itself once more, for whoever was there before: nobody is.
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are another thread's matter
        return
    former = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
