"""The server as an ASGI application: its routes, their OpenAPI schemas, and the two pages for people.

`create_app` takes a `Model`, `Limits` and the token, and returns a FastAPI application for any ASGI server; sockets,
signals and logging are in `server.py`. The pages need no file from another host.
"""

import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Route

from relish.core.errors import BadInput, ImageError
from relish.evaluation.prediction import UNLIKE, Prediction
from relish.server.batching import Model, Predictor
from relish.server.limits import ConcurrencyLimit, Limits, Refusal
from relish.server.middleware import BearerToken, LocalOnly, Metrics, RequestLog, RootPath
from relish.server.uploads import FORM, JSON, Base64Picture, Upload, read_uploads


class Row(BaseModel):
    """What the model says of one picture; `error` alone stands beside `path` where it could not be opened."""

    model_config = ConfigDict(populate_by_name=True)

    path: str = Field(description="The picture's name as it came, or its place, such as `picture 3`.")
    class_name: str | None = Field(default=None, alias="class", description="The class that is said.")
    probability: float | None = Field(default=None, description="Of that class, 0 to 1.")
    probabilities: dict[str, float] | None = Field(default=None, description="Of every class; they add up to 1.")
    unsure: bool | None = Field(default=None, description="Whether the model would rather not answer.")
    unfamiliarity: float | None = Field(
        default=None,
        description="How unlike all it learned from, 0 to 2, higher is stranger; null: cannot be told.",
    )
    unknown: bool | None = Field(
        default=None, description=f"Whether it is {UNLIKE}: then the probabilities say little of it."
    )
    error: str | None = Field(default=None, description="Why there is no answer.")


class Rows(BaseModel):
    """One row a picture, in the order of the request."""

    predictions: list[Row]


class Problem(BaseModel):
    """Why a request is not answered."""

    status: int
    reason: str
    hint: str = Field(description="What to do next; may be empty.")


class Refused(BaseModel):
    """Every answer that is a no has this shape."""

    error: Problem
    predictions: list[Row] | None = Field(default=None, description="Where each picture has a reason of its own.")


class Taken(BaseModel):
    """What one request may hold."""

    body_bytes: int
    pixels: int = Field(description="Of one picture.")
    files: int


class Known(BaseModel):
    """What the model knows, and what the server takes."""

    model: str
    classes: list[str]
    unsure_below: float | None = Field(description="It is unsure of a class with less probability than this.")
    unknown_above: float | None = Field(description="A picture of more unfamiliarity than this is unknown.")
    explains: bool = Field(description="Whether `/explain` can be asked.")
    limits: Taken


class Health(BaseModel):
    """Whether the server is well; it is where it can say so."""

    status: str
    waiting: int = Field(description="Pictures without an answer yet.")


class Overlay(BaseModel):
    """Where in a picture the model sees a class."""

    path: str
    class_name: str = Field(alias="class")
    overlay: str = Field(description="A PNG of the picture as the model saw it, as a data: address.")


