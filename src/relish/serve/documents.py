"""The shapes of what is sent, for the OpenAPI description.

In:   nothing.
Out:  pydantic models, and what the routes say of themselves.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from relish.serve.uploads import FORM, JSON, Base64Picture


class Row(BaseModel):
    """What the model says of one picture; `error` alone stands beside `path` where it could not be opened."""

    model_config = ConfigDict(populate_by_name=True)

    path: str = Field(description="The picture's name as it came, or its place, such as `picture 3`.")
    class_name: str | None = Field(default=None, alias="class", description="The class that is said.")
    probability: float | None = Field(default=None, description="Of that class, 0 to 1.")
    probabilities: dict[str, float] | None = Field(default=None, description="Of every class; they add up to 1.")
    unsure: bool | None = Field(default=None, description="Whether the model would rather not answer.")
    error: str | None = Field(default=None, description="Why there is no answer.")


class Rows(BaseModel):
    """One row a picture, in the order of the request."""

    predictions: list[Row]


class Problem(BaseModel):
    """Why a request is not answered."""

    status: int
    reason: str
    hint: str = Field(description="What to do next; may be empty.")


class Refused(BaseModel):
    """Every answer that is a no has this shape."""

    error: Problem
    predictions: list[Row] | None = Field(default=None, description="Where each picture has a reason of its own.")


class Taken(BaseModel):
    """What one request may hold."""

    body_bytes: int
    pixels: int = Field(description="Of one picture.")
    files: int


class Known(BaseModel):
    """What the model knows, and what the server takes."""

    model: str
    classes: list[str]
    unsure_below: float | None = Field(description="It is unsure of a class with less probability than this.")
    explains: bool = Field(description="Whether `/explain` can be asked.")
    limits: Taken


class Health(BaseModel):
    """Whether the server is well; it is where it can say so."""

    status: str
    waiting: int = Field(description="Pictures without an answer yet.")


class Overlay(BaseModel):
    """Where in a picture the model sees a class."""

    path: str
    class_name: str = Field(alias="class")
    overlay: str = Field(description="A PNG of the picture as the model saw it, as a data: address.")


_FORM_SCHEMA = {
    "type": "object",
    "required": ["files"],
    "properties": {"files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
}
_JSON_SCHEMA = {
    "type": "object",
    "required": ["pictures"],
    "properties": {"pictures": {"type": "array", "minItems": 1, "items": Base64Picture.model_json_schema()}},
}
PICTURES_IN: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {FORM: {"schema": _FORM_SCHEMA}, JSON: {"schema": _JSON_SCHEMA}},
    }
}
"""FastAPI would read the whole body for this; we read it piece by piece, so the description is written here."""

_NOES = {
    400: "The body is damaged.",
    401: "The token is missing or wrong.",
    403: "Another site's page asked.",
    408: "The body comes too slowly.",
    413: "Too many bytes, or too many pictures.",
    415: "Neither a form nor JSON.",
    421: "The Host is another one.",
    422: "No picture in it could be read; each has its reason.",
    500: "The server failed.",
    503: "Too much is under way; Retry-After says when to come again.",
}


def noes(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How a route may refuse, for its description."""
    return {status: {"model": Refused, "description": _NOES[status]} for status in statuses}


ANY_ROUTE = (403, 421, 500)
WITH_TOKEN = (401, *ANY_ROUTE)
WITH_PICTURES = (400, 408, 413, 415, 422, 503, *WITH_TOKEN)
