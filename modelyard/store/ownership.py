"""Ownership as a part of the query: a select for a caller never finds what is not theirs."""

from typing import Any

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import InstrumentedAttribute


def owned_by(owner: InstrumentedAttribute[Any], sees: str | None) -> ColumnElement[bool]:
    """The condition on the column of an object's owner.

    Args:
        sees: The owner whose objects the caller may act on; None: everybody's. A caller's `Principal.sees`.
    """
    return true() if sees is None else owner == sees
