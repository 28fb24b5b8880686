"""The server of `relish teach`, killed at any moment while a client changes the folder: nothing is lost or doubled.

CI kills twice; `make torture` sets RELISH_TORTURE and kills that many times.
"""

import io
import os
import random
import re
import signal
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from relish.data.set_aside import OWN
from tests.processes import COMMAND, held_port, started, wait_until
from tests.teaching.test_app import HANG

KILLS = int(os.environ.get("RELISH_TORTURE", "2"))
CHANGES = 12
"""Acknowledged before a kill, at most."""
LONGEST = 0.15
"""Seconds from the beginning of the next one to the kill, at most: about as long as a change takes there."""

SLOWLY = f"""
import time
from relish.core import io
from relish.teaching import journal

def slow(act):
    def acts(*given):
        time.sleep(0.02)
        return act(*given)
    return acts

journal.move = slow(journal.move)
io.force_to_disk = journal.force_to_disk = slow(io.force_to_disk)
{COMMAND}"""
"""The command line on a slow disk: else hardly a kill would come in the middle of a step."""

State = Mapping[str, frozenset[int]]
"""Each class, with the numbers of its images."""


def image(number: int) -> bytes:
    """An image of its own for each number, whose name is the number."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Model:
    """What was acknowledged: the folder as it has to be, and what undo and redo lead to."""

    now: State = field(default_factory=dict)
    past: list[State] = field(default_factory=list)
    future: list[State] = field(default_factory=list)

    def changed(self, **to: frozenset[int] | None) -> "Model":
        """After a step that gives these classes these images; None: the class is gone."""
        state = {name: images for name, images in {**self.now, **to}.items() if images is not None}
        return Model(state, [*self.past, self.now])

    def undone(self) -> "Model":
        return Model(self.past[-1], self.past[:-1], [self.now, *self.future])

    def redone(self) -> "Model":
        return Model(self.future[0], [*self.past, self.now], self.future[1:])


@dataclass(frozen=True)
class Change:
    """A request, and what holds once it is acknowledged."""

    path: str
    body: Mapping[str, object]
    after: Model
    sent: tuple[int, ...] = ()
    """Images of an upload."""


class Client:
    """The page's requests, without the page."""

    def __init__(self, http: httpx.Client) -> None:
        (token,) = re.findall(r'name="relish-token" content="([^"]+)"', http.get("/").text)
        self.http = http
        http.headers["x-relish-token"] = token

    def rows(self, **query: str) -> dict[int, dict]:
        """The images of a class or a tray, by their numbers."""
        answer = self.http.get("/api/images", params=query)
        assert answer.status_code == 200, answer.text
        return {int(Path(row["name"]).stem): row for row in answer.json()["images"]}

    def do(self, change: Change) -> dict:
        """Ask for a change; it has to be acknowledged."""
        if change.sent:
            files = [("files", (f"{number}.png", image(number))) for number in change.sent]
            answer = self.http.post("/api/upload", params=dict(change.body), files=files)
        else:
            answer = self.http.post(f"/api/{change.path}", json=dict(change.body))
        assert answer.status_code == 200, f"{change}: {answer.text}"
        return answer.json()


class Driver:
    """Draws changes that are possible."""

    def __init__(self, seed: int) -> None:
        self.chance, self.named, self.drawn = random.Random(seed), 0, 0

    def change(self, client: Client, model: Model) -> Change:
        """The next change, of what is there now."""
        now, chance = model.now, self.chance
        kinds = ["create", "upload", "upload", "undo", "redo", "again"]
        full = [name for name, images in now.items() if images]
        kinds += ["rename"] * bool(now) + ["merge"] * (len(now) > 1) + ["delete"] * (len(now) > 3)
        kinds += ["move", "remove", "restore"] * (bool(full) and len(now) > 1)
        kind = chance.choice(kinds)
        one, other = chance.sample(sorted(now), 2) if len(now) > 1 else [next(iter(now), "")] * 2
        match kind:
            case "rename":
                new = self._name()
                return Change("classes/rename", {"name": one, "to": new}, model.changed(**{one: None, new: now[one]}))
            case "merge":
                together = now[one] | now[other]
                after = model.changed(**{one: None, other: together})
                return Change("classes/merge", {"name": one, "into": other}, after)
            case "delete":
                return Change("classes/delete", {"name": one}, model.changed(**{one: None}))
            case "undo" if model.past:
                return Change("undo", {}, model.undone())
            case "redo" if model.future:
                return Change("redo", {}, model.redone())
            case "again" if full:
                return self._upload(model, one, [chance.choice(sorted(now[chance.choice(full)]))])
            case "move" | "remove":
                return self._moved(client, model, kind, chance.choice(full), one)
            case "restore" if removed := client.rows(tray="removed"):
                number, row = chance.choice(sorted(removed.items()))
                home = row["from"]
                after = model.changed(**{home: now.get(home, frozenset()) | {number}})
                return Change("images/restore", {"ids": [row["id"]]}, after)
            case "upload" if now:
                new = range(self.drawn, self.drawn + chance.randint(1, 4))
                self.drawn = new.stop
                return self._upload(model, chance.choice([one, one, self._name()]), list(new))
        new = self._name()
        return Change("classes/create", {"name": new}, model.changed(**{new: frozenset()}))

    def _name(self) -> str:
        self.named += 1
        return f"class-{self.named}"

    def _upload(self, model: Model, name: str, numbers: list[int]) -> Change:
        """What is in a class already is not added again."""
        new = frozenset(numbers).difference(*model.now.values())
        after = model.changed(**{name: model.now.get(name, frozenset()) | new}) if new else model
        return Change("upload", {"class": name}, after, tuple(numbers))

    def _moved(self, client: Client, model: Model, kind: str, start: str, to: str) -> Change:
        rows = client.rows(**{"class": start})
        some = self.chance.sample(sorted(rows), self.chance.randint(1, min(3, len(rows))))
        ids, left = [rows[number]["id"] for number in some], model.now[start].difference(some)
        if kind == "remove":
            return Change("images/remove", {"ids": ids}, model.changed(**{start: left}))
        if start == to:
            return Change("images/move", {"ids": ids, "to": to}, model)
        after = model.changed(**{start: left, to: model.now[to].union(some)})
        return Change("images/move", {"ids": ids, "to": to}, after)


