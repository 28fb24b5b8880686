"""Who may ask: whoever sits at this computer, and elsewhere whoever has the token.

In:   the token, or None where the server listens on this computer alone.
Out:  a dependency that asks for the token, and a middleware that looks at where a browser's request comes from.

Without a token the server trusts this computer. A web page opened on it could still reach it, under a name of its own
that leads to 127.0.0.1 (DNS rebinding) or by a form sent across: Host and Origin give both away.
"""

import hmac
import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from relish.core.errors import BadInput
from relish.serve.refusals import Refusal

SHORTEST_TOKEN = 16
"""Characters; `openssl rand -hex 16` gives 32."""

_bearer = HTTPBearer(auto_error=False, description="Needed where the server was started with a token.")


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this computer alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def checked_token(token: str | None, host: str) -> str | None:
    """The token without what surrounds it.

    Raises:
        BadInput: there is none and the host needs one, or it is too short or cannot stand in a header.
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


class Bearer:
    """A dependency of the routes that answer.

    Args:
        token: None asks for nothing.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def __call__(self, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
        """Raises Refusal, 401, where the token is missing or another."""
        if self._token is None:
            return
        if given is None or not hmac.compare_digest(given.credentials.encode(), self._token.encode()):
            raise Refusal(
                401,
                "the token is missing." if given is None else "the token is not the right one.",
                hint="Send it as a header: Authorization: Bearer TOKEN.",
                headers={"WWW-Authenticate": "Bearer"},
            )


class FromHere:
    """A middleware: requests whose Host or Origin is not this computer are refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal.response() if refusal else self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Refusal | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_loopback(_hostname(f"//{host}")):
            return Refusal(
                421, f'this server is not "{host[:80]}".', hint="Open it as http://127.0.0.1, or start it with a token."
            )
        if origin is not None and not is_loopback(_hostname(origin)):
            return Refusal(403, "another site's page may not ask here.", hint="Open the server's own page.")
        return None


def _hostname(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
