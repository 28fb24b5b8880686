"""Requests to the server with hostile headers, forms and JSON: an answer of its own shape, never a failure."""

import base64
import json
import logging
from functools import cache

import pytest
from hypothesis import strategies as st
from starlette.testclient import TestClient

from relish.server.app import create_app
from relish.server.limits import Limits
from tests.fuzz.harness import assert_readable, folder, fuzz, kept_in
from tests.fuzz.mutation import WORDS, mutated
from tests.serving import RED, Explaining

LIMITS = Limits(body_bytes=50_000, pixels=100_000, files=3)
BOUNDARY = "b0undary"
PATHS = (
    "/predict",
    "/predict",
    "/predict",
    "/predict/",
    "/explain?class_name=red",
    "/explain",
    "/",
    "/docs",
    "/health",
    "/x",
    "/%ff",
)
METHODS = ("POST", "POST", "POST", "GET", "HEAD", "PUT", "OPTIONS", "TRACE")
HEADERS = (
    *(("content-type", value) for value in ("", "multipart/form-data", "multipart/form-data; boundary=", "text/plain")),
    *(("content-type", "application/json; x"),),
    *(
        ("content-type", f'multipart/form-data; boundary="{"b" * 300}"'),
        ("content-type", "multipart/form-data; boundary=\xff"),
    ),
    *(("content-length", value) for value in ("0", "1", "99999999999", "9" * 5000)),
    *(("content-encoding", value) for value in ("gzip", "identity", "x")),
    *(("host", value) for value in ("127.0.0.1:x", "[::1]", "[", "localhost", "evil", "", "127.0.0.1:999999", "\xff")),
    *(("origin", value) for value in ("null", "http://[", "http://localhost:1", "http://evil", "\xff")),
    *(
        ("x-forwarded-proto", "https"),
        ("x-forwarded-prefix", "/../"),
        ("authorization", "Bearer \xff"),
        ("range", "bytes=0-"),
    ),
    *(("expect", "100-continue"), ("cookie", "\xff=;"), ("accept", "*/*;q=x"), ("transfer-encoding", "chunked")),
)
FIELDS = ("files", "", "é", "files[]", "x" * 300)

pictures = st.one_of(st.just(RED), mutated([RED, b"GIF89a", b""], most=2))
texts = st.one_of(st.sampled_from([word for word in WORDS if len(word) < 2000]), st.text(max_size=8))
encodings = st.one_of(
    st.just(base64.b64encode(RED).decode()),
    pictures.map(lambda content: base64.b64encode(content).decode()),
    pictures.map(lambda content: f"data:image/png;base64,{base64.urlsafe_b64encode(content).decode()}"),
    texts,
)
things = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | texts, lambda x: st.lists(x, max_size=2)
)
documents = st.one_of(
    st.lists(st.fixed_dictionaries({"base64": encodings}, optional={"name": texts, "x": things}), max_size=4).map(
        lambda rows: {"pictures": rows}
    ),
    st.dictionaries(st.sampled_from(["pictures", "name", "x"]), things, max_size=2),
    things,
)


def form(parts: list[tuple[str, str, bytes, str]], ended: bool) -> bytes:
    body = b""
    for field, name, content, kind in parts:
        head = kind.format(field=field, name=name).encode("utf-8", errors="surrogatepass")
        body += f"--{BOUNDARY}\r\n".encode() + head + b"\r\n\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode() * ended


DISPOSITIONS = (
    'Content-Disposition: form-data; name="{field}"; filename="{name}"',
    'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: image/png',
    "Content-Disposition: form-data; name={field}; filename*=utf-8''{name}",
    "Content-Disposition: form-data; name={field}; filename*=undefined''{name}",
    "Content-Disposition: form-data; filename={name}; filename={field}",
    'Content-Disposition: form-data; name="{field}"',
    "Content-Disposition: {name}",
    "Content-Type: image/png",
    "X: {name}",
    "",
)
NAMES = (r"\ud800", r"\x1b[2J", "+2AA-", "../x.png", "a.png")
CHARSETS = (
    "unicode_escape",
    "utf-7",
    "utf-16-le",
    "hex",
    "undefined",
    "idna",
    "punycode",
    "raw_unicode_escape",
    "\xff",
)

named = st.one_of(st.sampled_from(NAMES), texts)
parts = st.lists(st.tuples(st.sampled_from(FIELDS), named, pictures, st.sampled_from(DISPOSITIONS)), max_size=5)
forms = st.builds(form, parts, st.sampled_from([True, True, False]))
form_types = st.one_of(st.just(""), st.sampled_from(CHARSETS).map("; charset={}".format)).map(
    lambda charset: f"multipart/form-data; boundary={BOUNDARY}{charset}"
)
bodies = st.one_of(
    st.tuples(form_types, forms),
    st.tuples(st.just("application/json"), documents.map(lambda found: json.dumps(found).encode())),
    st.tuples(st.just("application/json"), mutated([b'{"pictures":[{"name":"a","base64":"AAAA"}]}', b"[" * 9000])),
    st.tuples(form_types, forms.flatmap(lambda body: mutated([body]))),
)
requests = st.tuples(
    st.sampled_from(METHODS), st.sampled_from(PATHS), bodies, st.lists(st.sampled_from(HEADERS), max_size=2)
)


@cache
def client() -> TestClient:
    """Of a server in this process, which ends with the tests of this file."""
    made = TestClient(create_app(Explaining(), LIMITS), base_url="http://127.0.0.1", raise_server_exceptions=True)
    return made.__enter__()


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    if client.cache_info().currsize:
        client().__exit__()
        client.cache_clear()


@pytest.fixture
def _quiet(monkeypatch):
    """What a hostile request is refused with is logged; a hundred and fifty of them hide what failed."""
    monkeypatch.setattr(logging.getLogger("relish.server"), "disabled", True)


@pytest.mark.usefixtures("_quiet")
@fuzz(requests, examples=150)
def test_every_request_is_answered_in_the_servers_own_words(given):
    method, path, (kind, body), further = given
    headers = [("content-type", kind.encode("latin-1"))] * all(name != "content-type" for name, _ in further)
    headers += [(name, value.encode("latin-1")) for name, value in further]
    with folder() as here, kept_in(here):
        answer = client().request(method, path, content=body, headers=headers, follow_redirects=False)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400 and method != "HEAD":
            error = answer.json()["error"]
            assert set(error) == {"status", "reason", "hint"}
            assert_readable(error["reason"], lines=1)
            if error["hint"]:
                assert_readable(error["hint"], lines=1)
        elif path.startswith("/predict") and method == "POST":
            for row in answer.json()["predictions"]:
                assert row.get("error") or row["class"] in ("blue", "red")
