"""Who may change something: the page alone, which holds a token of its own; and who may come in from elsewhere.

The server trusts this computer without a token, as `serve` does. Where others are let in, a token of the user's opens
the page once, as `/?token=…`, and a cookie that no script reads and no other site sends keeps it open.
"""

import hmac
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from relish.server.limits import Refusal

TOKEN_HEADER = "x-relish-token"  # noqa: S105 - its name
COOKIE = "relish-teach"
_JSON_BYTES = 4_000_000
"""Of a change, at most: the ids of a hundred thousand images."""


Body = TypeVar("Body", bound=BaseModel)


def json_body(model: type[Body]) -> Callable[[Request], Any]:
    """A dependency that reads a small JSON body: FastAPI's own reads one of any size."""

    async def read(request: Request) -> Body:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "a change is sent as JSON.", hint="Content-Type: application/json")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _JSON_BYTES:
                raise Refusal(413, "the request is too large.")
        try:
            return model.model_validate_json(bytes(body))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the body"
            raise Refusal(422, f"{place}: {first['msg']}.") from None

    return read


class OwnToken:
    """A dependency of what changes something: only the page itself knows the token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def __call__(self, request: Request) -> None:
        """Raises Refusal, 403, where the token is missing or wrong."""
        if not hmac.compare_digest(request.headers.get(TOKEN_HEADER, "").encode(), self._token):
            hint = "Load the page anew: the server has been started again since."
            raise Refusal(403, "only the server's own page may change something.", hint=hint)


class Entry:
    """A middleware that lets nobody in without the user's token: a cookie, `Authorization: Bearer`, or once the link.

    Whoever has it still comes from the page: an Origin that is not this host is refused.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._answer(scope, Headers(scope=scope))
        await (self._app if answer is None else answer)(scope, receive, send)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host", ""):
            return Refusal(403, "another site's page may not ask here.").response()
        sent = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and self._is_right(sent):
            answer = RedirectResponse("./", 303)
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_right(_cookie(headers)) or self._is_right(bearer):
            return None
        hint = "Open the page by the link with the token: /?token=TOKEN"
        return Refusal(401, "the token is missing or not the right one.", hint=hint).response()

    def _is_right(self, sent: str) -> bool:
        return hmac.compare_digest(sent.encode(), self._token.encode())


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
