"""`relish teach` with thousands of pictures: first paint, scrolling, a change of one label, thumbnails, memory.

    python benchmarks/teach.py [--pictures 5000] [--changes 10] [--source lite0]

Pictures are noise around a colour, ten classes, so that drawing them takes no longer than measuring. The server is the
command itself, and the page is looked at by Chromium, which runs on the same cores. `paint` is from asking for the
page to every thumbnail in sight of the first class: `learning` while features are computed, with no thumbnail made
before, `later` once all is learned, in a new browser. `came` brings a class into sight whose thumbnails nobody has
asked for; then it is scrolled, a screen every half second: `blank` is how long each place of an image in sight was.
`label` is from moving one picture into another class to an accuracy that counts it, the features in the cache. Writes
`results/teach.json`.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from measuring import finish, spread

CLASSES = 10
SHOWN, SCROLLED, ASKED = "class-0", "class-5", "class-2"
"""Whose thumbnails are seen first, scrolled through, and asked for one by one."""
WAIT = 3600.0
DESK = {"width": 1440, "height": 900}

PAINTED = """name => {
  const grid = document.querySelector(`.column[aria-label="${name}"] .grid`);
  const pictures = grid ? [...grid.querySelectorAll("img")] : [];
  const floor = grid?.getBoundingClientRect().bottom;
  const seen = pictures.filter((one) => one.getBoundingClientRect().top < floor);
  return seen.length > 0 && seen.every((one) => one.complete && one.naturalWidth > 0);
}"""

SCROLL = """async name => {
  const grid = document.querySelector(`.column[aria-label="${name}"] .grid`);
  const blank = new Map(), ended = [];
  const end = (place, now) => blank.has(place) && (ended.push(now - blank.get(place)), blank.delete(place));
  const began = performance.now();
  for (let now = began; grid.scrollTop < grid.scrollHeight - grid.clientHeight - 1; ) {
    const tiles = [...grid.querySelectorAll(".tile")];
    const columns = Math.round(grid.clientWidth / tiles[0].getBoundingClientRect().width);
    const side = grid.clientWidth / columns;
    const all = Number(tiles[0].getAttribute("aria-setsize"));
    const first = Math.floor(grid.scrollTop / side) * columns;
    const last = Math.min(all, Math.ceil((grid.scrollTop + grid.clientHeight) / side) * columns);
    const there = new Map(tiles.map((tile) => [Number(tile.dataset.place), tile.querySelector("img")]));
    for (const place of [...blank.keys()]) if (place < first || place >= last) end(place, now);
    for (let place = first; place < last; place++) {
      const picture = there.get(place);
      if (picture?.complete && picture.naturalWidth) end(place, now);
      else if (!blank.has(place)) blank.set(place, now);
    }
    now = await new Promise(requestAnimationFrame);
    grid.scrollTop = ((now - began) / 500) * grid.clientHeight;
  }
  return ended;
}"""
"""Milliseconds that each place of an image was in sight and blank; places that never were are left out."""


def draw(folder: Path, count: int) -> None:
    """So many pictures, by turns of each class."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (CLASSES, 3))
    for number in range(count):
        path = folder / f"class-{number % CLASSES}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(0, 60, (12, 16, 3)) + colours[number % CLASSES]
        small = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=85)


