"""`relish serve`: right answers over HTTP, and every refusal with its status and its reason."""

import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from relish.evaluation.prediction import Decision
from relish.server import server
from relish.server.limits import Limits
from relish.server.middleware import LOG
from tests.commands import refused
from tests.processes import wait_until
from tests.serving import BLUE, GREY, HANG, RED, Explaining, Tones, onnx_tones, png, serving

EVERYWHERE = "0.0.0.0"  # noqa: S104
TOKEN = "0123456789abcdef-not-a-secret"  # noqa: S105


@pytest.fixture(scope="module")
def client():
    with serving(Tones(), Limits(body_bytes=200_000, pixels=100_000, files=3)) as client:
        yield client


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{place}.png", content)) for place, content in enumerate(contents)]


def problem(response: httpx.Response, status: int) -> str:
    """The reason of a refusal, whose shape is always the same."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"status", "reason", "hint"}
    assert error["status"] == status
    assert error["reason"]
    return error["reason"]


# ---- answers ----------------------------------------------------------------------------------------------------


def test_a_picture_gets_the_row_that_predict_prints(client):
    (row,) = client.post("/predict", files=form(RED)).json()["predictions"]
    assert list(row) == ["path", "class", "probability", "probabilities", "unsure", "unfamiliarity", "unknown"]
    assert (row["path"], row["class"], row["unsure"]) == ("0.png", "red", False)
    model = Tones()
    (alone,) = model.predict([model.prepare(Image.open(io.BytesIO(RED)))])
    assert row == {**alone.as_json(), "path": "0.png"}


def test_several_pictures_keep_their_order_and_the_model_may_be_unsure(client):
    rows = client.post("/predict", files=form(BLUE, RED, GREY)).json()["predictions"]
    assert [row["class"] for row in rows[:2]] == ["blue", "red"]
    assert [row["unsure"] for row in rows] == [False, False, True]


def test_what_is_unlike_anything_it_learned_from_is_said_beside_the_probabilities():
    with serving(Tones(decision=Decision(unknown_above=0.8))) as client:
        known, strange = client.post("/predict", files=form(RED, png((250, 250, 255)))).json()["predictions"]
        assert (known["unknown"], strange["unknown"]) == (False, True)
        assert known["unfamiliarity"] < 0.8 < strange["unfamiliarity"]
        assert strange["probabilities"].keys() == {"blue", "red"}
        assert client.get("/classes").json()["unknown_above"] == 0.8
        assert "relish_unknown_pictures_total 1.0" in client.get("/metrics").text
        described = client.get("/openapi.json").json()["components"]["schemas"]["Row"]["properties"]
        assert "unlike anything it learned from" in described["unknown"]["description"]


def test_json_with_base64_is_answered_as_a_form_is(client):
    pictures = [{"name": "a", "base64": base64.b64encode(BLUE).decode()}, {"base64": base64.b64encode(RED).decode()}]
    rows = client.post("/predict", json={"pictures": pictures}).json()["predictions"]
    assert [(row["path"], row["class"]) for row in rows] == [("a", "blue"), ("picture 2", "red")]


def test_a_bad_picture_among_good_ones_has_an_error_in_its_row(client):
    response = client.post("/predict", files=form(RED, b"mustard, buns", BLUE))
    assert response.status_code == 200
    first, bad, last = response.json()["predictions"]
    assert bad == {"path": "1.png", "error": "not a picture: text file"}
    assert (first["class"], last["class"]) == ("red", "blue")


def test_where_no_picture_can_be_read_the_reasons_come_with_422(client):
    assert problem(client.post("/predict", files=form(b"mustard")), 422) == "0.png: not a picture: text file"
    several = client.post("/predict", files=form(b"mustard", RED[:60]))
    assert problem(several, 422) == "none of 2 pictures can be read."
    assert [row["path"] for row in several.json()["predictions"]] == ["0.png", "1.png"]


def test_pictures_of_many_requests_are_answered_together_and_as_if_alone():
    model = Tones()
    model.may_answer.clear()
    colours = [(40 + 5 * place, 60, 200 - 5 * place) for place in range(32)]
    with serving(model) as client, ThreadPoolExecutor(16) as pool:
        ask = lambda colour: client.post("/predict", files=form(png(colour))).json()["predictions"][0]  # noqa: E731
        asked = pool.map(ask, colours)
        wait_until(lambda: waiting(client) == 16)
        model.may_answer.set()
        together = list(asked)
        most = max(model.batches)
        alone = [ask(colour) for colour in colours]
    assert 1 < most <= Limits().batch
    assert together == alone


def test_a_lone_picture_does_not_wait_for_others():
    model = Tones()
    with serving(model, Limits(batch_seconds=10 * HANG)) as client:
        assert client.post("/predict", files=form(RED)).status_code == 200
    assert model.batches == [1]


def test_classes_health_and_metrics_say_what_they_should(client):
    known = client.get("/classes").json()
    assert known["classes"] == ["blue", "red"]
    assert known["unsure_below"] == 0.7
    assert known["limits"] == {"body_bytes": 200_000, "pixels": 100_000, "files": 3}
    assert client.get("/health").json() == {"status": "ok", "waiting": 0}

    def count(line: str) -> float:
        found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    asked, bad = 'relish_requests_total{path="/predict",status="200"}', 'relish_pictures_total{outcome="refused"}'
    before = count(asked), count(bad)
    client.post("/predict", files=form(RED, b"text"))
    assert (count(asked), count(bad)) == (before[0] + 1, before[1] + 1)
    client.get("/made/up/by/a/stranger")
    assert "stranger" not in client.get("/metrics").text


def test_a_model_that_can_explain_is_asked_for_an_overlay():
    with serving(Explaining()) as client:
        found = client.post("/explain?class_name=red", files=form(RED)).json()
        overlay = Image.open(io.BytesIO(base64.b64decode(found["overlay"].partition(",")[2])))
        assert overlay.size == (32, 32)
        assert "pear" in problem(client.post("/explain?class_name=pear", files=form(RED)), 422)
        assert "one picture" in problem(client.post("/explain?class_name=red", files=form(RED, RED)), 422)
        assert "text file" in problem(client.post("/explain?class_name=red", files=form(b"words")), 422)
        problem(client.post("/explain", files=form(RED)), 422)


# ---- limits -----------------------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, and whose few bytes hold next to none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_picture_with_too_many_pixels_is_refused_by_its_header(client):
    assert "30,000 x 30,000 pixels" in problem(client.post("/predict", files=form(bomb(30_000, 30_000))), 422)
    assert "limit for one side" in problem(client.post("/predict", files=form(bomb(99_000, 1))), 422)
    assert "the limit is 0.1 million" in problem(client.post("/predict", files=form(png(size=(400, 300)))), 422)
    assert client.post("/predict", files=form(png(size=(300, 300)))).status_code == 200


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(client):
    assert problem(client.post("/predict", files=form(bytes(300_000))), 413) == "the request is larger than 0.2 MB."


def test_a_body_that_does_not_say_its_size_is_refused_at_the_limit(client):
    sent = 0

    def endless():
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        while True:
            sent += 10_000
            assert sent < 1_000_000_000
            yield bytes(10_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    limits = Limits(body_bytes=200_000, send_seconds=0.5)
    with serving(Tones(), limits) as own:
        # A sender that sends on after the answer has its connection closed, and may not see the answer any more.
        with contextlib.suppress(httpx.TransportError):
            problem(own.post("/predict", content=endless(), headers=headers), 413)
        metrics = talk_until_answered(own, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert metrics.count(b'requests_total{path="/predict",status="413"} 1.0') == 1


def test_too_many_pictures_are_refused(client):
    assert "more than 3" in problem(client.post("/predict", files=form(*[RED] * 4)), 413)
    many = {"pictures": [{"base64": ""}] * 4}
    assert "more than 3" in problem(client.post("/predict", json=many), 413)


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"x", {"Content-Type": "text/plain"}, 415, "text/plain"),
        (b"x", {}, 415, "none"),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415, "application/json"),
        (b"{", {"Content-Type": "application/json"}, 422, "the body"),
        (b'{"pictures": []}', {"Content-Type": "application/json"}, 422, "pictures"),
        (b'{"pictures": [{"base64": "%%"}]}', {"Content-Type": "application/json"}, 422, "base64"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
        (b"x", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "form"),
        (b"--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}, 422, "no picture"),
        (
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc',
            {"Content-Type": "multipart/form-data; boundary=b"},
            400,
            "cut short",
        ),
    ],
)
def test_a_body_of_another_kind_is_refused_with_its_status(client, content, headers, status, words):
    assert words in problem(client.post("/predict", content=content, headers=headers), status)


def test_paths_and_methods_that_are_none_are_refused_in_the_same_shape(client):
    problem(client.get("/nothing"), 404)
    problem(client.get("/predict"), 405)
    problem(client.delete("/classes"), 405)


def waiting(client: httpx.Client) -> int:
    """Pictures without an answer yet."""
    return int(client.get("/health").json()["waiting"])


def talk(client: httpx.Client, content: bytes) -> bytes:
    """What the server says to bytes on a plain socket that then stays open."""
    with connected(str(client.base_url)) as plain:
        plain.sendall(content)
        return all_from(plain)


def connected(address: str) -> socket.socket:
    found = urlsplit(address)
    return socket.create_connection((found.hostname, found.port), timeout=HANG)


def all_from(plain: socket.socket) -> bytes:
    return b"".join(iter(lambda: plain.recv(65536), b""))


def takes_connections(address: str) -> bool:
    try:
        connected(address).close()
    except ConnectionError:
        return False
    return True


def talk_until_answered(client: httpx.Client, content: bytes) -> bytes:
    """The same of a server that waits for a moment only: on a busy machine it may hang up before the first byte comes,
    as it does on browsers that connect ahead."""
    for _ in range(50):
        with contextlib.suppress(ConnectionError):
            if answer := talk(client, content):
                return answer
    raise AssertionError("never answered")


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"


def test_slow_senders_are_told_so_and_lose_their_connection():
    with serving(Tones(), Limits(send_seconds=0.2)) as client:
        body = talk_until_answered(client, HEAD + b"Content-Length: 100000\r\n\r\n--b\r\n")
        assert b" 408 " in body.splitlines()[0]
        assert b"too slowly" in body
        assert b" 408 " in talk_until_answered(client, b"GET /health HTTP/1.1\r\nHost: loc").splitlines()[0]
        assert talk(client, b"") == b""
        second = talk_until_answered(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
        assert second.count(b"HTTP/1.1 ") == 2
        assert b'"status": 408' in second
        last = talk_until_answered(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 200 " in last.splitlines()[0]


def test_what_is_no_http_is_refused_in_the_same_shape(client):
    head, _, body = talk(client, b"\x16\x03\x01 hello\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["status"] == 400


def test_a_full_server_asks_to_come_again():
    model = Tones()
    model.may_answer.clear()
    with serving(model, Limits(requests=1)) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/predict", files=form(RED))
        wait_until(lambda: waiting(client) == 1)
        for _ in range(3):
            answer = client.post("/predict", files=form(RED))
            assert "busy" in problem(answer, 503)
            assert answer.headers["retry-after"] == "1"
        model.may_answer.set()
        assert first.result().status_code == 200
        assert client.post("/predict", files=form(RED)).status_code == 200


def test_uploads_that_are_too_much_together_are_asked_to_come_again():
    limits = Limits(held_bytes=1000, body_bytes=100_000)
    with serving(Tones(), limits) as client:
        assert "busy" in problem(client.post("/predict", files=form(bytes(5000))), 503)
        assert client.post("/predict", files=form(RED)).status_code == 200


def test_connections_over_the_limit_are_told_so():
    with serving(Tones(), Limits(connections=1)) as client:
        assert client.get("/health").status_code == 200  # and stays open
        answer = talk(client, b"")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in answer


def test_room_for_pixels_is_given_in_turn():
    """More pictures than there is room for at once, each as large as it may be."""
    large = png(size=(300, 300))
    with serving(Tones(), Limits(pixels=90_000, decoders=4)) as client:
        rows = client.post("/predict", files=form(*[large] * 12)).json()["predictions"]
    assert [row["class"] for row in rows] == ["red"] * 12


def test_a_model_that_fails_is_a_500_without_its_secrets_and_the_server_goes_on(caplog, monkeypatch):
    monkeypatch.setattr(LOG, "propagate", True)  # other tests set logging up in ways of their own
    monkeypatch.setattr(LOG, "disabled", False)
    model = Tones()
    with serving(model) as client:
        model.fails = True
        response = client.post("/predict", files=form(RED))
        problem(response, 500)
        assert "secret" not in response.text
        assert "RuntimeError" in caplog.text
        model.fails = False
        assert client.post("/predict", files=form(RED)).status_code == 200


# ---- who may ask ------------------------------------------------------------------------------------------------


def test_with_a_token_nobody_is_answered_without_it():
    with serving(Tones(), token=TOKEN) as client:
        assert client.post("/predict", files=form(RED)).status_code == 200
        for given in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            for path in ("/classes", "/metrics"):
                response = client.get(path, headers=given)
                assert "token" in problem(response, 401)
                assert response.headers["www-authenticate"] == "Bearer"
            problem(client.post("/predict", files=form(RED), headers=given), 401)
            assert client.get("/health", headers=given).status_code == 200
            assert client.get("/", headers=given).status_code == 200
        assert client.get("/classes", headers={"Host": "models.example"}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:8000", "LOCALHOST.:9"])
def test_without_a_token_this_computers_names_are_answered(client, host):
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::", "10.0.0.1"]
)
def test_without_a_token_a_name_that_was_rebound_is_refused(client, host):
    problem(client.get("/classes", headers={"Host": host}), 421)


def test_without_a_token_another_sites_page_is_refused(client):
    problem(client.post("/predict", files=form(RED), headers={"Origin": "https://evil.example"}), 403)
    problem(client.post("/predict", files=form(RED), headers={"Origin": "null"}), 403)
    own = {"Origin": str(client.base_url)}
    assert client.post("/predict", files=form(RED), headers=own).status_code == 200


def test_another_host_needs_a_token_that_is_long_enough(tmp_path, monkeypatch):
    monkeypatch.delenv("RELISH_TOKEN", raising=False)
    model = onnx_tones(tmp_path / "model.onnx")
    assert "needs a token" in refused("serve", model, "--host", EVERYWHERE)
    monkeypatch.setenv("RELISH_TOKEN", "short")
    assert "short" not in refused("serve", model, "--host", EVERYWHERE)
    monkeypatch.delenv("RELISH_TOKEN")
    assert "there is no such file" in refused("serve", tmp_path / "none.onnx")
    file = tmp_path / "token"
    assert "cannot be read" in refused("serve", model, "--token-file", file)
    file.write_text("two words, and long enough")
    assert "without a blank" in refused("serve", model, "--token-file", file)


def test_a_port_that_is_taken_is_named(tmp_path):
    model = onnx_tones(tmp_path / "model.onnx")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in refused("serve", model, "--port", port)


def test_every_answer_carries_the_headers_that_bind_a_browser(client):
    for path in ("/", "/docs", "/static/page.js", "/classes", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_no_page_asks_another_host_for_anything(client):
    for path in ("/", "/docs", "/static/page.css", "/static/page.js", "/static/icon.svg"):
        text = client.get(path).text
        asked = re.findall(r"""(?:src|href|url|fetch|@import)[=(\s]+["']?(https?:|//)""", text)
        assert asked == [], path


# ---- a process of its own ---------------------------------------------------------------------------------------

BLOCKED = """
import sys
sys.modules["torch"] = None  # any import of it fails
from relish.cli.main import main
sys.argv = ["relish", "serve", *sys.argv[1:]]
main()
"""


def started(model: Path, *words: str, **environment: str) -> tuple[subprocess.Popen, str]:
    """A server without torch in a process of its own, and its address; to be used in a `with`, and killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED, str(model), "--port", "0", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r"page\s+(http://\S+)/$", line):
            return process, found[1]
    process.communicate()
    raise AssertionError(said)


def test_an_exported_file_is_served_without_torch_and_sigterm_lets_it_finish(tmp_path):
    process, address = started(onnx_tones(tmp_path / "model.onnx"), "--root-path", "/relish", RELISH_TOKEN=TOKEN)
    assert address.endswith("/relish")
    whole = httpx.Request("POST", f"{address}/predict", files=form(RED))
    with process:
        try:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            with httpx.Client(base_url=address, headers=headers, timeout=HANG, trust_env=False) as client:
                (row,) = client.post("/predict?secret=query", files=form(BLUE)).json()["predictions"]
            assert row["class"] == "blue"
            with connected(address) as plain:
                head = [f"POST {whole.url.path} HTTP/1.1", f"Authorization: Bearer {TOKEN}", "Expect: 100-continue"]
                head += [f"{name}: {value}" for name, value in whole.headers.items()]
                plain.sendall("\r\n".join([*head, "Connection: close", "", ""]).encode())
                assert plain.recv(65536).startswith(b"HTTP/1.1 100 ")  # the request is under way
                process.send_signal(signal.SIGTERM)
                wait_until(lambda: not takes_connections(address))
                plain.sendall(whole.read())
                answer = all_from(plain)
            log = process.stderr.read()
            assert process.wait() == 0
        finally:
            process.kill()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"][0]["class"] == "red"
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [(line["path"], line["status"], line["pictures"]) for line in lines] == [("/predict", 200, 1)] * 2
    assert TOKEN not in log
    assert "secret" not in log


def test_a_server_short_of_memory_says_so_and_goes_on():
    model = Explaining()
    real = model.predict, model.explain

    def starve(*_):
        raise MemoryError

    with serving(model) as client:
        model.predict = model.explain = starve
        for response in (
            client.post("/predict", files=form(RED, BLUE)),
            client.post("/explain", params={"class_name": "red"}, files=form(RED)),
        ):
            assert "memory" in problem(response, 503)
            assert response.headers["retry-after"]
        model.predict, model.explain = real
        assert client.post("/predict", files=form(RED)).status_code == 200


def test_a_terminal_that_is_closed_ends_the_server_as_sigterm_does(hears_sighup):
    heard = []
    with server._signals_once():
        signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))  # as uvicorn does
        signal.raise_signal(signal.SIGHUP)
    assert heard == ["SIGTERM"]
