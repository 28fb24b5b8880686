"""Pictures arrive in every dress that clients give them: base64 of all kinds, parts of forms with and without names."""

import base64
import contextlib
import textwrap
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relish.server.limits import Limits
from relish.server.uploads import decoded_base64
from tests.serving import BLUE, RED, Tones, serving

TRICKY = bytes(range(256)) + b"\xfb\xff\xfe"
"""Its base64 has every sign of the alphabet, and padding."""


def standard(content: bytes) -> str:
    return base64.b64encode(content).decode()


def urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()


@pytest.mark.parametrize(
    "written",
    [
        standard,
        urlsafe,
        lambda content: urlsafe(content).rstrip("="),
        lambda content: standard(content).rstrip("="),
        lambda content: "\n".join(textwrap.wrap(standard(content), 76)) + "\n",
        lambda content: "\r\n\t".join(textwrap.wrap(urlsafe(content), 64)),
        lambda content: f"data:image/png;base64,{standard(content)}",
        lambda content: f"DATA:image/png;charset=utf-8;BASE64,{quote(standard(content), safe='')}",
        lambda content: f" data:;base64,{urlsafe(content)}",
        lambda content: f"data:image/png,{quote(content, safe='')}",
    ],
)
@pytest.mark.parametrize("content", [TRICKY, TRICKY[:-1], TRICKY[:-2], RED])
def test_base64_is_read_however_it_is_written(written, content):
    assert decoded_base64(written(content)) == content


@pytest.mark.parametrize(
    "text", ["%%", "a", "QUJDR", "QU=JD", "ÄÖÜ", "<html>", "file:///etc/passwd", "data:;base64,%%"]
)
def test_what_is_no_base64_is_not_guessed_at(text):
    with pytest.raises(ValueError):
        decoded_base64(text)


@given(st.text(max_size=40) | st.from_regex(r"data:[a-z/;,=0-9%]*", fullmatch=True))
def test_any_text_is_either_decoded_or_refused(text):
    with contextlib.suppress(ValueError):
        assert isinstance(decoded_base64(text), bytes)


@pytest.fixture(scope="module")
def client():
    with serving(Tones(), Limits(body_bytes=200_000)) as client:
        yield client


def rows(response) -> list[tuple[str, str]]:
    assert response.status_code == 200, response.text
    return [(row["path"], row.get("class", row.get("error"))) for row in response.json()["predictions"]]


def test_a_data_address_is_answered_as_the_picture_it_holds(client):
    pictures = [
        {"name": "a", "base64": f"data:image/png;base64,{standard(RED)}"},
        {"base64": urlsafe(BLUE).rstrip("=")},
    ]
    assert rows(client.post("/predict", json={"pictures": pictures})) == [("a", "red"), ("picture 2", "blue")]


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=UTF-8", "application/json;x=1"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_json_may_have_parameters_and_a_byte_order_mark(client, kind, mark):
    body = mark + f'{{"pictures": [{{"base64": "{standard(RED)}"}}]}}'.encode()
    assert rows(client.post("/predict", content=body, headers={"Content-Type": kind})) == [("picture 1", "red")]


def part(disposition: str, content: bytes = RED, kind: str = "") -> bytes:
    kind = f"Content-Type: {kind}\r\n" if kind else ""
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n{kind}\r\n".encode() + content + b"\r\n"


@pytest.mark.parametrize(
    ("disposition", "kind", "name"),
    [
        ('name="file"; filename="a.png"', "image/png", "a.png"),
        ('name="files[]"; filename="a.png"', "", "a.png"),
        ('name=""; filename="a.png"', "", "a.png"),
        ("name=image;filename=a.png", "image/png", "a.png"),
        ('name="files"; filename="C:\\photos\\a.png"', "", "a.png"),
        ('name="files"; filename="été; 1.png"', "", "été; 1.png"),
        ("name=\"files\"; filename*=utf-8''caf%C3%A9.png", "", "picture 1"),
        ('name="files"', "image/png", "picture 1"),
        ('name="files"', "application/octet-stream", "picture 1"),
        ('name="files"; filename=""', "", "picture 1"),
    ],
)
def test_a_file_is_found_in_a_form_whatever_its_field_is_called(client, disposition, kind, name):
    body = part('name="comment"', b"not a file") + part(disposition, kind=kind) + b"--b--\r\n"
    headers = {"Content-Type": 'multipart/form-data; charset=utf-8; boundary="b"'}
    assert rows(client.post("/predict", content=body, headers=headers)) == [(name, "red")]


