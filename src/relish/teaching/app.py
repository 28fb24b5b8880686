"""The page's server as an ASGI application: routes over a folder and what is learned from it, and a stream of events.

Whoever may ask is settled by the middleware that `serve` has: without a token of its own the server trusts this
computer alone, and the headers Host and Origin keep other sites' pages out. Whatever changes something also needs the
page's token, which no other page can read.
"""

import asyncio
import base64
import io
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from relish.core.errors import BadInput, ImageError, RelishError
from relish.evaluation.prediction import Prediction
from relish.server.app import add_refusals
from relish.server.limits import ConcurrencyLimit, Limits, Refusal
from relish.server.middleware import SECURITY_HEADERS, LocalOnly, Metrics, RequestLog, RootPath
from relish.server.uploads import Upload, read_uploads
from relish.teaching.access import Body, Entry, OwnToken, json_body
from relish.teaching.library import Conflict
from relish.teaching.session import Session
from relish.teaching.shelves import SIZES, UNLABELLED, WHOLE, Image, thumbnail

LIMITS = Limits(body_bytes=100_000_000, held_bytes=400_000_000, files=64)
"""Larger than those of `serve`: a zip may come whole."""
_LOOKS = 0.2
"""Seconds between two looks at whether there is something to tell."""
_PING = 15.0
"""Seconds after which a stream without news says that it lives."""
_MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_CSP = f"{SECURITY_HEADERS['content-security-policy']}; media-src 'self' blob:; worker-src 'self'"
_FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}


class Name(BaseModel):
    """Of a class."""

    name: str = Field(max_length=1000)


class Renamed(Name):
    """A class, and its new name."""

    to: str = Field(max_length=1000)


class Merged(Name):
    """A class, and the one that takes its images."""

    into: str


class Ids(BaseModel):
    """Of images."""

    ids: list[str] = Field(max_length=100_000)


class Moved(Ids):
    """Images, and where they go: a class or the unlabelled ones."""

    to: str | None = None
    tray: str | None = Field(default=None, pattern="^unlabelled$")


class Keys(BaseModel):
    """Of suspicions that are none."""

    keys: list[str] = Field(max_length=10_000)


class Contents(BaseModel):
    """SHA-256 of files."""

    sha256: list[str] = Field(max_length=1000)


class Minutes(BaseModel):
    """How long making better may take."""

    minutes: float = Field(ge=1, le=600)


class Wanted(BaseModel):
    """What is to be taken away."""

    kind: str = Field(pattern="^(run|onnx|web)$")


class Nothing(BaseModel):
    """A request that says all by its address."""


