"""Read uploaded images from a request: a form (multipart/form-data) with files, or JSON with images in base64.

The body is read chunk by chunk, counted and timed, and refused at the first byte over the upload limit
(`Limits.body_bytes`); nothing is written to disk.
"""

import asyncio
from base64 import b64decode
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from relish.server.limits import Limits, Refusal, RequestBytes, megabytes

FORM, JSON = "multipart/form-data", "application/json"
OTHER_FIELDS = 16
"""Fields of a form that are no files, at most; they are ignored."""
NAME_LENGTH = 1000
"""Characters of an image's name, at most; file systems allow 255."""


@dataclass(frozen=True)
class Upload:
    """One image file as it was sent."""

    name: str
    content: bytes


class Base64Picture(BaseModel):
    """One picture in JSON."""

    name: str = Field(default="", max_length=NAME_LENGTH, description="What to call it in the answer.")
    base64: str = Field(
        description="The bytes of a picture file; URL-safe, in lines, without padding or as a data: address, too."
    )


class Base64Pictures(BaseModel):
    """The JSON that `/predict` takes."""

    pictures: list[Base64Picture] = Field(min_length=1)


class _InMemoryParser(MultiPartParser):
    """Starlette's form parser, with files kept in memory (the upload limit bounds them); a form cut short fails."""

    _ended = False

    def __init__(self, request: Request, chunks: AsyncGenerator[bytes, None], limits: Limits) -> None:
        super().__init__(request.headers, self._whole(chunks), max_files=limits.files, max_fields=OTHER_FIELDS)
        self.spool_max_size = limits.body_bytes + 1

    def on_headers_finished(self) -> None:
        """Starlette takes a part with a `filename` for a file; so is one with `filename*`, or that says it is bytes."""
        part = self._current_part
        disposition = (part.content_disposition or b"").lower()
        kind = dict(part.item_headers).get(b"content-type", b"").lower()
        binary = b"filename*=" in disposition or kind.startswith((b"image/", b"application/octet-stream"))
        if part.content_disposition and binary and b"filename=" not in disposition:
            part.content_disposition += b'; filename=""'
        super().on_headers_finished()

    def on_end(self) -> None:
        """Starlette calls this at the last boundary."""
        self._ended = True

    async def _whole(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._ended:
            raise MultiPartException("it is cut short, or has no boundary at its end.")


async def read_uploads(request: Request, limits: Limits, held: RequestBytes) -> list[Upload]:
    """The images of a request, in order.

    Args:
        held: counts the bytes received.

    Raises:
        Refusal: 400, the body is damaged; 408, it comes too slowly; 413, it is too large or holds too many images;
            415, it is neither a form nor JSON; 422, it holds no image; 503, a concurrency limit is reached.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (FORM, JSON) or request.headers.get("content-encoding", "").lower() not in ("", "identity"):
        raise Refusal(
            415,
            f"a body of type {kind[:80] or 'none'} is not read.",
            hint=f"Send a form ({FORM}) with files, or {JSON}; uncompressed.",
        )
    chunks = _chunks(request, limits, held)
    uploads = await (_form(request, chunks, limits) if kind == FORM else _json(chunks, limits))
    if not uploads:
        raise Refusal(422, "there is no picture in the request.", hint="Send one or more files, in fields named files.")
    return uploads


async def _chunks(request: Request, limits: Limits, held: RequestBytes) -> AsyncGenerator[bytes, None]:
    """The body chunk by chunk, counted and timed."""
    too_large = Refusal(
        413, f"the request is larger than {megabytes(limits.body_bytes)}.", hint="Send fewer or smaller pictures."
    )
    declared = request.headers.get("content-length", "0")[
        :20
    ]  # as many digits as any length needs; the rest is counted
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise too_large
    clock = asyncio.get_running_loop().time
    stream, end = aiter(request.stream()), clock() + limits.send_seconds
    while True:
        try:
            async with asyncio.timeout(end + held.count / limits.send_rate - clock()):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refusal(408, "the request comes too slowly.", hint="Try a faster connection.") from None
        held.add(len(chunk))
        if held.count > limits.body_bytes:
            raise too_large
        yield chunk


async def _form(request: Request, chunks: AsyncGenerator[bytes, None], limits: Limits) -> list[Upload]:
    try:
        form = await _InMemoryParser(request, chunks, limits).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(limits) from None
        boundary = "boundary=" not in request.headers["content-type"]
        hint = "Leave Content-Type to the program that sends the form: only it knows the boundary." if boundary else ""
        raise Refusal(400, f"the form cannot be read: {error.message}", hint=hint) from None
    except UnicodeError:  # of the codec that is called undefined, among others
        raise Refusal(400, "the form cannot be read: its charset is no text's.") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [Upload(_name(file.filename, number), await file.read()) for number, file in enumerate(files, 1)]
    await form.close()
    return uploads


async def _json(chunks: AsyncGenerator[bytes, None], limits: Limits) -> list[Upload]:
    body = b"".join([chunk async for chunk in chunks]).removeprefix(BOM_UTF8)
    try:
        images = Base64Pictures.model_validate_json(body).pictures
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise Refusal(422, f"{place}: {first['msg']}.", hint='Send {"pictures": [{"name": …, "base64": …}]}.') from None
    if len(images) > limits.files:
        raise _too_many(limits)
    return [_decoded(image, number) for number, image in enumerate(images, 1)]


def _decoded(image: Base64Picture, number: int) -> Upload:
    try:
        return Upload(_name(image.name, number), decoded_base64(image.base64))
    except ValueError:
        raise Refusal(422, f"pictures.{number - 1}.base64: not base64.") from None


_STANDARD, _BLANKS = bytes.maketrans(b"-_", b"+/"), b" \t\r\n\v\f"


def decoded_base64(text: str) -> bytes:
    """The bytes behind base64, however it is written.

    It may use the URL-safe alphabet (RFC 4648, section 5), lack its padding, be broken into lines (RFC 2045), or be a
    `data:` address (RFC 2397), whose bytes may be percent-encoded instead.

    Raises:
        ValueError: it is no base64.
    """
    encoded = text.strip().encode("ascii")
    if encoded[:5].lower() == b"data:":
        head, _, payload = encoded.partition(b",")
        encoded = unquote_to_bytes(payload)
        if not head.lower().replace(b" ", b"").endswith(b";base64"):
            return encoded
    encoded = encoded.translate(_STANDARD, _BLANKS).rstrip(b"=")
    return b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)


def _name(name: str | None, number: int) -> str:
    # A form may name a charset, such as UTF-7, that makes half of a surrogate pair, which no answer can hold.
    return name[:NAME_LENGTH].encode(errors="replace").decode() if name else f"picture {number}"


def _too_many(limits: Limits) -> Refusal:
    return Refusal(413, f"more than {limits.files} pictures in one request.", hint="Send them in several.")
