"""The whole story on the real server: from an empty folder to a model taken away, and pages that mean harm."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from relish.data.drawn.datasets import SUBJECTS, draw_classes
from tests.browser import HANG, watched_page
from tests.teaching.test_page import DESK, column, counted, give, said

pytestmark = pytest.mark.slow


@contextmanager
def taught(folder: Path) -> Iterator[str]:
    """The address of `relish teach` on a folder, as a user starts it."""
    command = [sys.executable, "-m", "relish", "teach", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        told: list[str] = []
        try:
            for line in server.stdout or ():
                told.append(line)
                if found := re.search(r"page\s+(http\S+)", line):
                    break
            else:
                pytest.fail("".join(told))
            reader = threading.Thread(target=lambda: told.extend(server.stdout or ()), daemon=True)
            reader.start()
            yield found[1]
        finally:
            server.terminate()
            server.wait(HANG / 1000)
            assert "Traceback" not in "".join(told), "".join(told)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_from_an_empty_folder_to_a_model_that_is_taken_away(tmp_path):
    folder = tmp_path / "food"
    foods = {name: [SUBJECTS[name]] for name in ("banana", "pizza")}
    drawn = draw_classes(tmp_path / "drawn", {"train": 21, "test": 1}, foods, "story") / "train"
    files = {name: {f"{name} {p.name}": p.read_bytes() for p in sorted((drawn / name).iterdir())} for name in foods}
    astray = {"astray.jpg": files["banana"].pop("banana 020.jpg")}
    extra = {"new.jpg": files["pizza"].pop("pizza 020.jpg")}
    with taught(folder) as address, watched_page(address, viewport=DESK) as seen:
        page = seen.page
        for name in foods:
            page.locator("#create-name").fill(name)
            page.keyboard.press("Enter")
            page.locator(column(name)).wait_for()
        began = time.monotonic()
        give(page, column("banana"), files["banana"])
        counted(page, "banana", 20)
        give(page, column("pizza"), files["pizza"] | astray)
        counted(page, "pizza", 21)
        page.locator("#verdict").filter(has_text=re.compile(r"^Right on ")).wait_for()
        print(f"accuracy after {time.monotonic() - began:.1f} s")

        page.locator("#card-name").filter(has_text="astray.jpg").wait_for()
        page.locator("#next").focus()
        page.keyboard.press("m")
        said(page, "Moved to banana")
        counted(page, "banana", 21)
        assert "astray.jpg" in names(folder / "banana")
        page.keyboard.press("Control+z")
        counted(page, "pizza", 21)
        assert "astray.jpg" in names(folder / "pizza")
        page.keyboard.press("Control+Shift+z")
        counted(page, "banana", 21)

        give(page, "#trial", extra)
        page.locator("#trial-said").filter(has_text="new.jpg: pizza").wait_for()

        page.locator("#better-minutes").fill("1")
        page.locator("#better-start:enabled").click()
        page.locator("#better-running:visible").wait_for()
        page.locator("#better-stop").click()
        page.locator("#better-outcome").filter(has_text=re.compile("Stopped|worth|difference")).wait_for()

        page.get_by_role("button", name="Model file").click()
        link = page.locator("#exports a").first
        link.wait_for()
        page.locator("#exports").filter(has_text=re.compile(r"Checked: (\d+) of \1 answers are the same")).wait_for()
        with page.expect_download() as download:
            link.click()
        assert Path(download.value.path()).stat().st_size > 100_000
        # An image that moved has another address: its thumbnail may have been asked for at the one before.
        assert [one for one in seen.complaints if not re.search("404.*/api/thumb/", one)] == []
        own = address.rstrip("/")
        assert {one.removeprefix("blob:") for one in seen.asked if not one.startswith("data:")} == {own}


HOSTILE = """<!doctype html><title>harmless</title><script>
const target = "TARGET", told = [];
const tries = {
  read: () => fetch(target + "api/state").then((answer) => answer.json()),
  page: () => fetch(target).then((answer) => answer.text()),
  change: () => fetch(target + "api/classes/create", { method: "POST", headers: { "Content-Type": "application/json",
    "X-Relish-Token": "guessed" }, body: '{"name": "stolen"}' }).then((answer) => answer.json()),
  blind: () => fetch(target + "api/classes/create", { method: "POST", mode: "no-cors", body: '{"name": "stolen"}' })
    .then((answer) => { if (answer.type !== "opaque") throw 0; throw 1; }),
  events: () => new Promise((take, fail) => {
    const source = new EventSource(target + "api/events");
    source.onmessage = source.onopen = take;
    source.onerror = fail;
  }),
  code: () => import(target + "static/api.js"),
  image: () => new Promise((take, fail) => {
    const image = new Image();
    image.onload = take;
    image.onerror = fail;
    image.src = target + "static/icon.svg";
  }),
};
(async () => {
  for (const [name, act] of Object.entries(tries)) await act().then(() => told.push(name), () => 0);
  const frame = document.createElement("iframe");
  frame.src = target;
  document.body.append(frame);
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", action: target + "api/undo", target: "there" });
  const there = document.createElement("iframe");
  there.name = "there";
  document.body.append(there, form);
  form.submit();
  setTimeout(() => { document.title = "done: " + told.join(" "); }, 1000);
})();
</script><body></body>"""


def test_a_page_of_another_site_in_the_same_browser_can_read_and_change_nothing(tmp_path):
    folder = tmp_path / "pets"
    (folder / "cat").mkdir(parents=True)
    with taught(folder) as address:
        site = tmp_path / "site"
        site.mkdir()
        (site / "index.html").write_text(HOSTILE.replace("TARGET", address), encoding="utf-8")
        with HTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(site))) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            port = other.server_address[1]
            rules = "--host-resolver-rules=MAP *.test 127.0.0.1"
            with watched_page(f"http://evil.test:{port}/", [rules]) as seen:
                page = seen.page
                page.wait_for_function("document.title.startsWith('done')")
                assert page.title() == "done:", "only these tries may succeed: none"
                # A name of the attacker's that leads to this computer (DNS rebinding).
                rebound = page.goto(address.replace("127.0.0.1", "evil.test"))
                assert rebound.status == 421
            other.shutdown()
        assert names(folder) in (["cat"], [".relish", "cat"])
