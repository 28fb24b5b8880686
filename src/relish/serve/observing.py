"""What the server tells of itself: metrics for Prometheus, and one line of JSON for each request.

In:   requests as they pass.
Out:  a middleware, the metrics, a logging formatter.

No picture, no token and no query ever stands in a line. Paths in metrics are those of routes: what strangers type makes
no new series.
"""

import json
import logging
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relish.serve.refusals import Refusal

LOG = logging.getLogger("relish.serve")
GONE = 499
"""What a log calls a request whose sender left before its answer, after nginx; it is never sent."""

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
"""On every answer, page or not."""


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter("relish_requests", "Requests.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("relish_request_seconds", "From request to answer.", ["path"], registry=self.registry)
        self.under_way = Gauge("relish_requests_under_way", "Requests without an answer.", registry=self.registry)
        self.pictures = Counter("relish_pictures", "Pictures by outcome.", ["outcome"], registry=self.registry)
        self.batch = Histogram(
            "relish_batch_pictures", "Pictures answered together.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )


class Observed:
    """The outermost middleware: counts, times and logs each request, and turns a failure into words."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passed, began = _Passed(send), time.perf_counter()
        with self._metrics.under_way.track_inprogress():
            await self._answer(scope, receive, passed)
        self._note(scope, passed, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, passed: "_Passed") -> None:
        try:
            await self._app(scope, receive, passed)
        except ClientDisconnect:
            passed.status = GONE
        except Exception:
            LOG.exception("failed", extra={"fields": {"request": passed.request}})
            if passed.status == 0:
                words = Refusal(
                    500, "the server failed at this request.", hint=f"Its log knows more: {passed.request}."
                )
                await words.response()(scope, receive, passed)

    def _note(self, scope: Scope, passed: "_Passed", seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(path, str(passed.status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        client = scope.get("client")
        fields = {
            "request": passed.request,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": path,
            "status": passed.status,
            "seconds": round(seconds, 4),
            **scope.get("state", {}).get("noted", {}),
        }
        LOG.info("request", extra={"fields": fields})


class _Passed:
    """A `send` that keeps the status and adds our headers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.request = uuid.uuid4().hex[:12]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ours = {**SECURITY_HEADERS, "x-request-id": self.request}
            message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in ours.items())]
        await self._send(message)


class JsonLines(logging.Formatter):
    """Each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)
