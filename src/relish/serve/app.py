"""The server as an ASGI application: its routes, and what stands before them.

In:   a `Model`, `Limits`, the token if there is one.
Out:  a FastAPI application, for any ASGI server.
Not here: sockets, signals and the log's place (`running.py`).
"""

import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from relish.core.errors import ImageError
from relish.evaluation.prediction import Prediction
from relish.serve import documents as d
from relish.serve.access import Bearer, FromHere
from relish.serve.admission import Admission
from relish.serve.answering import Answering
from relish.serve.limits import Limits
from relish.serve.model import Model
from relish.serve.observing import Metrics, Observed
from relish.serve.pages import add_pages
from relish.serve.refusals import Refusal
from relish.serve.uploads import Upload, read_uploads


class Service:
    """What the routes share."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.metrics = Metrics()
        self.admission = Admission(limits)
        self.answering = Answering(model, limits, self.metrics)

    @asynccontextmanager
    async def uploads(self, request: Request) -> AsyncIterator[list[Upload]]:
        """The request's pictures, with a seat for it until the end of the block."""
        with self.admission.seat() as seat:
            found = await read_uploads(request, self.limits, seat)
            request.state.noted = {"pictures": len(found), "bytes": seat.held}
            yield found


def create_app(model: Model, limits: Limits | None = None, token: str | None = None) -> FastAPI:
    """The application.

    Args:
        model: who answers.
        limits: by default those of `Limits`.
        token: asked for where pictures are taken; None trusts this computer, and nobody else.
    """
    service = Service(model, limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.answering.running():
            yield

    app = FastAPI(
        title="relish",
        version=version("relish-vision"),
        summary=f"Says the class of pictures: {len(model.classes)} classes, from {model.name}.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    _add_refusals(app)
    _add_routes(app, service, Bearer(token))
    add_pages(app)
    if token is None:
        app.add_middleware(FromHere)
    app.add_middleware(Observed, metrics=service.metrics)
    return app


def _add_routes(app: FastAPI, service: Service, bearer: Bearer) -> None:
    guarded = [Depends(bearer)]

    @app.post(
        "/predict",
        response_description="One row a picture.",
        dependencies=guarded,
        openapi_extra=d.PICTURES_IN,
        response_model=d.Rows,
        responses=d.noes(*d.WITH_PICTURES),
    )
    async def predict(request: Request) -> JSONResponse:
        """Say the class of one or several pictures. A bad one among good ones has a row with its error."""
        async with service.uploads(request) as uploads:
            rows = await service.answering.rows(uploads)
        if all(row.error is not None for row in rows):
            raise _none_readable(rows)
        return JSONResponse({"predictions": [row.as_json() for row in rows]})

    if service.model.explains:
        _add_explain(app, service, guarded)

    @app.get(
        "/classes",
        response_description="What it knows.",
        dependencies=guarded,
        response_model=d.Known,
        responses=d.noes(*d.WITH_TOKEN),
    )
    async def classes() -> JSONResponse:
        """What the model knows, and what one request may hold."""
        model, limits = service.model, service.limits
        taken = {"body_bytes": limits.body_bytes, "pixels": limits.pixels, "files": limits.files}
        known = {"model": model.name, "classes": model.classes, "unsure_below": model.decision.unsure_below}
        return JSONResponse({**known, "explains": model.explains, "limits": taken})

    @app.get("/health", response_description="It is well.", response_model=d.Health, responses=d.noes(*d.ANY_ROUTE))
    async def health() -> JSONResponse:
        """Whether the server is well."""
        return JSONResponse({"status": "ok", "waiting": service.answering.waiting})

    @app.get(
        "/metrics",
        response_description="The counters, as text.",
        dependencies=guarded,
        responses=d.noes(*d.WITH_TOKEN),
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
        openapi_extra=d.PICTURES_IN,
        response_model=d.Overlay,
        responses=d.noes(*d.WITH_PICTURES),
    )
    async def explain(request: Request, class_name: str) -> JSONResponse:
        """Where in one picture the model sees a class (Grad-CAM)."""
        if class_name not in service.model.classes:
            raise Refusal(422, f'the model does not know the class "{class_name[:80]}".', hint="/classes lists them.")
        async with service.uploads(request) as uploads:
            if len(uploads) != 1:
                raise Refusal(422, "one picture at a time is explained.")
            try:
                overlay = await service.answering.overlay(uploads[0], class_name)
            except ImageError as error:
                raise _none_readable([Prediction(error.name, error=error.reason)]) from None
        png = io.BytesIO()
        overlay.save(png, "PNG")
        address = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        return JSONResponse({"path": uploads[0].name, "class": class_name, "overlay": address})


def _none_readable(rows: list[Prediction]) -> Refusal:
    words = f"{rows[0].path}: {rows[0].error}" if len(rows) == 1 else f"none of {len(rows)} pictures can be read."
    return Refusal(422, words, predictions=[row.as_json() for row in rows])


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return refusal.response()

    @app.exception_handler(RequestValidationError)
    async def not_understood(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return Refusal(
            422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", hint="/docs says what is."
        ).response()

    @app.exception_handler(HTTPException)
    async def not_ours(request: Request, error: HTTPException) -> Response:
        words = {404: f"there is nothing at {request.url.path[:80]}.", 405: f"{request.method} is not answered here."}
        reason = words.get(error.status_code, str(error.detail))
        return Refusal(
            error.status_code, reason, hint="/docs says what is.", headers=dict(error.headers or {})
        ).response()
