"""The pages for people: one to try the model, one that says how programs ask.

In:   the application, whose description the second page shows.
Out:  `/`, `/docs` and the files they need, all from this package: no page asks another host for anything.
"""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader

STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def add_pages(app: FastAPI) -> None:
    """Add the routes; they are no part of the description."""
    kept = {name: (files(__package__) / "page" / name).read_bytes() for name in [*STATIC, "index.html"]}
    templates = Environment(loader=PackageLoader(__package__, "page"), autoescape=True, trim_blocks=True)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(kept["index.html"])

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        here = str(request.base_url).rstrip("/")
        return HTMLResponse(templates.get_template("docs.html").render(described=app.openapi(), here=here))

    for name, kind in STATIC.items():
        app.add_api_route(f"/static/{name}", _sends(kept[name], kind), include_in_schema=False)


def _sends(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, headers={"content-type": kind})

    return send
