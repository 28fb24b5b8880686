"""The one shape of every answer that is a no.

In:   a status, a reason, what to do next.
Out:  a JSON response `{"error": {"status": 413, "reason": "…", "hint": "…"}}`.
"""

from typing import Any

from fastapi.responses import JSONResponse

RETRY_SECONDS = 1
"""What a busy server asks for; its queue is a second or two long."""


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: HTTP's, 4xx or 5xx.
        reason: what is wrong, in words for the person behind the program.
        hint: what to do next.
        headers: that the status asks for, such as Retry-After.
        predictions: one row a picture, where each has a reason of its own.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        hint: str = "",
        headers: dict[str, str] | None = None,
        predictions: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.hint = hint
        self.headers = headers or {}
        self.predictions = predictions

    def response(self) -> JSONResponse:
        """What is sent."""
        error: dict[str, Any] = {"status": self.status, "reason": self.reason, "hint": self.hint}
        content: dict[str, Any] = {"error": error}
        if self.predictions is not None:
            content["predictions"] = self.predictions
        return JSONResponse(content, self.status, self.headers)


def busy(what: str) -> Refusal:
    """The server has as much to do as it takes."""
    return Refusal(
        503, f"the server is busy: {what}.", hint="Try again in a second.", headers={"Retry-After": str(RETRY_SECONDS)}
    )
