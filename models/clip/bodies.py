"""Reads a call's body: images by multipart form, as the body itself, or in JSON as base64; and the options beside them."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pictures import MIB, MOST_BYTES
from problems import Problem, invalid
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

MOST_IMAGES = 32
MOST_FIELDS = 64
MOST_FIELD_BYTES = 64 * 1024
MOST_BODY_BYTES = 32 * MIB
MOST_BYTES_AT_ONCE = 96 * MIB
"""Of all bodies that are held at the same time; who comes later waits."""


@dataclass(slots=True)
class Body:
    """What a call brought along.

    Args:
        images: The bytes of each, in their order.
        options: Everything else by name, the query's and the body's; of a form every value is text, or a list of texts.
        several: Whether the caller asked for a list of answers, though it be one.
    """

    images: list[bytes] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    several: bool = False


class _Admission:
    """Lets so many bytes of bodies be held at once."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def held(self, amount: int) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            async with self._changed:
                self._left += amount
                self._changed.notify_all()


_admission = _Admission(MOST_BYTES_AT_ONCE)


@asynccontextmanager
async def body_of(request: Request) -> AsyncIterator[Body]:
    """The call's images and options, held for the length of the block.

    Raises:
        Problem: The body is too large, of another kind, or not what it says it is.
    """
    async with _admitted(request) as counted:
        yield await _read(counted)


@asynccontextmanager
async def call_of(request: Request) -> AsyncIterator[bytes]:
    """The call's body as it is, held for the length of the block.

    Raises:
        Problem: It is too large, or ends too early.
    """
    async with _admitted(request) as counted:
        yield await _bytes(counted)


@asynccontextmanager
async def _admitted(request: Request) -> AsyncIterator[Request]:
    length = request.headers.get("content-length", "")
    expected = int(length) if length.isascii() and length.isdigit() else MOST_BODY_BYTES
    if expected > MOST_BODY_BYTES:
        raise _too_large()
    # A form's files are kept a second time while they are read.
    async with _admission.held(expected * 2):
        yield _counted(request)


async def _bytes(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise _cut_off() from error


def _counted(request: Request) -> Request:
    """The same request, which ends with a problem where it does not keep to the limit that it did not announce."""
    read = 0

    async def receive() -> Message:
        nonlocal read
        message = await request.receive()
        read += len(message.get("body", b""))
        if read > MOST_BODY_BYTES:
            raise _too_large()
        return message

    return Request(request.scope, receive)


async def _read(request: Request) -> Body:
    body = Body(options=_options(request.query_params.multi_items()))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        await _read_form(request, body)
    elif kind == "application/json" or kind.endswith("+json"):
        _read_json(await _bytes(request), body)
    elif kind in {"", "application/octet-stream", "application/x-www-form-urlencoded"} or kind.startswith("image/"):
        # curl names the last but one where it is told nothing.
        body.images = [content] if (content := await _bytes(request)) else []
    else:
        mend = "Send an image as multipart/form-data, image/*, application/octet-stream, or base64 in application/json."
        raise Problem(415, "type_unknown", f"Bodies of the type {kind[:80]!r} are not read.", mend)
    if len(body.images) > MOST_IMAGES:
        raise Problem(413, "too_many_images", f"A call carries at most {MOST_IMAGES} images.", "Send the rest in another call.")
    return body


async def _read_form(request: Request, body: Body) -> None:
    try:
        form = await request.form(max_files=MOST_IMAGES + 1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    except ClientDisconnect as error:
        raise _cut_off() from error
    except (HTTPException, MultiPartException) as error:
        raise Problem(400, "form_unreadable", f"The form cannot be read: {getattr(error, 'detail', error)}", "Send it whole.") from error
    try:
        # One more byte than allowed tells that an image is too large.
        body.images = [await each.read(MOST_BYTES + 1) for _, each in form.multi_items() if isinstance(each, UploadFile)]
        body.options |= _options([(name, value) for name, value in form.multi_items() if isinstance(value, str)])
    finally:
        await form.close()


def _options(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    names = dict.fromkeys(name for name, _ in pairs)
    found = {name: [value for own, value in pairs if own == name] for name in names}
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def _read_json(content: bytes, body: Body) -> None:
    try:
        told = json.loads(content) if content else {}
    except (ValueError, RecursionError) as error:
        raise Problem(400, "json_unreadable", "The body is not JSON.", "Send a JSON object.") from error
    if not isinstance(told, dict):
        raise Problem(422, "invalid_request", "The body is no JSON object.", 'Send an object, such as {"image": "<base64>"}.')
    images = told.pop("images", None)
    if images is not None and not isinstance(images, list):
        raise invalid("images", "must be a list of images in base64")
    body.several = images is not None
    single = [told.pop("image")] if "image" in told else []
    body.images = [from_base64(each) for each in [*single, *(images or [])]]
    body.options |= told


def from_base64(text: object) -> bytes:
    """The bytes of an image in base64, also of a `data:` URL.

    Raises:
        Problem: It is none.
    """
    if not isinstance(text, str):
        raise invalid("image", "must be a text in base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("image", "is not base64") from error


def _too_large() -> Problem:
    return Problem(413, "body_too_large", f"A body has at most {MOST_BODY_BYTES // MIB} MiB.", "Send fewer or smaller images.")


def _cut_off() -> Problem:
    return Problem(400, "cut_off", "The call ended before its body.", "Send it again.")
