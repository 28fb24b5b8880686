"""`relish serve` under fire, and its speed against a naive server: good and hostile requests, 32 at once.

    python benchmarks/serve.py RUN MODEL.onnx PICTURES [--requests 1000] [--concurrency 32] [--rounds 3] [--threads 1]

First good pictures alone, in turn: the naive server (FastAPI and PyTorch, one request at a time, the same network from
RUN), `relish serve RUN` and `relish serve MODEL.onnx`, each in a process of its own with so many threads for the
network. Then MODEL.onnx is served to a mixture: half good pictures, half truncated ones, decompression bombs, text,
50 MB and slow senders. A good one counts as right when class and probability (within 0.001) are those of the same file
asked in this process; a hostile one when it gets a 4xx with a reason. The server's resident memory is read after the
warm-up, halfway and at the end.
"""

import argparse
import http.client
import io
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import finish, spread
from relish.data.image import open_image
from relish.data.image_files import IMAGE_SUFFIXES
from relish.server.batching import ExportedModel

WARM = 64
"""Good requests that are not measured; memory is compared with what it is after them."""
BOUNDARY = "relish-benchmark"
LARGE = 50_000_000
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
SLOW = 0.02
"""Share of slow senders: each holds a place of the 32 for ten seconds."""


@dataclass(frozen=True)
class Reply:
    """How one request went."""

    kind: str
    seconds: float
    status: int
    document: dict[str, Any]


