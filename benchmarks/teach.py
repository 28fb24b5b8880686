"""`relish teach` with thousands of pictures: first answer, a change of one label, thumbnails, memory.

    python benchmarks/teach.py [--pictures 5000] [--changes 10] [--source lite0]

Pictures are noise around a colour, ten classes, so that drawing them takes no longer than measuring. The server runs
in this process, without a socket. `first` is from opening the folder to its state and the first list of pictures;
`label` from moving one picture into another class to an accuracy that counts it, the features in the cache; `thumbnail`
is one made anew, and `kept` one from the cache. Writes `results/teach.json`.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from measuring import finish, spread
from relish.teaching.app import create_app
from relish.teaching.session import Session

CLASSES = 10
TOKEN = "measured"  # noqa: S105
WAIT = 3600.0


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


def resident() -> float:
    """Megabytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def until(client: TestClient, revision: int) -> dict:
    """The state, once there is something learned that is newer."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        state = client.get("/api/state").json()
        learning = state["learning"]
        if learning["phase"] == "ready" and not learning["queued"] and learning["revision"] > revision:
            return state
        time.sleep(0.02)
    raise SystemExit("nothing was learned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--changes", type=int, default=10)
    parser.add_argument("--source", default="lite0")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("RELISH_HOME", f"{name}/home")
        folder = Path(name) / "many"
        draw(folder, asked.pictures)
        session = Session(folder, asked.source)
        with TestClient(create_app(session, token=TOKEN), base_url="http://127.0.0.1") as client:
            client.headers["x-relish-token"] = TOKEN
            began = time.monotonic()
            client.get("/api/state")
            rows = client.get("/api/images", params={"class": "class-0"}).json()["images"]
            first = time.monotonic() - began
            thumbnails = [seconds(client, rows[number]["id"]) for number in range(20)]
            kept = [seconds(client, rows[number]["id"]) for number in range(20)]
            state = until(client, 0)
            learned, memory, labels = time.monotonic() - began, resident(), []
            for number in range(asked.changes):
                time.sleep(2.0)  # what is done later ends
                rows = client.get("/api/images", params={"class": "class-0"}).json()["images"]
                wanted = next(row["id"] for row in rows if not row["test"])
                revision, began = client.get("/api/state").json()["learning"]["revision"], time.monotonic()
                client.post("/api/images/move", json={"ids": [wanted], "to": f"class-{1 + number % (CLASSES - 1)}"})
                until(client, revision)
                labels.append(time.monotonic() - began)
            grown = resident() - memory
    row = {"first": first, "learned": learned, "label": labels, "thumbnail": thumbnails, "kept": kept,
           "memory": memory, "grown": grown, "solved": state["learning"]["seconds"]}  # fmt: skip
    table = [
        ["", f"{asked.pictures:,} pictures, {asked.source}"],
        ["folder opened, first list, s", f"{first:.2f}"],
        ["all features computed, s", f"{learned:.0f}"],
        ["a label moved, to the accuracy, s", spread(labels)],
        ["thumbnail, ms", spread([1000 * one for one in thumbnails])],
        ["thumbnail from the cache, ms", spread([1000 * one for one in kept])],
        ["memory, MiB; grown by the changes", f"{memory:.0f}; {grown:+.0f}"],
    ]
    command = (
        f"python benchmarks/teach.py --pictures {asked.pictures} --changes {asked.changes} --source {asked.source}"
    )
    finish("teach", command, [row], table)


def seconds(client: TestClient, image_id: str) -> float:
    """That a thumbnail takes."""
    began = time.monotonic()
    client.get(f"/api/thumb/{image_id}", params={"size": 160}).raise_for_status()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