@contextmanager
def served(folder: Path, source: Path) -> Iterator[tuple[object, Client]]:
    """The process of `relish teach` on a folder and a client of it; it is killed in the end."""
    with held_port() as port:
        process = started(SLOWLY, "teach", folder, "--weights", source, "--port", port)

        def listens() -> bool:
            assert process.poll() is None, process.communicate()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        try:
            wait_until(listens)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANG, trust_env=False) as http:
                yield process, Client(http)
        finally:
            process.kill()
            _, words = process.communicate()
        assert process.returncode == -signal.SIGKILL, words
        assert "Traceback" not in words, words


def on_disk(folder: Path) -> State:
    """The classes and their images, as any other program sees them; an image's number is told by its content."""
    classes = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return {path.name: frozenset(number_of(one) for one in path.iterdir()) for path in classes}


def number_of(path: Path) -> int:
    number = int(path.stem)
    assert path.read_bytes() == image(number), f"{path} is not what was sent"
    return number


def is_image(path: Path) -> bool:
    """Whether a file begins like one, whatever its name: so does what a kill leaves of an upload."""
    return path.read_bytes().startswith(b"\x89PNG")


def unfinished(folder: Path) -> list[str]:
    """States of steps that are neither done nor undone; the file is left as it is, a rollback that it needs too."""
    with closing(sqlite3.connect(f"file:{folder / OWN / 'journal.sqlite3'}?immutable=1", uri=True)) as journal:
        rows = journal.execute("SELECT state FROM steps").fetchall()
    return [state for (state,) in rows if state not in ("done", "undone")]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_server_killed_at_any_moment_has_lost_and_doubled_nothing_when_it_starts_again(tmp_path, tiny_source):
    """And each change that was acknowledged is there, can be undone to the very first one and done again."""
    folder, driver, model = tmp_path / "pets", Driver(5), Model()
    torn: Change | None = None
    acknowledged, in_a_step = 0, 0
    stored: set[int] = set()  # images of uploads that were acknowledged
    for kill in range(KILLS + 1):
        with served(folder, tiny_source) as (process, client):
            found = on_disk(folder)
            if torn is not None:
                assert found in (model.now, torn.after.now), f"after kill {kill}, in {torn.path} {torn.body}"
                model = torn.after if found != model.now else model
            assert found == model.now, f"after kill {kill}"
            assert unfinished(folder) == []
            held = Counter(number_of(path) for path in folder.rglob("*") if path.is_file() and is_image(path))
            sent = stored | set(torn.sent if torn else ())
            assert stored <= held.keys() <= sent, f"lost or made up after kill {kill}"
            assert set(held.values()) <= {1}, f"doubled after kill {kill}"
            if torn is not None and torn.sent:  # as one does whose upload was not answered
                again = driver._upload(model, str(torn.body["class"]), list(torn.sent))
                client.do(again)
                model, stored = again.after, sent
            if kill == KILLS:
                break
            wanted = acknowledged + driver.chance.randint(1, CHANGES)
            timer = threading.Timer(driver.chance.uniform(0.0, LONGEST), process.kill)
            try:
                while True:
                    torn = None  # while one only looks nothing is under way
                    torn = driver.change(client, model)
                    if acknowledged == wanted:
                        timer.start()
                    client.do(torn)
                    model, stored = torn.after, stored | set(torn.sent)
                    acknowledged += 1
            except httpx.TransportError:
                pass
            timer.join()
        in_a_step += bool(unfinished(folder))
    with served(folder, tiny_source) as (_, client):
        end, steps = model, len(model.past)
        while model.past:
            model = model.undone()
            client.do(Change("undo", {}, model))
            assert on_disk(folder) == model.now
        assert on_disk(folder) == {}
        assert client.http.post("/api/undo", json={}).status_code == 409
        for _ in range(steps):
            client.do(Change("redo", {}, model))
        assert on_disk(folder) == end.now
    print(f"\nkilled {KILLS} times in {acknowledged} acknowledged changes, {in_a_step} of them in the middle of a step")
