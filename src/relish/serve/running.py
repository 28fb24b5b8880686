"""Run the server: its socket, its log, its end.

In:   the application and where to listen.
Out:  answers, until the system (SIGTERM) or a person (Ctrl-C) asks for the end: no new request is taken then, those
      under way are answered.
"""

import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import uvicorn
from fastapi import FastAPI

from relish.core.errors import BadInput
from relish.serve.connection import bounded
from relish.serve.limits import Limits
from relish.serve.observing import LOG, JsonLines

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