def form(content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="picture"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def bomb() -> bytes:
    """A PNG of 30,000 × 30,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100_000))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# ---- servers --------------------------------------------------------------------------------------------------------


def naive(run: Path, threads: int) -> None:
    """What one writes in an afternoon: decode, scale, ask, all in the event loop, so one request at a time."""
    import torch
    import uvicorn
    from fastapi import FastAPI, UploadFile
    from PIL import Image

    import relish
    from relish.data.transforms import evaluation_transform, normalise

    torch.set_num_threads(threads)
    model = relish.load(str(run))
    network = model.network.to(memory_format=torch.contiguous_format)
    app = FastAPI()

    @app.post("/predict")
    async def predict(files: UploadFile) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(await files.read())).convert("RGB")
        images = normalise(evaluation_transform(picture, model.preprocessing)[None], model.preprocessing)
        with torch.no_grad():
            row = torch.softmax(network(images.contiguous()) / model.decision.temperature, 1)[0].tolist()
        return {"predictions": [{"class": model.classes[row.index(max(row))], "probability": max(row)}]}

    with socket.create_server(("127.0.0.1", 0)) as taken:
        print(f"page    http://127.0.0.1:{taken.getsockname()[1]}/", file=sys.stderr, flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[taken])


@contextmanager
def started(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server and its port; its log goes nowhere once it is up."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"page\s+http://127.0.0.1:(\d+)/", line):
                break
        else:
            raise SystemExit(f"{command} did not start")
        drain = ThreadPoolExecutor(1)
        drain.submit(process.stderr.read)
        yield process, int(found[1])
    finally:
        process.terminate()
        process.wait(60)


def resident(process: subprocess.Popen[str]) -> float:
    """Resident memory in MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


# ---- requests -------------------------------------------------------------------------------------------------------


def post(port: int, kind: str, body: bytes) -> Reply:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/predict", body, HEADERS)
        answer = connection.getresponse()
        content = answer.read()
        return Reply(kind, time.perf_counter() - began, answer.status, json.loads(content))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply(kind, time.perf_counter() - began, 0, {"broken": repr(error)})
    finally:
        connection.close()


def dribble(port: int, kind: str, body: bytes) -> Reply:
    """A byte every half second, until the server has had enough."""
    began = time.perf_counter()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.sendall(f"{head}\r\n".encode())
        plain.settimeout(0.5)
        answer = b""
        for place in range(240):
            try:
                while chunk := plain.recv(65536):
                    answer += chunk
                    if b"\r\n\r\n{" in answer and answer.endswith(b"}"):
                        break
                break
            except TimeoutError:
                plain.send(body[place : place + 1])
    status = int(answer.split(b" ", 2)[1]) if answer else 0
    document = json.loads(answer.partition(b"\r\n\r\n")[2] or b"{}")
    return Reply(kind, time.perf_counter() - began, status, document)


def mixture(good: Sequence[bytes], count: int) -> list[tuple[str, Callable[[int, str, bytes], Reply], bytes]]:
    """Good and hostile requests by turns; which picture a good one has is its place among them."""
    hostile = [("truncated", post), ("bomb", post), ("text", post), ("50 MB", post)]
    bodies = {
        "bomb": form(bomb()),
        "text": form(b"mustard, buns, napkins\n" * 100),
        "50 MB": form(bytes(LARGE)),
        "slow": form(good[0]),
    }
    asked: list[tuple[str, Callable[[int, str, bytes], Reply], bytes]] = []
    for place in range(count):
        if place % 2 == 0:
            asked.append(("good", post, form(good[place // 2 % len(good)])))
        elif place % round(1 / SLOW) == 1:
            asked.append(("slow", dribble, bodies["slow"]))
        else:
            kind, way = hostile[place // 2 % len(hostile)]
            picture = good[place // 2 % len(good)]
            asked.append((kind, way, bodies.get(kind) or form(picture[: len(picture) // 2])))
    return asked


def ask_all(port: int, asked: Sequence[Any], concurrency: int) -> tuple[list[Reply], float]:
    began = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        replies = list(pool.map(lambda one: one[1](port, one[0], one[2]), asked))
    return replies, time.perf_counter() - began


def good_requests(pictures: Sequence[bytes], count: int) -> list[Any]:
    return [("good", post, form(pictures[place % len(pictures)])) for place in range(count)]


# ---- figures --------------------------------------------------------------------------------------------------------


def speed(command: Sequence[str], pictures: Sequence[bytes], count: int, concurrency: int) -> dict[str, float]:
    with started(command) as (_, port):
        ask_all(port, good_requests(pictures, WARM), concurrency)
        replies, seconds = ask_all(port, good_requests(pictures, count), concurrency)
    if any(reply.status != 200 for reply in replies):
        raise SystemExit(f"{command}: {Counter(reply.status for reply in replies)}")
    times = sorted(1000 * reply.seconds for reply in replies)
    return {
        "pictures_per_second": count / seconds,
        "p50_ms": statistics.median(times),
        "p99_ms": times[int(0.99 * (len(times) - 1))],
    }


def right(reply: Reply, expected: tuple[str, float]) -> bool:
    rows = reply.document.get("predictions") or [{}]
    same = rows[0].get("class") == expected[0]
    return reply.status == 200 and same and abs(rows[0]["probability"] - expected[1]) < 1e-3


def refused(reply: Reply) -> bool:
    return 400 <= reply.status < 500 and bool(reply.document.get("error", {}).get("reason"))


def under_fire(command: Sequence[str], pictures: Sequence[bytes], model: ExportedModel, asked: Any) -> dict[str, Any]:
    answers = [model.predict([model.prepare(open_image(content))])[0] for content in pictures]
    expected = [(str(answer.class_name), float(answer.probability or 0)) for answer in answers]
    with started(command) as (process, port):
        ask_all(port, good_requests(pictures, WARM), asked.concurrency)
        memory, replies = [resident(process)], []
        wanted = mixture(pictures, asked.requests)
        for half in (wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :]):
            found, _ = ask_all(port, half, asked.concurrency)
            replies += found
            memory.append(resident(process))
        alive = process.poll() is None and ask_all(port, good_requests(pictures, 1), 1)[0][0].status == 200
    outcomes: dict[str, Counter[str]] = {}
    for place, reply in enumerate(replies):
        fine = right(reply, expected[place // 2 % len(expected)]) if reply.kind == "good" else refused(reply)
        outcomes.setdefault(reply.kind, Counter())[f"{reply.status}{'' if fine else ' WRONG'}"] += 1
    times = sorted(1000 * reply.seconds for reply in replies if reply.kind == "good")
    return {
        "outcomes": {kind: dict(counts) for kind, counts in outcomes.items()},
        "wrong": sum(count for counts in outcomes.values() for name, count in counts.items() if "WRONG" in name),
        "resident_mib": memory,
        "alive": alive,
        "good_p50_ms": statistics.median(times),
        "good_p99_ms": times[int(0.99 * (len(times) - 1))],
    }


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("run", type=Path)
    ask.add_argument("file", type=Path, nargs="?")
    ask.add_argument("pictures", type=Path, nargs="?")
    ask.add_argument("--requests", type=int, default=1000)
    ask.add_argument("--concurrency", type=int, default=32)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--threads", type=int, default=1)
    ask.add_argument("--naive", action="store_true", help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.naive:
        naive(asked.run, asked.threads)
        return
    found = sorted(path for path in asked.pictures.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    pictures = [path.read_bytes() for path in found[:: max(1, len(found) // 100)]]
    threads = ["--threads", str(asked.threads)]
    serve = [sys.executable, "-m", "relish", "serve", "--port", "0", *threads]
    arms = {
        "naive FastAPI + PyTorch": [sys.executable, os.path.abspath(__file__), "--naive", str(asked.run), *threads],
        "relish serve RUN": [*serve, str(asked.run)],
        "relish serve MODEL.onnx": [*serve, str(asked.file)],
    }
    rounds = [
        {arm: speed(command, pictures, 320, asked.concurrency) for arm, command in arms.items()}
        for _ in range(asked.rounds)
    ]
    fire = under_fire(arms["relish serve MODEL.onnx"], pictures, ExportedModel(asked.file), asked)
    table = [["server", "pictures/s", "p50, ms", "p99, ms"]]
    for arm in arms:
        columns = ("pictures_per_second", "p50_ms", "p99_ms")
        table.append([arm, *(spread([one[arm][column] for one in rounds]) for column in columns)])
    command = f"python benchmarks/serve.py RUN MODEL.onnx PICTURES --requests {asked.requests}"
    finish("serve", command, rounds, table, concurrency=asked.concurrency, under_fire=fire)
    print(json.dumps(fire, indent=1))


if __name__ == "__main__":
    main()