def create_app(
    session: Session, limits: Limits = LIMITS, token: str | None = None, entry: str | None = None
) -> FastAPI:
    """The application.

    Args:
        session: what is served; started and closed with the application.
        token: the page's own; None draws one.
        entry: what lets others in; None: this computer alone is let in.
    """
    token = token or secrets.token_urlsafe(24)
    metrics = Metrics()
    session.prepare(limits, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with session.running():
            yield

    app = FastAPI(title="relish teach", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.ending = lambda: False
    add_refusals(app)

    @app.exception_handler(RelishError)
    async def in_words(_: Request, error: RelishError) -> Response:
        status = 409 if isinstance(error, Conflict) else 400 if isinstance(error, BadInput) else 500
        return Refusal(status, error.message, hint=error.hint).response()

    guarded = [Depends(OwnToken(token))]
    _add_page(app, token)
    _add_views(app, session)
    _add_changes(app, session, guarded)
    _add_uploads(app, session, guarded, ConcurrencyLimit(limits))
    _add_work(app, session, guarded)
    app.add_middleware(RootPath, root_path="")
    if entry is None:
        app.add_middleware(LocalOnly)
    else:
        app.add_middleware(Entry, token=entry)
    app.add_middleware(RequestLog, metrics=metrics)
    return app


def _add_page(app: FastAPI, token: str) -> None:
    folder = Path(__file__).parent / "page"
    templates = Environment(loader=FileSystemLoader(folder), autoescape=True)

    @app.get("/")
    def page(request: Request) -> Response:
        html = templates.get_template("index.html").render(root=request.state.root, token=token)
        return HTMLResponse(html, headers={"content-security-policy": _CSP})

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        suffix = Path(name).suffix
        file = folder / name
        if suffix not in _MEDIA or not re.fullmatch(r"[a-z0-9_-][a-z0-9_.-]*", name) or not file.is_file():
            raise Refusal(404, f"there is nothing at /static/{name[:80]}.")
        return Response(file.read_bytes(), headers={"content-type": _MEDIA[suffix]})


def _add_views(app: FastAPI, session: Session) -> None:
    @app.get("/api/state")
    def state() -> dict[str, Any]:
        return session.state()

    @app.get("/api/events")
    async def events() -> StreamingResponse:
        return StreamingResponse(_events(app, session), media_type="text/event-stream")

    @app.get("/api/images")
    def images(
        class_name: Annotated[str | None, Query(alias="class")] = None,
        tray: str | None = None,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=5000)] = 5000,
    ) -> dict[str, Any]:
        return session.images(class_name, tray, offset, limit)

    @app.get("/api/thumb/{image_id}")
    def thumb(image_id: str, size: int = SIZES[1]) -> Response:
        return _picture(session.image(image_id), session, size)

    @app.get("/api/image/{image_id}")
    def whole(image_id: str) -> Response:
        return _picture(session.image(image_id), session, WHOLE)

    @app.get("/api/queue")
    def queue(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> dict[str, Any]:
        return session.queue(limit)

    @app.get("/api/unlabelled")
    def unlabelled(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> dict[str, Any]:
        return session.unlabelled(limit)

    @app.get("/api/command")
    def command() -> dict[str, Any]:
        return {"commands": session.commands()}

    @app.get("/api/download/{name}")
    def download(name: str) -> Response:
        return FileResponse(session.takeaway.file(name), filename=name)


def _picture(image: Image, session: Session, size: int) -> Response:
    try:
        content = thumbnail(session.library.folder / image.path, image.state, size)
    except ImageError as error:
        raise Refusal(422, f"{image.name}: {error.reason}") from None
    return Response(content, headers={"content-type": "image/webp", **_FOR_EVER})


async def _events(app: FastAPI, session: Session) -> AsyncIterator[str]:
    """The state, again whenever it has changed; until the client leaves or the server ends."""
    told, silent = -1, 0.0
    while not app.state.ending():
        if told != session.version:
            told, silent = session.version, 0.0
            yield f"event: state\ndata: {json.dumps(await run_in_threadpool(session.state))}\n\n"
        elif silent >= _PING:
            silent = 0.0
            yield "event: ping\ndata: {}\n\n"
        await asyncio.sleep(_LOOKS)
        silent += _LOOKS
    yield "event: bye\ndata: {}\n\n"


def _add_post(
    app: FastAPI,
    session: Session,
    guarded: list[Any],
    path: str,
    model: type[Body],
    do: Callable[[Body], dict[str, Any]],
) -> None:
    """A route that does something with a small JSON body, of which every tab is told."""

    async def respond(body: Annotated[Any, Depends(json_body(model))]) -> JSONResponse:
        answer = await run_in_threadpool(do, body)
        session.changed()
        return JSONResponse(answer)

    app.post(f"/api/{path}", dependencies=guarded)(respond)


def _add_changes(app: FastAPI, session: Session, guarded: list[Any]) -> None:
    library = session.library

    def change(path: str, model: type[Body], do: Callable[[Body], dict[str, Any]]) -> None:
        def done(body: Body) -> dict[str, Any]:
            answer = do(body)
            return {"revision": library.revision, **answer}

        _add_post(app, session, guarded, path, model, done)

    def moved(found: tuple[dict[str, str], list[str]]) -> dict[str, Any]:
        return {"ids": found[0], "missing": found[1]}

    def to_place(body: Moved) -> dict[str, Any]:
        if (body.to is None) == (body.tray is None):
            raise Refusal(422, "either to or tray says where images go.")
        return moved(library.move(body.ids, UNLABELLED if body.to is None else body.to))

    def kept(body: Keys) -> dict[str, Any]:
        library.keep(body.keys)
        return {}

    change("classes/create", Name, lambda body: {"name": library.create(body.name)})
    change("classes/rename", Renamed, lambda body: {"name": library.rename(body.name, body.to)})
    change("classes/merge", Merged, lambda body: {"ids": library.merge(body.name, body.into)})
    change("classes/delete", Name, lambda body: {"ids": library.delete(body.name)})
    change("images/move", Moved, to_place)
    change("images/remove", Ids, lambda body: moved(library.remove(body.ids)))
    change("images/restore", Ids, lambda body: moved(library.restore(body.ids)))
    change("queue/keep", Keys, kept)
    change("undo", Nothing, lambda _: {"undone": library.undo().shown})
    change("redo", Nothing, lambda _: {"redone": library.redo().shown})
    change("known", Contents, lambda body: {"known": session.known(body.sha256)})


def _add_uploads(app: FastAPI, session: Session, guarded: list[Any], concurrency: ConcurrencyLimit) -> None:
    @asynccontextmanager
    async def uploaded(request: Request) -> AsyncIterator[list[Upload]]:
        with concurrency.request() as held:
            yield await read_uploads(request, concurrency.limits, held)

    @app.post("/api/upload", dependencies=guarded)
    async def upload(
        request: Request,
        class_name: Annotated[str | None, Query(alias="class", max_length=1000)] = None,
        tray: Annotated[str | None, Query(pattern="^unlabelled$")] = None,
        batch: Annotated[str, Query(max_length=100)] = "",
    ) -> JSONResponse:
        place = UNLABELLED if tray else class_name
        async with uploaded(request) as uploads:
            results = await run_in_threadpool(session.add, uploads, place, batch)
        session.changed()
        return JSONResponse({"revision": session.library.revision, "results": results})

    @app.post("/api/predict", dependencies=guarded)
    async def predict(request: Request) -> JSONResponse:
        _require_model(session)
        async with uploaded(request) as uploads:
            rows = await session.predictor.predict(uploads)
        return JSONResponse({"predictions": [{**_UNTOLD, **row.as_json()} for row in rows]})

    @app.post("/api/explain", dependencies=guarded)
    async def explain(request: Request, class_name: Annotated[str, Query(alias="class")]) -> JSONResponse:
        async with uploaded(request) as uploads:
            return await _explained(session, uploads[0], class_name)

    @app.get("/api/explain/{image_id}")
    async def explain_own(image_id: str, class_name: Annotated[str, Query(alias="class")]) -> JSONResponse:
        path = session.library.folder / session.image(image_id).path
        return await _explained(session, Upload(path.name, await run_in_threadpool(path.read_bytes)), class_name)


_UNTOLD = dict.fromkeys(("class", "probability", "probabilities", "unsure", "unfamiliarity", "unknown", "error"))


def _require_model(session: Session) -> None:
    if session.learner.solved is None:
        raise Conflict("there is no model yet.", hint="Two classes with a few pictures each make one.")


async def _explained(session: Session, upload: Upload, class_name: str) -> JSONResponse:
    _require_model(session)
    if class_name not in session.model.classes:
        raise Refusal(422, f'the model does not know the class "{class_name[:80]}".')
    try:
        overlay = await session.predictor.explain(upload, class_name)
    except ImageError as error:
        raise Refusal(422, f"{upload.name}: {error.reason}", predictions=[Prediction(upload.name).as_json()]) from None
    png = io.BytesIO()
    overlay.save(png, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    return JSONResponse({"class": class_name, "overlay": address})


def _add_work(app: FastAPI, session: Session, guarded: list[Any]) -> None:
    add = partial(_add_post, app, session, guarded)

    def better(do: Callable[[], None]) -> dict[str, Any]:
        do()
        return {"better": session.better.state()}

    def export(body: Wanted) -> dict[str, Any]:
        session.takeaway.make(body.kind)
        return {"exports": session.takeaway.state()}

    add("final", Nothing, lambda _: {"final": session.final()})
    add("better/start", Minutes, lambda body: better(lambda: session.better.start(body.minutes)))
    add("better/stop", Nothing, lambda _: better(session.better.stop))
    add("better/resume", Nothing, lambda _: better(session.better.resume))
    add("export", Wanted, export)
