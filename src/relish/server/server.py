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
from relish.server.middleware import LOG, JsonFormatter

DRAIN_SECONDS = 30
"""For requests in progress at shutdown."""
BACKLOG = 128
"""Connections that the system queues until they are accepted."""


class Connection(H11Protocol):
    """One HTTP/1.1 connection, with time limits; `uvicorn_server` sets them."""

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection; beyond `Limits.connections` it gets 503 and is closed."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            reason = "the server is busy: too many connections are open."
            self._refuse(503, reason, "Try again in a second.", f"Retry-After: {RETRY_SECONDS}\r\n")
        else:
            self._start_timer(self.limits.send_seconds, self._head_timeout)

    def data_received(self, data: bytes) -> None:
        """Received bytes; the time limit of a request's head starts at its first one."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._limit_head()

    def on_response_complete(self) -> None:
        """A response is sent; the rest of the request may come for `Limits.send_seconds` more, and is discarded."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._start_timer(self.limits.send_seconds, self.transport.close)
        else:
            self._limit_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop_timer()
        super().connection_lost(exc)

    def _limit_head(self) -> None:
        reading_head = self.conn.their_state is h11.IDLE
        started = reading_head and bool(self.conn.trailing_data[0])
        if started and self._timer is None:
            self._start_timer(self.limits.send_seconds, self._head_timeout)
        elif not reading_head and self.conn.our_state is not h11.DONE:
            self._stop_timer()

    def _start_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_timeout(self) -> None:
        if not self.conn.trailing_data[0]:  # a browser that connected ahead, and asks for nothing
            self.transport.close()
            return
        self._refuse(408, "the request comes too slowly.", "Try a faster connection.")

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing where a client offers HTTP/2 or a WebSocket, as Java's does each time: HTTP/1.1 answers it."""

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP request."""
        self._refuse(400, "this is not an HTTP request.", "Ask with http://, and a head below 64 KiB.")

    def _refuse(self, status: int, reason: str, hint: str, extra: str = "") -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": {"status": status, "reason": reason, "hint": hint}})
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n{extra}"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        self.transport.close()


def run(app: FastAPI, host: str, port: int, limits: Limits, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        host, port: where to listen; port 0 takes a free one.
        ready: called once with the server's address.

    Raises:
        BadInput: the port is taken or not allowed, or there is no such host.
    """
    with closing(listening_socket(host, port)) as bound, _json_log(), _signals_once():
        ready(_address(host, bound))
        uvicorn_server(app, limits).run(sockets=[bound])


def uvicorn_server(app: FastAPI, limits: Limits) -> uvicorn.Server:
    """A uvicorn server with our connections and our log, for a socket that listens already."""
    config = uvicorn.Config(
        app,
        http=type("Connection", (Connection,), {"limits": limits}),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    app.state.ending = lambda: server.should_exit  # what sends events without end asks it
    return server


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at this address.

    Raises:
        BadInput: the port is taken or not allowed, or there is no such host.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio turns Nagle's algorithm off only where a socket says that it is TCP: else each answer waits 40 ms for
        # the client's delayed acknowledgement of its head.
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise BadInput(f"{host} port {port}: cannot listen there ({words}).", hint="Choose another --port.") from None
    return bound


def _address(host: str, bound: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}"


@contextmanager
def _json_log() -> Iterator[None]:
    """Log our requests and uvicorn's warnings as JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
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
def _signals_once() -> Iterator[None]:
    # uvicorn shuts down at a signal, then raises it again for the handlers that stood before: those do nothing here.
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        ended = signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        previous[signal.SIGHUP] = ended
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