class Server:
    """The command under measurement, and a client with its page's token."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address
        self.client = httpx.Client(base_url=address, timeout=60)
        token = re.search(r'name="relish-token" content="([^"]+)"', self.client.get("").text)
        assert token
        self.client.headers["x-relish-token"] = token[1]

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(f"api/{path}", params=query).raise_for_status().json()

    def resident(self) -> float:
        """Its megabytes now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    def until(self, revision: int) -> dict[str, Any]:
        """The state, once there is something learned that is newer."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            state: dict[str, Any] = self.get("state")
            learning = state["learning"]
            if learning["phase"] == "ready" and not learning["queued"] and learning["revision"] > revision:
                return state
            time.sleep(0.02)
        raise SystemExit("nothing was learned")

    def thumbnail(self, image_id: str) -> float:
        """Milliseconds that one takes."""
        began = time.monotonic()
        self.client.get(f"api/thumb/{image_id}", params={"size": 160}).raise_for_status()
        return 1000 * (time.monotonic() - began)

    def relabel(self, number: int) -> float:
        """Seconds from moving one image into another class to an accuracy that counts it."""
        rows = self.get("images", **{"class": "class-0"})["images"]
        wanted = next(row["id"] for row in rows if not row["test"])
        revision, began = self.get("state")["learning"]["revision"], time.monotonic()
        move = {"ids": [wanted], "to": f"class-{1 + number % (CLASSES - 1)}"}
        self.client.post("api/images/move", json=move).raise_for_status()
        self.until(revision)
        return time.monotonic() - began


@contextmanager
def teaching(folder: Path, source: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "relish", "teach", str(folder), "--source", source, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr or [])
            address = next(found[1] for line in lines if (found := re.search(r"page\s+(http\S+)", line)))
            Thread(target=list, args=(lines,), daemon=True).start()  # it waits where nobody reads what it logs
            yield Server(process, address)
        finally:
            process.terminate()


def paint(browser: Browser, address: str) -> tuple[Page, float]:
    """A new page, and the seconds until it shows the first class."""
    page = browser.new_context(viewport=DESK).new_page()
    began = time.monotonic()
    page.goto(address)
    page.wait_for_function(PAINTED, arg=SHOWN, polling="raf")
    return page, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--changes", type=int, default=10)
    parser.add_argument("--source", default="lite0")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        os.environ["RELISH_HOME"] = f"{name}/home"
        draw(Path(name) / "many", asked.pictures)
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        began = time.monotonic()
        with teaching(Path(name) / "many", asked.source) as server:
            opened = time.monotonic() - began
            page, learning = paint(browser, server.address)
            page.context.close()
            state = server.until(0)
            learned = time.monotonic() - began
            page, later = paint(browser, server.address)
            came = time.monotonic()
            page.locator(f'.column[aria-label="{SCROLLED}"]').evaluate("column => column.scrollIntoView()")
            page.wait_for_function(PAINTED, arg=SCROLLED, polling="raf")
            came = time.monotonic() - came
            blank = page.evaluate(SCROLL, SCROLLED)
            page.context.close()
            ids = [row["id"] for row in server.get("images", **{"class": ASKED})["images"][:20]]
            made, kept = ([server.thumbnail(one) for one in ids] for _ in range(2))
            server.relabel(0)  # the first one sets aside what every further one uses
            memory, labels = server.resident(), []
            for number in range(asked.changes):
                time.sleep(2.0)  # what is done later ends
                labels.append(server.relabel(number))
            time.sleep(2.0)
            grown = server.resident() - memory
        browser.close()
    row = {"opened": opened, "learning": learning, "learned": learned, "later": later, "came": came, "blank": blank,
           "made": made, "kept": kept, "label": labels, "memory": memory, "grown": grown,
           "solved": state["learning"]["seconds"]}  # fmt: skip
    longest = max(blank, default=0.0)
    table = [
        ["", f"{asked.pictures:,} pictures, {asked.source}"],
        ["command to address, s", f"{opened:.1f}"],
        ["first paint while features are computed, s", f"{learning:.2f}"],
        ["first paint once all is learned, s", f"{later:.2f}"],
        ["all features computed, s", f"{learned:.0f}"],
        ["a class brought into sight, to its thumbnails, s", f"{came:.2f}"],
        ["scrolling: longest that a place is blank, ms", f"{longest:.0f}"],
        ["a label moved, to the accuracy, s", spread(labels)],
        ["thumbnail, ms", spread(made)],
        ["thumbnail from the cache, ms", spread(kept)],
        [f"memory of the server, MiB; grown by {asked.changes} changes", f"{memory:.0f}; {grown:+.0f}"],
    ]
    command = (
        f"python benchmarks/teach.py --pictures {asked.pictures} --changes {asked.changes} --source {asked.source}"
    )
    finish("teach", command, [row], table)


if __name__ == "__main__":
    main()
