"""What stands around every request: access control, metrics for Prometheus, and one line of JSON in the log.

Without a token the server trusts this computer only. A web page opened on it could still reach it, under a host name
of its own that resolves to 127.0.0.1 (DNS rebinding) or by a cross-site form: the headers Host and Origin show both.

No image, token or query is ever logged. Paths in metrics are those of routes: an unknown path makes no new series.
"""

import hmac
import ipaddress
import json
import logging
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relish.core.errors import BadInput
from relish.evaluation.prediction import UNLIKE
from relish.server.limits import Refusal

LOG = logging.getLogger("relish.server")
CLIENT_CLOSED_REQUEST = 499
"""Logged status of a request whose client left before the response, as nginx has it; it is never sent."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""On every response, page or not, that does not bring its own."""

SHORTEST_TOKEN = 16
"""Characters; `openssl rand -hex 16` gives 32."""

_BEARER = HTTPBearer(auto_error=False, description="Needed where the server was started with a token.")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this computer only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def valid_token(token: str | None, host: str) -> str | None:
    """The token without surrounding blanks; None where the server needs none.

    Raises:
        BadInput: it is missing and the host needs one, it is too short, or it cannot stand in a header.
    """
    if token is None:
        if is_loopback(host):
            return None
        raise BadInput(
            f"--host {host} lets others in, and needs a token.",
            hint="Put one into RELISH_TOKEN, or into a file for --token-file: openssl rand -hex 16",
        )
    token = token.strip()
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise BadInput(
            f"the token must be {SHORTEST_TOKEN} or more letters, digits and signs without a blank.",
            hint="This makes one: openssl rand -hex 16",
        )
    return token


class BearerToken:
    """A dependency of the routes that need the token.

    Args:
        token: None lets every request pass.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def __call__(self, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        """Raises Refusal, 401, where the token is missing or wrong."""
        if self._token is None:
            return
        if sent is None or not hmac.compare_digest(sent.credentials.encode(), self._token.encode()):
            raise Refusal(
                401,
                "the token is missing." if sent is None else "the token is not the right one.",
                hint="Send it as a header: Authorization: Bearer TOKEN.",
                headers={"WWW-Authenticate": "Bearer"},
            )


class LocalOnly:
    """A middleware that refuses requests whose Host or Origin is not this computer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal.response() if refusal else self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Refusal | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_loopback(_hostname(f"//{host}")):
            return Refusal(
                421, f'this server is not "{host[:80]}".', hint="Open it as http://127.0.0.1, or start it with a token."
            )
        if origin is not None and not is_loopback(_hostname(origin)):
            hint = "Open the server's own page; behind a proxy, start it with a token."
            return Refusal(403, "another site's page may not ask here.", hint=hint)
        return None


def _hostname(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def valid_root_path(text: str) -> str:
    """The prefix as `/relish`, without a slash at its end; empty where there is none.

    Raises:
        BadInput: it is no path, or would have to be written otherwise in an address.
    """
    path = "/".join(["", *filter(None, text.strip().split("/"))])
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", path):
        raise BadInput(
            f'--root-path "{text[:80]}": not a path of letters, digits and . _ ~ -', hint="Such as: --root-path /relish"
        )
    return path


class RootPath:
    """A middleware that gives routes the path they know: no prefix, one slash between parts, none at the end.

    A proxy may take the prefix off or leave it on. `request.state.root` becomes what the addresses in a page begin
    with: the prefix where it is known, else the way up from the page, which holds behind any prefix.

    Args:
        root_path: of `valid_root_path`. No header says it, since a client could send that too.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            path = "/" + scope["path"].lstrip("/")
            below = len(path) - len(path.rstrip("/")) if path != "/" else 0
            path = re.sub("/+", "/", path).rstrip("/")
            if path == self._root or path.startswith(f"{self._root}/"):
                path = path[len(self._root) :]
            scope["root_path"], scope["path"] = self._root, self._root + (path or "/")
            scope.setdefault("state", {})["root"] = f"{self._root}/" if self._root else "../" * below or "./"
        await self._app(scope, receive, send)


class Metrics:
    """The Prometheus metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter("relish_requests", "Requests.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("relish_request_seconds", "From request to answer.", ["path"], registry=self.registry)
        self.under_way = Gauge("relish_requests_under_way", "Requests without an answer.", registry=self.registry)
        self.pictures = Counter("relish_pictures", "Pictures by outcome.", ["outcome"], registry=self.registry)
        self.unknown = Counter("relish_unknown_pictures", f"Answered, though {UNLIKE}.", registry=self.registry)
        self.batch = Histogram(
            "relish_batch_pictures", "Pictures answered together.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )


class RequestLog:
    """The outermost middleware: counts, times and logs each request, and turns an exception into a 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response, began = _Response(send), time.perf_counter()
        with self._metrics.under_way.track_inprogress():
            await self._respond(scope, receive, response)
        self._log(scope, response, time.perf_counter() - began)

    async def _respond(self, scope: Scope, receive: Receive, response: "_Response") -> None:
        try:
            await self._app(scope, receive, response)
        except ClientDisconnect:
            response.status = CLIENT_CLOSED_REQUEST
        except Exception:
            LOG.exception("failed", extra={"fields": {"request": response.request}})
            if response.status == 0:
                refusal = Refusal(
                    500, "the server failed at this request.", hint=f"Its log knows more: {response.request}."
                )
                await refusal.response()(scope, receive, response)

    def _log(self, scope: Scope, response: "_Response", seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(path, str(response.status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        client = scope.get("client")
        fields = {
            "request": response.request,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": path,
            "status": response.status,
            "seconds": round(seconds, 4),
            **scope.get("state", {}).get("log_fields", {}),
        }
        LOG.info("request", extra={"fields": fields})


class _Response:
    """A `send` that records the status and adds our headers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.request = uuid.uuid4().hex[:12]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ours, given = {**SECURITY_HEADERS, "x-request-id": self.request}, {name for name, _ in message["headers"]}
            added = ((name.encode(), value.encode()) for name, value in ours.items() if name.encode() not in given)
            message["headers"] = [*message["headers"], *added]
        await self._send(message)


class JsonFormatter(logging.Formatter):
    """Formats a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
