"""The forms of our pages: read as they are sent, and shown again with what was wrong."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, TypeVar
from urllib.parse import parse_qs

from fastapi import Depends, Request

from modelyard.domain.errors import Kind, Malformed, ModelyardError, TooLarge, WrongType

MOST_BYTES = 65_536
MOST_FIELDS = 200
MEDIA_TYPE = "application/x-www-form-urlencoded"
# A browser reads a backslash as a slash, leaves tabs and line ends out, and takes two slashes for the beginning of a host.
_OWN_PATH = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]{0,999})?")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """What a person typed; a name that was not sent is empty."""

    values: Mapping[str, list[str]]

    def one(self, name: str) -> str:
        """The first value of this name."""
        return self.values.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Every value of this name that is not empty, as checkboxes send them."""
        return [value for value in self.values.get(name, []) if value]


async def _read(request: Request) -> Form:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise WrongType("form_expected", "This address takes a form.", f"Send it as {MEDIA_TYPE}, or use the page.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise TooLarge("form_too_large", f"The form is larger than {MOST_BYTES} bytes.", "Type less.")
    try:
        return Form(parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"))
    except ValueError as error:
        raise Malformed("form_unreadable", "The form cannot be read.", "Use the page, in UTF-8.") from error


Typed = Annotated[Form, Depends(_read)]
"""The form of a route; read once it is known that the caller may send it."""


def own_path(text: str, otherwise: str = "/") -> str:
    """The path, where it leads to a page of ours and nowhere else; `otherwise` in its place."""
    return text if _OWN_PATH.fullmatch(text) else otherwise


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that is wrong, and the form's field that it leads to."""

    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem as a form shows it."""

    entries: list[Entry]
    mend: str
    fields: dict[str, str] = field(default_factory=dict)


def problem_of(error: ModelyardError, names: Collection[str], content: str = "") -> Problem:
    """The error for a form that has these fields: one entry is told by its whole sentence, several each by their own.

    Args:
        content: The field that refused content belongs to where the error names none.
    """

    def place(told: Mapping[str, str] = MappingProxyType({})) -> str:
        name = told.get("field", content if error.kind in {Kind.INVALID, Kind.TOO_LARGE} else "")
        return name if name in names else ""

    if len(error.errors) > 1:
        entries = [Entry(": ".join(filter(None, (each.get("entry"), each["message"]))), place(each)) for each in error.errors]
    else:
        entries = [Entry(error.message, place(*error.errors))]
    mend = error.mend if error.retry_after_s is None else f"{error.mend} Try again in {error.retry_after_s} s."
    return Problem(entries, mend, {entry.field: entry.message for entry in entries if entry.field})


def attempt(call: Callable[[], T]) -> T | ModelyardError:
    """What the call gives; or the error, for the form to show."""
    try:
        return call()
    except ModelyardError as error:
        return error
