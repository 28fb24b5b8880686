"""One connection: uvicorn's, with a time in which a request's head and its refused body have to come.

In:   bytes from a socket.
Out:  requests for the application, and in plain HTTP what no application is asked about.

uvicorn waits for the rest of a head for as long as it takes, and for the rest of a body that was refused already.
Either would let a slow sender keep its connection.
"""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from relish.serve.limits import Limits
from relish.serve.refusals import RETRY_SECONDS


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
