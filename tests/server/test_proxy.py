"""The server behind a proxy that puts it under a prefix, and takes the prefix off or leaves it on.

A small proxy of the test's own stands in wherever nginx or Caddy is not installed.
"""

import http.client
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from relish.core.errors import BadInput
from relish.server.app import create_app
from relish.server.middleware import valid_root_path
from tests.browser import watched_page
from tests.commands import refused
from tests.processes import held_port, wait_until
from tests.serving import BLUE, HANG, RED, Explaining, Tones, onnx_tones, serving

PREFIX = "/relish"
TOKEN = "0123456789abcdef-not-a-secret"  # noqa: S105


# ---- proxies: each takes the port of the server, the prefix, and whether to take it off --------------------------


@contextmanager
def own_proxy(folder: Path, upstream: int, strip: bool) -> Iterator[str]:
    """Python's own HTTP server, in a thread: passes on method, path, headers and body, one connection each."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            path = self.path.removeprefix(PREFIX) if strip else self.path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "keep-alive", "expect")}
            with closing(http.client.HTTPConnection("127.0.0.1", upstream, timeout=HANG)) as connection:
                connection.request(self.command, path, body, {**headers, "X-Forwarded-Proto": "http"})
                answer = connection.getresponse()
                content = answer.read()
            with suppress(ConnectionError):  # a browser that goes to another page waits for no answer
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "date"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_DELETE = pass_on

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location {prefix}/ {{
      proxy_pass http://127.0.0.1:{upstream}{tail};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      client_max_body_size 21m; client_body_buffer_size 21m;
    }}
  }}
}}
"""

