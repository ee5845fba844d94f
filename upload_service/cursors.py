"""Cursors of lists: opaque text that says behind what the next page begins."""

import base64
from collections.abc import Callable
from typing import TypeVar

from modelyard.domain.errors import Invalid

T = TypeVar("T")


def cursor_of(place: str) -> str:
    """The place as callers see it."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def place_of(cursor: str, read: Callable[[str], T]) -> T:
    """The place that a cursor stands for, as `read` reads its text.

    Args:
        read: Raises `ValueError` where the text is no place.

    Raises:
        Invalid: `cursor_invalid`.
    """
    try:
        return read(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode())
    except ValueError as error:
        raise Invalid(
            "cursor_invalid", "This cursor was not given out here.", "Begin without one, then follow `Link: rel=next`."
        ) from error
