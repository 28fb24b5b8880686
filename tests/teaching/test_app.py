"""The page's server: what it tells, what it changes, and whom it refuses."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from relish.data import archive
from relish.server.limits import Limits
from relish.teaching.app import create_app
from relish.teaching.session import Session
from relish.teaching.solving import FIRST_STRENGTH
from tests.conftest import COLOURS

TOKEN = "the page's own token"  # noqa: S105
HANG = 120.0
"""Seconds after which whatever is waited for does not come any more."""
LIMITS = Limits(body_bytes=400_000, pixels=100_000, files=40)


def picture(name: str, seed: int) -> bytes:
    """A noisy picture of a colour."""
    noise = np.random.default_rng(seed).normal(0, 40, (32, 40, 3))
    file = io.BytesIO()
    Image.fromarray((np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def form(name: str, seeds: range) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{name}-{seed}.png", picture(name, seed))) for seed in seeds]


class Page:
    """A page that is open on a folder."""

    def __init__(self, client: TestClient, session: Session) -> None:
        self.client, self.session, self.folder = client, session, session.library.folder

    def get(self, path: str, **query: object) -> dict:
        answer = self.client.get(f"/api/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **body: object) -> dict:
        answer = self.client.post(f"/api/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def upload(self, files: list, **query: str) -> list[dict]:
        answer = self.client.post("/api/upload", params=query, files=files)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]

    def until(self, true: Callable[[dict], object]) -> dict:
        """The state, once this is true of it."""
        end = time.monotonic() + HANG
        while not true(state := self.get("state")):
            assert time.monotonic() < end, json.dumps(state, indent=1)
            time.sleep(0.02)
        return state

    def ids(self, class_name: str) -> dict[str, str]:
        return {row["name"]: row["id"] for row in self.get("images", **{"class": class_name})["images"]}


@pytest.fixture
def page(tmp_path: Path, tiny_source: Path) -> Iterator[Page]:
    session = Session(tmp_path / "colours", weights=tiny_source)
    with TestClient(create_app(session, LIMITS, TOKEN), base_url="http://127.0.0.1") as client:
        client.headers["x-relish-token"] = TOKEN
        yield Page(client, session)


def learned(page: Page, count: int = 12) -> dict:
    """Two classes of so many images each, learned."""
    for name in ("blue", "red"):
        page.upload(form(name, range(count)), **{"class": name})
    return page.until(lambda state: state["learning"]["phase"] == "ready" and not state["learning"]["queued"])


# ---- the story ------------------------------------------------------------------------------------------------------


def test_two_classes_of_images_are_learned_by_themselves(page: Page):
    empty = page.get("state")
    assert (empty["classes"], empty["learning"]["accuracy"], empty["learning"]["needs_classes"]) == ([], None, 2)
    state = learned(page)
    assert [(one["name"], one["count"], one["test"]) for one in state["classes"]] == [("blue", 12, 2), ("red", 12, 2)]
    accuracy = state["learning"]["accuracy"]
    assert (accuracy["of"], accuracy["right"]) == (20, 20)
    assert accuracy["low"] < 0.95 < accuracy["high"]
    rows = page.get("images", **{"class": "blue"})["images"]
    assert {row["predicted"] for row in rows if not row["test"]} == {"blue"}
    assert {row["predicted"] for row in rows if row["test"]} == {None}  # they are used for the final figure alone
    assert state["final"] is None
    assert page.post("final")["final"]["of"] == 4
    assert page.get("state")["final"]["right"] == 4


def test_the_strength_is_chosen_anew_where_there_are_many_more_images(page: Page):
    learned(page)
    first = page.until(lambda state: state["learning"]["strength"] != FIRST_STRENGTH)["learning"]["strength"]
    page.upload(form("red", range(30, 35)), **{"class": "blue"})
    page.upload(form("blue", range(30, 35)), **{"class": "red"})
    # Of images of both colours in both classes little can be learned: a strong penalty loses the least.
    assert page.until(lambda state: state["learning"]["strength"] > first)["learning"]["accuracy"]["of"] > 24


def test_a_wrong_label_is_suspected_moved_and_the_move_undone(page: Page):
    learned(page)
    wrong = next(row for row in page.get("images", **{"class": "red"})["images"] if not row["test"])
    moved = page.post("images/move", ids=[wrong["id"]], to="blue")["ids"]
    page.until(lambda _: [item["id"] for item in page.get("queue")["items"]][:1] == [moved[wrong["id"]]])
    first = page.get("queue")["items"][0]
    assert (first["class"], first["suggested"]) == ("blue", "red")
    page.post("images/move", ids=[first["id"]], to=first["suggested"])
    assert first["id"] not in [item["id"] for item in page.get("queue")["items"]]
    assert page.post("undo")["undone"] == {"kind": "move", "count": 1, "from": "blue", "to": "red"}
    assert page.get("queue")["items"][0]["id"] == first["id"]
    page.post("queue/keep", keys=[first["key"]])
    assert first["key"] not in [item["key"] for item in page.get("queue")["items"]]


def test_with_too_few_images_it_says_how_many_more(page: Page):
    page.upload(form("blue", range(4)), **{"class": "blue"})
    page.post("classes/create", name="red")
    state = page.until(lambda state: state["learning"]["needs"] == [{"class": "red", "more": 3}])
    assert state["learning"]["done"] == 4
    assert state["learning"]["accuracy"] is None


def test_unlabelled_images_are_proposed_a_class(page: Page):
    learned(page)
    page.upload(form("red", range(50, 53)), tray="unlabelled")
    page.until(lambda state: state["unlabelled"]["count"] == 3 and state["learning"]["done"] == 27)
    found = page.get("unlabelled")
    assert [item["proposed"] for item in found["items"]] == ["red"] * 3
    assert "BADGE" in found["rule"]
    page.post("images/move", ids=[found["items"][0]["id"]], to="red")
    assert len(page.get("unlabelled")["items"]) == 2


def test_a_new_picture_is_answered_and_explained(page: Page):
    assert page.client.post("/api/predict", files=form("red", range(1))).status_code == 409
    learned(page)
    good, bad = page.client.post(
        "/api/predict", files=[*form("red", range(90, 91)), ("files", ("bad.png", b"no picture"))]
    ).json()["predictions"]
    assert (good["class"], good["error"], set(good["probabilities"])) == ("red", None, {"blue", "red"})
    assert bad["error"]
    answer = page.client.post("/api/explain", params={"class": "red"}, files=form("red", range(90, 91)))
    assert answer.json().get("overlay", "").startswith("data:image/png;base64,") or answer.status_code == 400


def test_what_appears_in_the_folder_is_told_to_every_tab(page: Page):
    page.until(lambda state: state["learning"]["phase"])
    version = page.session.version
    (page.folder / "green").mkdir()
    (page.folder / "green" / "a.png").write_bytes(picture("green", 1))
    page.until(lambda state: [one["name"] for one in state["classes"]] == ["green"])
    assert page.session.version > version


def test_the_stream_of_events_begins_with_the_state_and_ends_with_the_server(page: Page):
    app = page.client.app
    told: list[str] = []
    asked = iter([False, True])
    app.state.ending = lambda: next(asked)
    with page.client.stream("GET", "/api/events") as stream:
        told.extend(stream.iter_lines())
    assert told[0] == "event: state"
    assert json.loads(told[1].removeprefix("data: "))["session"] == page.session.session
    assert told[3] == "event: bye"


def test_thumbnails_are_small_and_may_be_kept(page: Page):
    page.upload(form("red", range(1)), **{"class": "red"})
    (image_id,) = page.ids("red").values()
    answer = page.client.get(f"/api/thumb/{image_id}", params={"size": 20})
    assert "immutable" in answer.headers["cache-control"]
    assert "no-store" not in answer.headers["cache-control"]
    assert Image.open(io.BytesIO(answer.content)).size == (40, 32)
    assert page.client.get("/api/thumb/nothing").status_code == 404
    (page.folder / "red" / "bad.png").write_bytes(b"no picture")
    page.until(lambda state: state["classes"][0]["count"] == 2)
    assert page.client.get(f"/api/thumb/{page.ids('red')['bad.png']}").status_code == 422


# ---- uploads --------------------------------------------------------------------------------------------------------


def packed(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, one in files.items():
            opened.writestr(name, one)
    return content.getvalue()


def test_a_zip_of_class_folders_makes_the_classes(page: Page):
    names = {"set/red/a.png": picture("red", 1), "set/blue/b.png": picture("blue", 1), "set/readme.txt": b"hello"}
    found = page.upload([("files", ("set.zip", packed(**names)))])
    assert sorted((row["status"], row["class"]) for row in found) == [("added", "blue"), ("added", "red")]
    page.post("undo")
    assert not [one for one in page.get("state")["classes"] if one["count"]]


def test_a_zip_bomb_and_a_zip_that_leads_outside_are_refused(page: Page, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "SMALL", 1_000_000)
    bomb = packed(**{"a.png": picture("red", 1), "b.png": b"\0" * 30_000_000})
    for name, content in (("bomb.zip", bomb), ("out.zip", packed(**{"../../out.png": picture("red", 1)}))):
        (row,) = page.upload([("files", (name, content))], **{"class": "red"})
        assert row["status"] == "refused"
        assert row["reason"]
    assert not list(page.folder.rglob("*.png"))
    assert not list(page.folder.parent.glob("out.png"))


def test_a_zip_of_more_than_a_request_may_hold_is_read_in_portions(page: Page, monkeypatch: pytest.MonkeyPatch):
    names = {f"red/{seed}.png": picture("red", seed) + bytes(30_000) for seed in range(50)}
    held, add = list[int](), page.session.library.add

    def counted(uploads: list, *given: object) -> list:
        held.append(sum(len(upload.content) for upload, _ in uploads))
        return add(uploads, *given)

    monkeypatch.setattr(page.session.library, "add", counted)
    large = {"red/large.png": bytes(LIMITS.body_bytes + 1)}
    found = page.upload([("files", ("set.zip", packed(**names, **large)))])
    assert [row["reason"] for row in found if row["name"] == "red/large.png"] == ["larger than 0.4 MB"]
    assert [row["status"] for row in found].count("added") == len(names)
    assert max(held) <= LIMITS.body_bytes


def test_uploads_beyond_the_limits_are_refused(page: Page):
    answer = page.client.post("/api/upload", files=[("files", ("large.png", b"x" * 500_000))])
    assert answer.status_code == 413
    assert page.client.post("/api/upload", files=form("red", range(LIMITS.files + 1))).status_code == 413
    wide = io.BytesIO()
    Image.new("RGB", (1000, 101)).save(wide, "PNG")
    (row,) = page.upload([("files", ("wide.png", wide.getvalue()))], **{"class": "red"})
    assert row["status"] == "refused"
    assert "limit" in row["reason"]
    answer = page.client.post("/api/undo", content=b" " * 5_000_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_what_was_sent_already_is_known(page: Page):
    (row,) = page.upload(form("red", range(1)), **{"class": "red"})
    sha256 = page.session.library.outcome(page.session.image(row["id"])).sha256
    assert page.post("known", sha256=[sha256, "0" * 64])["known"] == {
        sha256: {"id": row["id"], "class": "red", "tray": ""}
    }
    (again,) = page.upload(form("red", range(1)), **{"class": "blue"})
    assert (again["status"], again["class"]) == ("there", "red")


@pytest.mark.parametrize("name", ["../up", "con", "a\x00b", "thumbs.db", "<script>", "x" * 900])
def test_hostile_names_stay_within_the_folder(page: Page, name: str):
    before = sorted(page.folder.parent.iterdir())
    page.client.post("/api/upload", params={"class": name}, files=form("red", range(1)))
    page.client.post("/api/classes/create", json={"name": name})
    assert sorted(page.folder.parent.iterdir()) == before
    assert all(not set('<>:"/\\|?*\0') & set(one["name"]) for one in page.get("state")["classes"])


# ---- access ---------------------------------------------------------------------------------------------------------


def test_every_change_needs_the_token_of_the_page(page: Page):
    posts = [route.path for route in page.client.app.routes if "POST" in (getattr(route, "methods", None) or ())]
    assert len(posts) > 15
    for wrong in ("", "another", TOKEN[:-1]):
        for path in posts:
            answer = page.client.post(path, json={}, headers={"x-relish-token": wrong}, params={"class": "red"})
            assert answer.status_code == 403, path
    assert not list(page.folder.glob("[!.]*"))


def test_the_page_holds_its_token_and_no_other_page_may_read_it(page: Page):
    answer = page.client.get("/")
    assert TOKEN.replace("'", "&#39;") in answer.text
    assert "access-control-allow-origin" not in answer.headers
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert page.client.get("/static/..%2fapp.py").status_code == 404
    assert page.client.get("/static/index.html").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"host": "evil.example"}, 421), ({"origin": "https://evil.example"}, 403), ({"origin": "null"}, 403)],
)
def test_pages_of_other_sites_and_other_hosts_are_refused(page: Page, headers: dict[str, str], status: int):
    for answer in (
        page.client.get("/api/state", headers=headers),
        page.client.get("/", headers=headers),
        page.client.post("/api/classes/create", json={"name": "red"}, headers=headers),
    ):
        assert answer.status_code == status
    assert page.get("state")["classes"] == []


def test_where_others_are_let_in_nobody_comes_without_the_token(tmp_path: Path, tiny_source: Path):
    session, entry = Session(tmp_path / "colours", weights=tiny_source), "the-token-of-the-user"
    with TestClient(create_app(session, LIMITS, TOKEN, entry), base_url="http://tower:8008") as client:
        for path in ("/", "/api/state", "/static/teach.js", "/?token=wrong"):
            assert client.get(path).status_code == 401
        assert client.post("/api/undo", json={}, headers={"x-relish-token": TOKEN}).status_code == 401
        assert client.get("/api/state", headers={"authorization": f"Bearer {entry}"}).status_code == 200
        opened = client.get("/", params={"token": entry}, follow_redirects=False)
        assert opened.status_code == 303
        assert {"HttpOnly", "SameSite=strict"} <= set(opened.headers["set-cookie"].split("; "))
        assert client.get("/api/state").status_code == 200
        assert client.post("/api/undo", json={}).status_code == 403
        assert client.get("/api/state", headers={"origin": "http://evil.example"}).status_code == 403
        assert client.get("/api/state", headers={"origin": "http://tower:8008"}).status_code == 200


def test_every_refusal_has_one_shape(page: Page):
    page.post("classes/create", name="red")
    answers = {
        400: page.client.post("/api/classes/create", json={"name": ".."}),
        404: page.client.get("/api/image/none"),
        409: page.client.post("/api/classes/create", json={"name": "Red"}),
        415: page.client.post("/api/undo", content=b"{}", headers={"content-type": "text/plain"}),
        422: page.client.post("/api/images/move", json={"ids": 3}),
    }
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"status", "reason", "hint"}


def test_two_who_rename_one_class_at_once_leave_one_consistent_state(page: Page):
    page.upload(form("red", range(2)), **{"class": "red"})
    name, rounds, ready = "red", 15, threading.Barrier(2)

    def rename(to: str) -> int:
        ready.wait()
        return page.client.post("/api/classes/rename", json={"name": name, "to": to}).status_code

    with ThreadPoolExecutor(2) as two:
        for number in range(rounds):
            wanted = [f"rose {number}", f"ruby {number}"]
            answers = list(two.map(rename, wanted))
            assert sorted(answers) == [200, 409]
            name = wanted[answers.index(200)]
            assert [(one["name"], one["count"]) for one in page.get("state")["classes"]] == [(name, 2)]
            assert sorted(path.relative_to(page.folder).as_posix() for path in page.folder.glob("[!.]*/*")) == [
                f"{name}/red-0.png", f"{name}/red-1.png"
            ]  # fmt: skip
    for _ in range(rounds):
        page.post("undo")
    assert [(one["name"], one["count"]) for one in page.get("state")["classes"]] == [("red", 2)]
