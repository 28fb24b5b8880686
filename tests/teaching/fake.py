"""A stand-in for the server of `relish teach`: its addresses over images in memory, and a "model" that knows colours.

In:   nothing; a test puts images in and sets what learning, training and exports say.
Out:  `teaching()`, a real server with the page, on a port of its own.
Not here: folders, journals, learning. The page's whole story on the real server is in `test_story.py`.
"""

import asyncio
import copy
import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from relish.server.limits import Limits
from relish.server.middleware import SECURITY_HEADERS
from relish.server.server import listening_socket, uvicorn_server

TOKEN = "the-token-of-the-page"  # noqa: S105
TRAYS = ("unlabelled", "removed")
MEDIA = {".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml"}
IDLE = {"phase": "idle", "minutes": 5, "elapsed": 0.0, "left": 0.0, "line": "", "reason": "", "outcome": None}


class Refused(Exception):
    """An answer that is a no."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def drawn(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A noisy picture's bytes: no two seeds give the same."""
    noise = np.random.default_rng(seed).normal(0, 25, (size[1], size[0], 3))
    file = io.BytesIO()
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


RED, BLUE = (190, 60, 60), (60, 60, 190)


class FakeFolder:
    """Images by id, each in a class or a tray, with steps that can be undone."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = {"classes": [], "images": {}, "kept": []}
        self.contents: dict[str, bytes] = {}
        self.past: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.future: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.revision, self.ended, self.session = 0, False, "first"
        self.better: dict[str, Any] = dict(IDLE)
        self.exports: list[dict[str, Any]] = []
        self.final: dict[str, Any] | None = None
        self.more: dict[str, Any] | None = None
        self.phase = "ready"
        self.posts: list[str] = []
        self._homes: tuple[int, dict[bool, str]] = (-1, {})

    # ---- changes --------------------------------------------------------------------------------------------------

    def put(self, name: str, content: bytes, place: str) -> str:
        """An image of the folder, without a step."""
        key = f"{hashlib.sha256(content).hexdigest()[:24]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        self.contents[key] = content
        if place not in (*TRAYS, *self.now["classes"]):
            self.now["classes"] = sorted([*self.now["classes"], place])
        self.now["images"][key] = {"id": key, "name": name, "place": place, "from": "", "test": key[0] in "012"}
        self.revision += 1
        return key

    def step(self, kind: str, count: int = 0, was: str = "", to: str = "") -> None:
        """Remember how it is before a change of it."""
        told = {"kind": kind, "count": count, "from": was, "to": to}
        self.past.append((copy.deepcopy(self.now), told))
        self.future.clear()
        self.revision += 1

    def back(self, here: list[Any], there: list[Any]) -> dict[str, Any]:
        if not here:
            raise Refused(409, "there is nothing to undo.")
        before, told = here.pop()
        there.append((self.now, told))
        self.now = before
        self.revision += 1
        return told

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["name"].strip()
        if name.lower() in {one.lower() for one in self.now["classes"]}:
            raise Refused(409, f'there is a class "{name}" already.')
        self.step("create", to=name)
        self.now["classes"] = sorted([*self.now["classes"], name])
        return {"name": name}

    def rename(self, body: dict[str, Any]) -> dict[str, Any]:
        self.step("rename", was=body["name"], to=body["to"])
        return self._into(body["name"], body["to"])

    def merge(self, body: dict[str, Any]) -> dict[str, Any]:
        self.step("merge", was=body["name"], to=body["into"])
        return self._into(body["name"], body["into"])

    def _into(self, name: str, to: str) -> dict[str, Any]:
        self.now["classes"] = sorted({*self.now["classes"], to} - {name})
        for image in self.now["images"].values():
            image["place"] = to if image["place"] == name else image["place"]
        return {"name": to}

    def delete(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = [key for key, image in self.now["images"].items() if image["place"] == body["name"]]
        self.step("delete", len(ids), body["name"])
        self._place(ids, "removed")
        self.now["classes"].remove(body["name"])
        return {}

    def move(self, body: dict[str, Any]) -> dict[str, Any]:
        self.step("move", len(body["ids"]), to=body.get("to", ""))
        return self._place(body["ids"], body.get("to") or body["tray"])

    def remove(self, body: dict[str, Any]) -> dict[str, Any]:
        self.step("remove", len(body["ids"]))
        return self._place(body["ids"], "removed")

    def restore(self, body: dict[str, Any]) -> dict[str, Any]:
        self.step("restore", len(body["ids"]))
        for key in body["ids"]:
            self.now["images"][key]["place"] = self.now["images"][key]["from"]
        return {}

    def _place(self, ids: list[str], place: str) -> dict[str, Any]:
        for key in ids:
            image = self.now["images"][key]
            image["from"], image["place"] = image["place"], place
        return {"ids": {key: key for key in ids}, "missing": []}

    def keep(self, body: dict[str, Any]) -> dict[str, Any]:
        self.step("decide", len(body["keys"]))
        self.now["kept"] += body["keys"]
        return {}

    def known(self, body: dict[str, Any]) -> dict[str, Any]:
        sums = {hashlib.sha256(self.contents[key]).hexdigest(): one for key, one in self.now["images"].items()}
        found = {one: sums[one] for one in body["sha256"] if one in sums}
        return {"known": {one: {"id": i["id"], "class": i["place"], "tray": ""} for one, i in found.items()}}

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        self.better = {**IDLE, "phase": "running", "elapsed": 1.0, "left": 60.0 * body["minutes"], "line": "epoch 1"}
        return {}

    def stop(self, _: dict[str, Any]) -> dict[str, Any]:
        self.better = {**IDLE, "phase": "stopped"}
        return {}

    def export(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"fake-{body['kind']}.zip"
        made = {"kind": body["kind"], "phase": "ready", "name": name, "bytes": 13_400_000, "reason": ""}
        self.exports = [{**made, "url": f"api/download/{name}", "certificate": {"agree": 64, "of": 64}}]
        return {}

    def finish(self, _: dict[str, Any]) -> dict[str, Any]:
        self.final = {"right": 9, "of": 10, "value": 0.9, "low": 0.6, "high": 0.98, "revision": self.revision}
        return {}

    # ---- what it says ---------------------------------------------------------------------------------------------

    def of(self, place: str) -> list[dict[str, Any]]:
        found = [one for one in list(self.now["images"].values()) if one["place"] == place]
        return sorted(found, key=lambda one: one["name"])

    def guess(self, content: bytes) -> str | None:
        """The class in which this colour is most common."""
        if self._homes[0] != self.revision:
            pairs = [(is_red(self.contents[key]), image["place"]) for key, image in list(self.now["images"].items())]
            known = [pair for pair in pairs if pair[1] not in TRAYS]
            self._homes = (self.revision, {red: place for (red, place), _ in reversed(Counter(known).most_common())})
        return self._homes[1].get(is_red(content))

    def described(self, image: dict[str, Any]) -> dict[str, Any]:
        return {**image, "predicted": self.guess(self.contents[image["id"]]), "probability": 0.93}

    def stamp(self, place: str) -> str:
        return f"{self.revision} {len(self.of(place))}"

    def mistakes(self) -> list[dict[str, Any]]:
        rows = [
            {"key": f"mistake {i['id']}", "kind": "mistake", "class": place, "suggested": i["predicted"], "other": None}
            | {"id": i["id"], "name": i["name"], "probability": 0.97, "other_class": "", "test": i["test"]}
            for place in self.now["classes"]
            for i in map(self.described, self.of(place))
            if i["predicted"] != place and self.learned
        ]
        return [row for row in rows if row["key"] not in self.now["kept"]]

    @property
    def learned(self) -> bool:
        return len(self.now["classes"]) > 1 and all(len(self.of(one)) > 2 for one in self.now["classes"])

    def learning(self) -> dict[str, Any]:
        needs = [{"class": one, "more": 3 - len(self.of(one))} for one in self.now["classes"] if len(self.of(one)) < 3]
        total = sum(len(self.of(one)) for one in self.now["classes"])
        right = total - len(self.mistakes())
        accuracy = {"right": right, "of": total, "value": right / max(1, total), "low": 0.84, "high": 0.96}
        return {
            "phase": self.phase if self.learned else "waiting",
            "queued": 0,
            "done": total,
            "reason": "",
            "needs": needs,
            "needs_classes": max(0, 2 - len(self.now["classes"])),
            "accuracy": accuracy if self.learned else None,
            "per_class": [{**accuracy, "class": one} for one in self.now["classes"]] if self.learned else [],
            "confused": [{"class": "cat", "as": "dog", "count": 2}] if self.learned else [],
            "more": self.more if self.learned else None,
            "strength": 0.01,
            "framing": "squashed and cropped",
            "revision": self.revision,
            "seconds": 0.1,
        }

    def state(self) -> dict[str, Any]:
        lists = {place: {"count": len(self.of(place)), "stamp": self.stamp(place)} for place in TRAYS}
        classes = [
            {"name": one, "count": len(self.of(one)), "stamp": self.stamp(one)}
            | {"test": sum(image["test"] for image in self.of(one))}
            for one in self.now["classes"]
        ]
        return {
            "revision": self.revision,
            "session": self.session,
            "folder": "/home/a/pets",
            "name": "pets",
            "classes": classes,
            **lists,
            "undo": self.past[-1][1] if self.past else None,
            "redo": self.future[-1][1] if self.future else None,
            "learning": self.learning(),
            "queue": {"count": len(self.mistakes()), "stamp": str(self.revision)},
            "final": self.final,
            "better": self.better,
            "exports": self.exports,
            "limits": {"body_bytes": 300_000, "pixels": 50_000_000, "files": 64},
        }

    def upload(self, request: Request, uploads: list[tuple[str, bytes]]) -> dict[str, Any]:
        place = request.query_params.get("class") or request.query_params.get("tray") or "unlabelled"
        results = []
        self.step("add", len(uploads), to=place)
        for name, content in uploads:
            try:
                Image.open(io.BytesIO(content)).load()
            except OSError:
                results.append({"name": name, "status": "refused", "id": "", "class": "", "reason": "not a picture."})
                continue
            key = self.put(name, content, place)
            results.append({"name": name, "status": "added", "id": key, "class": place, "reason": ""})
        return {"results": results}

    def predict(self, _: Request, uploads: list[tuple[str, bytes]]) -> dict[str, Any]:
        if not self.learned:
            raise Refused(409, "there is no model yet.")
        rows = []
        for name, content in uploads:
            said = self.guess(content)
            shares = {one: 0.93 if one == said else 0.07 for one in self.now["classes"]}
            told = {"unsure": False, "unfamiliarity": 0.1, "unknown": "strange" in name, "error": None}
            rows.append({"path": name, "class": said, "probability": 0.93, "probabilities": shares, **told})
        return {"predictions": rows}


@lru_cache(10_000)
def is_red(content: bytes) -> bool:
    """Of a picture, whether it is redder than it is blue."""
    red, _, blue = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=float).mean(axis=(0, 1))
    return bool(red > blue)


def fake_app(folder: FakeFolder) -> Starlette:
    """The addresses of `relish teach` over such a folder."""
    page = files("relish.teaching") / "page"
    environment = Environment(loader=PackageLoader("relish.teaching", "page"), autoescape=True)
    csp = SECURITY_HEADERS["content-security-policy"] + "; media-src 'self' blob:; worker-src 'self'"

    def index(_: Request) -> Response:
        html = environment.get_template("index.html").render(root="./", token=TOKEN)
        return HTMLResponse(html, headers={"content-security-policy": csp})

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        media = MEDIA[Path(name).suffix]
        return Response((page / name).read_bytes(), media_type=media, headers={"cache-control": "no-store"})

    async def told() -> AsyncIterator[str]:
        last = ""
        while not folder.ended:
            now = json.dumps([folder.revision, folder.session, folder.better, folder.exports, folder.final])
            if now != last:
                last = now
                yield f"event: state\ndata: {json.dumps(folder.state())}\n\n"
            await asyncio.sleep(0.05)
        yield "event: bye\ndata: {}\n\n"

    def images(request: Request) -> Response:
        asked = request.query_params
        found = folder.of(asked.get("class") or asked["tray"])
        start = int(asked["offset"])
        rows = [folder.described(one) for one in found[start : start + int(asked["limit"])]]
        return JSONResponse({"stamp": "", "total": len(found), "images": rows})

    def thumb(request: Request) -> Response:
        content = folder.contents[request.path_params["id"]]
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=9999, immutable"})

    def queue(_: Request) -> Response:
        return JSONResponse({"stamp": "", "total": len(folder.mistakes()), "items": folder.mistakes()[:50]})

    def unlabelled(_: Request) -> Response:
        rows = [
            {"id": one["id"], "name": one["name"], "proposed": one["predicted"], "probability": 0.6, "margin": 0.1}
            for one in map(folder.described, folder.of("unlabelled"))
        ]
        return JSONResponse({"stamp": "", "total": len(rows), "rule": "", "items": rows[:50]})

    def command(_: Request) -> Response:
        return JSONResponse({"commands": ["relish fit pets", "relish export runs/pets-auto-1"]})

    def download(_: Request) -> Response:
        return Response(b"a zip", headers={"content-disposition": 'attachment; filename="fake.zip"'})

    def post(path: str, act: Callable[..., dict[str, Any]], uploads: bool = False) -> Route:
        async def respond(request: Request) -> Response:
            if request.headers.get("x-relish-token") != TOKEN:
                return refusal(403, "the token is missing.")
            folder.posts.append(path)
            try:
                if uploads:
                    async with request.form() as form:
                        parts = [(part.filename, await part.read()) for part in form.getlist("files")]  # type: ignore[union-attr]
                    given = (request, parts)
                else:
                    given = (await request.json(),)
                return JSONResponse({"revision": folder.revision, **act(*given)})
            except Refused as refused:
                return refusal(refused.status, str(refused))

        return Route(path, respond, methods=["POST"])

    changes = {"create": folder.create, "rename": folder.rename, "merge": folder.merge, "delete": folder.delete}
    moves = {"move": folder.move, "remove": folder.remove, "restore": folder.restore}
    return Starlette(
        routes=[
            Route("/", index),
            Route("/static/{name}", static),
            Route("/api/events", lambda _: StreamingResponse(told(), media_type="text/event-stream")),
            Route("/api/images", images),
            Route("/api/thumb/{id}", thumb),
            Route("/api/image/{id}", thumb),
            Route("/api/queue", queue),
            Route("/api/unlabelled", unlabelled),
            Route("/api/command", command),
            Route("/api/download/{name}", download),
            Route("/api/explain/{id}", lambda _: JSONResponse({"class": "cat", "overlay": "data:image/png;base64,"})),
            *(post(f"/api/classes/{name}", act) for name, act in changes.items()),
            *(post(f"/api/images/{name}", act) for name, act in moves.items()),
            post("/api/queue/keep", folder.keep),
            post("/api/known", folder.known),
            post("/api/undo", lambda _: {"undone": folder.back(folder.past, folder.future)}),
            post("/api/redo", lambda _: {"redone": folder.back(folder.future, folder.past)}),
            post("/api/upload", folder.upload, uploads=True),
            post("/api/predict", folder.predict, uploads=True),
            post("/api/final", folder.finish),
            post("/api/better/start", folder.start),
            post("/api/better/stop", folder.stop),
            post("/api/better/resume", lambda _: folder.start({"minutes": 5})),
            post("/api/export", folder.export),
        ]
    )


def refusal(status: int, reason: str) -> Response:
    """A no as the real server says it."""
    return JSONResponse({"error": {"status": status, "reason": reason, "hint": ""}}, status)


@contextmanager
def teaching(folder: FakeFolder | None = None) -> Iterator[tuple[str, FakeFolder]]:
    """The address of a running server and what is behind it; both end with the block."""
    folder = folder or FakeFolder()
    taken = listening_socket("127.0.0.1", 0)
    running = uvicorn_server(fake_app(folder), Limits())  # type: ignore[arg-type]
    thread = threading.Thread(target=running.run, kwargs={"sockets": [taken]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/", folder
    finally:
        folder.ended = running.should_exit = True
        thread.join(120)
        taken.close()
        assert not thread.is_alive()


def two_classes(count: int = 20) -> FakeFolder:
    """Cats are red, dogs are blue; one red image lies among the dogs."""
    folder = FakeFolder()
    for number in range(count):
        folder.put(f"cat {number:02}.png", drawn(RED, number), "cat")
        folder.put(f"dog {number:02}.png", drawn(BLUE, 1000 + number), "dog")
    folder.put("astray.png", drawn(RED, 5000), "dog")
    return folder