def test_several_pictures_in_fields_of_several_names_keep_their_order(client):
    files = [("image", ("1.png", RED)), ("files", ("2.png", BLUE)), ("image", ("1.png", b"text")), ("z", ("4", BLUE))]
    found = rows(client.post("/predict", files=files))
    assert [name for name, _ in found] == ["1.png", "2.png", "1.png", "4"]
    assert [said for _, said in found] == ["red", "blue", "not a picture: text file", "blue"]


@pytest.mark.parametrize(
    ("kind", "content", "status", "words"),
    [
        ("multipart/form-data", part('name="files"; filename="a"') + b"--b--\r\n", 400, "Leave Content-Type to"),
        ("multipart/form-data; boundary=", b"--\r\n", 400, "form"),
        ("multipart/form-data; boundary=b", b"", 400, "cut short"),
        ("multipart/form-data; boundary=b; charset=undefined", part('name="files"; filename="a"'), 400, "charset"),
        ("multipart/form-data; boundary=b", part('filename="a"') + b"--b--\r\n", 400, "name"),
        ("multipart/form-data; boundary=b", part('name="files"', b"dGV4dA==") + b"--b--\r\n", 422, "no picture"),
        ("application/json", b"", 422, "the body"),
        ("application/json", b"\xff\xfe{\x00}\x00", 422, "the body"),
        ("application/json", b'{"pictures": {"base64": ""}}', 422, "pictures"),
        ("application/json", b'{"pictures": [null]}', 422, "pictures.0"),
        ("application/x-www-form-urlencoded", b"files=x", 415, "form"),
        ("image/png", RED, 415, "form"),
        ("", b"", 415, "none"),
    ],
)
def test_a_body_that_holds_no_picture_is_refused_with_what_to_do(client, kind, content, status, words):
    headers = {"Content-Type": kind} if kind else {}
    response = client.post("/predict", content=content, headers=headers)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert words in f"{error['reason']} {error['hint']}"


def test_a_body_that_comes_in_chunks_is_read_as_one_that_says_its_length(client):
    whole = client.build_request("POST", "/predict", files=[("files", ("a.png", RED))])
    body, kind = whole.read(), whole.headers["content-type"]
    pieces = (body[i : i + 7] for i in range(0, len(body), 7))
    assert rows(client.post("/predict", content=pieces, headers={"Content-Type": kind})) == [("a.png", "red")]


@pytest.mark.parametrize(
    ("charset", "name"), [("unicode_escape", r"\ud800"), ("raw_unicode_escape", r"\ud800"), ("utf-7", "+2AA-")]
)
def test_a_name_in_a_charset_that_makes_no_text_is_answered(charset, name):
    part = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    with serving(Tones()) as client:
        answer = client.post("/predict", content=part + RED + b"\r\n--b--\r\n", headers=kind)
    assert [row["path"] for row in answer.json()["predictions"]] == ["?"]


def test_a_refusal_shows_a_name_that_would_steer_a_terminal_as_it_is_written():
    body = {"pictures": [{"name": "\x1b[2J\nx", "base64": "AAAA"}]}
    with serving(Tones()) as client:
        answer = client.post("/predict", json=body).json()
    assert answer["error"]["reason"].startswith("\\x1b[2J\\nx: ")
    assert answer["predictions"][0]["path"] == "\x1b[2J\nx"