CADDY = """
{{
  admin off
  auto_https off
  persist_config off
}}
http://127.0.0.1:{port} {{
  {handle} {prefix}/* {{
    reverse_proxy 127.0.0.1:{upstream}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: int, strip: bool) -> Iterator[str]:
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx") or pytest.skip("needs nginx")
    words = {"folder": folder, "prefix": PREFIX, "upstream": upstream, "tail": "/" if strip else ""}
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with held_port() as port:
        (folder / "nginx.conf").write_text(NGINX.format(port=port, **words))
        with running(command, port):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def caddy(folder: Path, upstream: int, strip: bool) -> Iterator[str]:
    program = shutil.which("caddy") or pytest.skip("needs Caddy")
    words = {"prefix": PREFIX, "upstream": upstream, "handle": "handle_path" if strip else "handle"}
    with held_port() as port:
        (folder / "Caddyfile").write_text(CADDY.format(port=port, **words))
        with running([program, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"], port):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A program that listens at a port by the time the block begins, and ends with it."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:

        def listens() -> bool:
            assert program.poll() is None, command
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=HANG).close()
                return True
            return False

        try:
            wait_until(listens)
            yield
        finally:
            program.terminate()


Proxy = Callable[[Path, int, bool], "contextmanager"]
PROXIES = pytest.mark.parametrize("proxy", [own_proxy, nginx, caddy])
STRIPS = pytest.mark.parametrize("strip", [True, False], ids=["takes the prefix off", "leaves it on"])


@contextmanager
def behind(
    proxy, folder: Path, strip: bool, model=None, root_path: str = PREFIX, token=TOKEN
) -> Iterator[httpx.Client]:
    """A client of the server behind a proxy; its addresses begin with the prefix."""
    with (
        serving(model or Tones(), token=token, root_path=root_path) as direct,
        proxy(folder, urlsplit(str(direct.base_url)).port, strip) as address,
        httpx.Client(base_url=f"{address}{PREFIX}", headers=direct.headers, timeout=HANG, trust_env=False) as client,
    ):
        yield client


def named_in(page: httpx.Response) -> set[str]:
    """The addresses that a page names, as a browser understands them."""
    found = re.findall(r"""(?:href|src)="([^"]+)\"""", page.text)
    return {urljoin(str(page.url), address) for address in found}


# ---- what has to work there --------------------------------------------------------------------------------------


@PROXIES
@STRIPS
def test_pages_scripts_icons_description_and_answers_are_found_under_the_prefix(proxy, strip, tmp_path):
    with behind(proxy, tmp_path, strip, Explaining()) as client:
        asked = set()
        for path in ("/", "/docs", "/docs/"):
            page = client.get(path)
            assert page.status_code == 200, path
            asked |= named_in(page)
        assert {urlsplit(address).path.removeprefix(PREFIX) for address in asked} == {
            "/", "/docs", "/openapi.json", "/static/icon.svg", "/static/page.css", "/static/page.js"
        }  # fmt: skip
        for address in asked:
            assert client.get(address).status_code == 200, address
        assert f"{str(client.base_url).rstrip('/')}/predict" in client.get("/docs").text
        assert client.get("/openapi.json").json()["servers"] == [{"url": PREFIX}]
        for path in ("/predict", "/predict/"):
            (row,) = client.post(path, files={"files": ("a.png", RED)}).json()["predictions"]
            assert row["class"] == "red"
        assert client.post("/explain?class_name=red", files={"files": ("a.png", BLUE)}).status_code == 200
        assert client.get("/classes").json()["classes"] == ["blue", "red"]
        assert client.get("/health").json() == {"status": "ok", "waiting": 0}
        assert client.head("/").status_code == 200
        # The server refuses by the length alone and closes; nginx, still sending, may see only that and say 502.
        refusals = (client.post("/predict", files={"files": ("a.png", bytes(20_500_000))}) for _ in range(5))
        assert 413 in (refusal.status_code for refusal in refusals)
        assert client.get("/classes", headers={"Authorization": ""}).status_code == 401


@PROXIES
def test_behind_a_proxy_that_takes_the_prefix_off_the_page_needs_no_option(proxy, tmp_path):
    with behind(proxy, tmp_path, strip=True, root_path="") as client:
        for path in ("/", "/docs", "/docs/"):
            for address in named_in(client.get(path)):
                assert urlsplit(address).path.startswith(f"{PREFIX}/")
                assert client.get(address).status_code == 200, (path, address)


@pytest.mark.slow
@STRIPS
def test_the_page_works_in_a_browser_under_the_prefix(strip, tmp_path):
    with (
        behind(own_proxy, tmp_path, strip, Explaining(), token=None) as client,
        watched_page(f"{str(client.base_url).rstrip('/')}/") as seen,
    ):
        page = seen.page
        page.locator("#about").filter(has_text="knows").wait_for()
        page.locator("#file").set_input_files([{"name": "red.png", "mimeType": "image/png", "buffer": RED}])
        page.locator("#said").filter(has_text="red.png: red").wait_for()
        page.get_by_role("button", name="Show where it looks").click()
        page.locator("#said").filter(has_text="Lit up").wait_for()
        page.get_by_role("link", name="how to").click()
        page.get_by_role("link", name="Try the model").click()
        page.locator("#about").filter(has_text="knows").wait_for()
        assert seen.complaints == []


# ---- without a proxy ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    with serving(Tones()) as client:
        yield client


def test_slashes_at_the_end_or_doubled_lead_to_the_same_answer_without_a_redirect(client):
    here = str(client.base_url).rstrip("/")  # written out: to httpx, two slashes would begin a host
    for path in ("/health/", "//health", "/health//", "///health"):
        assert client.get(here + path).json()["status"] == "ok", path
    for path in ("/docs/", "//"):
        assert "text/html" in client.get(here + path).headers["content-type"]
    assert client.post(f"{here}//predict/", files={"files": RED}).status_code == 200
    assert client.get("/health/x").status_code == 404
    assert 'href="../static/page.css"' in client.get("/docs/").text
    assert 'path="/health"' in client.get("/metrics").text


def test_a_prefix_that_a_header_claims_is_not_believed(client):
    headers = {"X-Forwarded-Prefix": "/evil", "X-Script-Name": "/evil", "X-Forwarded-Host": "evil.example"}
    for path in ("/", "/docs", "/openapi.json"):
        assert "evil" not in client.get(path, headers=headers).text
    assert client.get("/evil/health", headers=headers).status_code == 404


def test_the_description_writes_https_where_the_proxy_has_it():
    with serving(Tones(), root_path=PREFIX) as client:
        for given, written in (("https", "https"), ("http", "http"), ("javascript", "http")):
            text = client.get("/docs", headers={"X-Forwarded-Proto": given, "Host": "localhost"}).text
            assert f" {written}://localhost/relish/predict" in text


def test_head_is_answered_as_get_without_a_body():
    with serving(Tones(), token=TOKEN) as client:
        for path in ("/", "/docs", "/openapi.json", "/static/page.js", "/static/icon.svg", "/classes", "/health"):
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (200, b""), path
            assert head.headers["content-length"] == str(len(got.content))
            assert head.headers["content-type"] == got.headers["content-type"]
        assert client.head("/metrics").status_code == 200
        assert client.head("/classes", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.head("/predict").status_code == 405
        assert client.head("/nothing").status_code == 404
        assert "head" not in client.get("/openapi.json").json()["paths"]["/classes"]
        assert client.delete("/classes").headers["allow"] == "GET, HEAD"


def test_a_client_that_waits_for_leave_to_send_gets_it_or_the_refusal_at_once(client):
    """curl does with bodies above 1 MB."""
    request = client.build_request("POST", "/predict", files={"files": ("a.png", RED)})
    body, kind = request.read(), request.headers["content-type"]
    port = urlsplit(str(client.base_url)).port

    def asked(length: int) -> tuple[socket.socket, bytes]:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        plain = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=HANG))
        plain.sendall(f"{head}Expect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        return plain, plain.recv(65536)

    with ExitStack() as opened:
        plain, first = asked(len(body))
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        plain.sendall(body)
        assert plain.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert asked(10**9)[1].startswith(b"HTTP/1.1 413 ")


def test_an_offer_of_http_2_is_passed_over_in_silence(client, caplog):
    """Java's client makes it in every request."""
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"}
    assert client.post("/predict", files={"files": RED}, headers=headers).status_code == 200
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("text", "root"), [("/relish", "/relish"), ("relish/", "/relish"), ("/a/b-1/", "/a/b-1"), ("/", ""), ("", "")]
)
def test_a_prefix_is_read_with_and_without_slashes(text, root):
    assert valid_root_path(text) == root


@pytest.mark.parametrize(
    "text", ["C:/Program Files/Git/relish", "https://x.example/relish", "/a b", "/..", "/ä", "/%61"]
)
def test_a_prefix_that_is_no_plain_path_is_refused(text, tmp_path):
    model = onnx_tones(tmp_path / "model.onnx")
    assert "--root-path /relish" in refused("serve", model, "--root-path", text)


@pytest.mark.parametrize("text", ["/docs", "/static", "/predict"])
def test_a_prefix_that_is_a_path_of_the_servers_own_is_refused(text):
    with pytest.raises(BadInput, match=text):
        create_app(Tones(), root_path=text)