_FORM_SCHEMA = {
    "type": "object",
    "required": ["files"],
    "properties": {"files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
}
_JSON_SCHEMA = {
    "type": "object",
    "required": ["pictures"],
    "properties": {"pictures": {"type": "array", "minItems": 1, "items": Base64Picture.model_json_schema()}},
}
IMAGES_IN: dict[str, Any] = {
    "requestBody": {"required": True, "content": {FORM: {"schema": _FORM_SCHEMA}, JSON: {"schema": _JSON_SCHEMA}}}
}
"""The request body's OpenAPI schema, by hand: FastAPI would read the whole body to derive one, `uploads` does not."""

_REFUSALS = {
    400: "The body is damaged.",
    401: "The token is missing or wrong.",
    403: "Another site's page asked.",
    408: "The body comes too slowly.",
    413: "Too many bytes, or too many pictures.",
    415: "Neither a form nor JSON.",
    421: "The Host is another one.",
    422: "No picture in it could be read; each has its reason.",
    500: "The server failed.",
    503: "Too much is under way; Retry-After says when to come again.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for its OpenAPI description."""
    return {status: {"model": Refused, "description": _REFUSALS[status]} for status in statuses}


ANY_ROUTE = (403, 421, 500)
WITH_TOKEN = (401, *ANY_ROUTE)
WITH_IMAGES = (400, 408, 413, 415, 422, 503, *WITH_TOKEN)


class Service:
    """What the routes share: model, limits, metrics, predictor."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.metrics = Metrics()
        self.concurrency = ConcurrencyLimit(limits)
        self.predictor = Predictor(model, limits, self.metrics)

    @asynccontextmanager
    async def uploads(self, request: Request) -> AsyncIterator[list[Upload]]:
        """The images of a request, which counts as in progress until the end of the block."""
        with self.concurrency.request() as held:
            uploads = await read_uploads(request, self.limits, held)
            request.state.log_fields = {"pictures": len(uploads), "bytes": held.count}
            yield uploads


def create_app(model: Model, limits: Limits | None = None, token: str | None = None, root_path: str = "") -> FastAPI:
    """The application.

    Args:
        model: predicts.
        limits: None takes the defaults of `Limits`.
        token: needed by all routes but the pages and `/health`; None accepts requests from this computer only.
        root_path: the prefix behind a proxy, of `valid_root_path`; empty: none.

    Raises:
        BadInput: the prefix is a path of the server's own.
    """
    service = Service(model, limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.predictor.running():
            yield

    app = FastAPI(
        title="relish",
        version=version("relish-vision"),
        summary=f"Says the class of pictures: {len(model.classes)} classes, from {model.name}.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # `RootPath` takes them off; a redirect would lose the prefix, and often the body
    )
    add_refusals(app)
    _add_routes(app, service, BearerToken(token))
    add_pages(app)
    _answer_head(app)
    _refuse_own(app, root_path)
    app.add_middleware(RootPath, root_path=root_path)
    if token is None:
        app.add_middleware(LocalOnly)
    app.add_middleware(RequestLog, metrics=service.metrics)
    return app


def _answer_head(app: FastAPI) -> None:
    """Answer HEAD wherever GET is answered; the OpenAPI description omits it."""
    for route in [route for route in app.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())]:
        app.add_api_route(
            route.path, route.endpoint, methods=["HEAD"], dependencies=route.dependencies, include_in_schema=False
        )


def _refuse_own(app: FastAPI, root_path: str) -> None:
    own = [route.path for route in app.routes if isinstance(route, Route)]
    if root_path and any(f"{path}/".startswith(f"{root_path}/") for path in own):
        raise BadInput(f"--root-path {root_path} is a path of the server's own.", hint="Such as: --root-path /relish")


def _add_routes(app: FastAPI, service: Service, bearer: BearerToken) -> None:
    guarded = [Depends(bearer)]

    @app.post(
        "/predict",
        response_description="One row a picture.",
        dependencies=guarded,
        openapi_extra=IMAGES_IN,
        response_model=Rows,
        responses=refusals(*WITH_IMAGES),
    )
    async def predict(request: Request) -> JSONResponse:
        """Say the class of one or several pictures. A bad one among good ones has a row with its error."""
        async with service.uploads(request) as uploads:
            rows = await service.predictor.predict(uploads)
        if all(row.error is not None for row in rows):
            raise _none_readable(rows)
        return JSONResponse({"predictions": [row.as_json() for row in rows]})

    if service.model.explains:
        _add_explain(app, service, guarded)

    @app.get(
        "/classes",
        response_description="What it knows.",
        dependencies=guarded,
        response_model=Known,
        responses=refusals(*WITH_TOKEN),
    )
    async def classes() -> JSONResponse:
        """What the model knows, and what one request may hold."""
        model, limits = service.model, service.limits
        taken = {"body_bytes": limits.body_bytes, "pixels": limits.pixels, "files": limits.files}
        bounds = {"unsure_below": model.decision.unsure_below, "unknown_above": model.decision.unknown_above}
        known = {"model": model.name, "classes": model.classes, **bounds}
        return JSONResponse({**known, "explains": model.explains, "limits": taken})

    @app.get("/health", response_description="It is well.", response_model=Health, responses=refusals(*ANY_ROUTE))
    async def health() -> JSONResponse:
        """Whether the server is well."""
        return JSONResponse({"status": "ok", "waiting": service.predictor.pending})

    @app.get(
        "/metrics",
        response_description="The counters, as text.",
        dependencies=guarded,
        responses=refusals(*WITH_TOKEN),
        response_class=Response,
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(service.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})


def _add_explain(app: FastAPI, service: Service, guarded: list[Any]) -> None:
    @app.post(
        "/explain",
        response_description="The overlay.",
        dependencies=guarded,
        openapi_extra=IMAGES_IN,
        response_model=Overlay,
        responses=refusals(*WITH_IMAGES),
    )
    async def explain(request: Request, class_name: str) -> JSONResponse:
        """Where in one picture the model sees a class (Grad-CAM)."""
        if class_name not in service.model.classes:
            raise Refusal(422, f'the model does not know the class "{class_name[:80]}".', hint="/classes lists them.")
        async with service.uploads(request) as uploads:
            if len(uploads) != 1:
                raise Refusal(422, "one picture at a time is explained.")
            try:
                overlay = await service.predictor.explain(uploads[0], class_name)
            except ImageError as error:
                raise _none_readable([Prediction(error.name, error=error.reason)]) from None
        png = io.BytesIO()
        overlay.save(png, "PNG")
        address = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        return JSONResponse({"path": uploads[0].name, "class": class_name, "overlay": address})


def _none_readable(rows: list[Prediction]) -> Refusal:
    reason = f"{rows[0].path}: {rows[0].error}" if len(rows) == 1 else f"none of {len(rows)} pictures can be read."
    return Refusal(422, reason, predictions=[row.as_json() for row in rows])


def add_refusals(app: FastAPI) -> None:
    """Answer every error with the JSON of a `Refusal`."""

    @app.exception_handler(Refusal)
    async def refusal_response(_: Request, refusal: Refusal) -> Response:
        return refusal.response()

    @app.exception_handler(RequestValidationError)
    async def invalid_request(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return Refusal(
            422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", hint="/docs says what is."
        ).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        reasons = {404: f"there is nothing at {request.url.path[:80]}.", 405: f"{request.method} is not answered here."}
        reason = reasons.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # two routes, of which Starlette names the first
        return Refusal(error.status_code, reason, hint="/docs says what is.", headers=headers).response()


STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def add_pages(app: FastAPI) -> None:
    """Add the pages for people and their static files, which the OpenAPI description omits."""
    content = {name: (files(__package__) / "page" / name).read_bytes() for name in STATIC}
    templates = Environment(loader=PackageLoader(__package__, "page"), autoescape=True, trim_blocks=True)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return HTMLResponse(templates.get_template("index.html").render(root=request.state.root))

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        template = templates.get_template("docs.html")
        page = template.render(described=app.openapi(), here=_here(request), root=request.state.root)
        return HTMLResponse(page)

    for name, media_type in STATIC.items():
        app.add_api_route(f"/static/{name}", _static(content[name], media_type), include_in_schema=False)


def _here(request: Request) -> str:
    """The server's address as its client knows it; whether a proxy has it by https decides over that word alone."""
    https = request.headers.get("x-forwarded-proto") == "https"
    return str(request.base_url.replace(scheme="https") if https else request.base_url).rstrip("/")


def _static(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, headers={"content-type": media_type})

    return send
