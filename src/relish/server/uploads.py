"""Pictures out of a request's body, in memory that is counted and a time that is bounded.

In:   a form (multipart/form-data) with files, or JSON with pictures in base64.
Out:  `Upload`s, in order.

A body is read piece by piece and refused at the first byte over the limit; nothing is written to disk.
"""

import asyncio
import binascii
from base64 import b64decode
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from relish.server.limits import Limits, Refusal, Seat, megabytes

FORM, JSON = "multipart/form-data", "application/json"
OTHER_FIELDS = 16
"""Fields of a form that are no files; they are passed over."""
NAME_LENGTH = 1000
"""Characters of a picture's name; file systems allow 255."""


@dataclass(frozen=True)
class Upload:
    """One picture as it came."""

    name: str
    content: bytes


class Base64Picture(BaseModel):
    """One picture in JSON."""

    name: str = Field(default="", max_length=NAME_LENGTH, description="What to call it in the answer.")
    base64: str = Field(description="The bytes of a picture file.")


class Base64Pictures(BaseModel):
    """The JSON that `/predict` takes."""

    pictures: list[Base64Picture] = Field(min_length=1)


class _InMemory(MultiPartParser):
    """Starlette's, whose files never go to disk: the body's limit bounds them already. A form without its end fails."""

    _ended = False

    def __init__(self, request: Request, chunks: AsyncGenerator[bytes, None], limits: Limits) -> None:
        super().__init__(request.headers, self._whole(chunks), max_files=limits.files, max_fields=OTHER_FIELDS)
        self.spool_max_size = limits.body_bytes + 1

    def on_end(self) -> None:
        """The last boundary was met."""
        self._ended = True

    async def _whole(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._ended:
            raise MultiPartException("it is cut short, or has no boundary at its end.")


async def read_uploads(request: Request, limits: Limits, seat: Seat) -> list[Upload]:
    """The pictures of a request.

    Raises:
        Refusal: 400, the body is damaged; 408, it comes too slowly; 413, it is too large or holds too many pictures;
            415, it is neither a form nor JSON; 422, it holds no picture; 503, too much is under way.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (FORM, JSON) or request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(
            415,
            f"a body of type {kind[:80] or 'none'} is not read.",
            hint=f"Send a form ({FORM}) with files, or {JSON}; uncompressed.",
        )
    chunks = _chunks(request, limits, seat)
    uploads = await (_form(request, chunks, limits) if kind == FORM else _json(chunks, limits))
    if not uploads:
        raise Refusal(422, "there is no picture in the request.", hint="Send one or more files, in fields named files.")
    return uploads


async def _chunks(request: Request, limits: Limits, seat: Seat) -> AsyncGenerator[bytes, None]:
    """The body piece by piece, counted and timed."""
    too_large = Refusal(
        413, f"the request is larger than {megabytes(limits.body_bytes)}.", hint="Send fewer or smaller pictures."
    )
    if int(request.headers.get("content-length", 0)) > limits.body_bytes:
        raise too_large
    clock = asyncio.get_running_loop().time
    stream, end = aiter(request.stream()), clock() + limits.send_seconds
    while True:
        try:
            async with asyncio.timeout(end + seat.held / limits.send_rate - clock()):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refusal(408, "the request comes too slowly.", hint="Try a faster connection.") from None
        seat.hold(len(chunk))
        if seat.held > limits.body_bytes:
            raise too_large
        yield chunk


async def _form(request: Request, chunks: AsyncGenerator[bytes, None], limits: Limits) -> list[Upload]:
    try:
        form = await _InMemory(request, chunks, limits).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(limits) from None
        raise Refusal(400, f"the form cannot be read: {error.message}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [Upload(_named(file.filename, place), await file.read()) for place, file in enumerate(files, 1)]
    await form.close()
    return uploads


async def _json(chunks: AsyncGenerator[bytes, None], limits: Limits) -> list[Upload]:
    body = b"".join([chunk async for chunk in chunks])
    try:
        given = Base64Pictures.model_validate_json(body).pictures
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise Refusal(422, f"{place}: {first['msg']}.", hint='Send {"pictures": [{"name": …, "base64": …}]}.') from None
    if len(given) > limits.files:
        raise _too_many(limits)
    return [_decoded(picture, place) for place, picture in enumerate(given, 1)]


def _decoded(picture: Base64Picture, place: int) -> Upload:
    try:
        return Upload(_named(picture.name, place), b64decode(picture.base64, validate=True))
    except (binascii.Error, ValueError):
        raise Refusal(422, f"pictures.{place - 1}.base64: not base64.") from None


def _named(name: str | None, place: int) -> str:
    return name[:NAME_LENGTH] if name else f"picture {place}"


def _too_many(limits: Limits) -> Refusal:
    return Refusal(413, f"more than {limits.files} pictures in one request.", hint="Send them in several.")
