"""Cookies on a model's own host: the app's pass both ways, and the platform's never meet the app."""

from collections.abc import Iterable

_OURS = b"__host-modelyard"
"""How the names of our cookies begin; browsers compare the prefix without regard to case."""
_BLANK = b" \t"


def to_app(headers: Iterable[bytes]) -> bytes | None:
    """The app's cookies among those that came, as they were written; None where there are none.

    Args:
        headers: The values of all `Cookie` fields.
    """
    # No quotes are read: in a `Cookie` field every semicolon ends a pair (RFC 6265, 4.2.1), whatever stands around it.
    pairs = [pair.strip(_BLANK) for value in headers for pair in value.split(b";")]
    return b"; ".join(pair for pair in pairs if pair and not is_ours(pair)) or None


def to_caller(value: bytes) -> bytes | None:
    """A `Set-Cookie` of the app without its `Domain`, so that it holds for this host alone; None where it bears a name of ours."""
    pair, *attributes = value.split(b";")
    if is_ours(pair):
        return None
    kept = [each for each in attributes if each.partition(b"=")[0].strip(_BLANK).lower() != b"domain"]
    return b";".join([pair, *kept])


def is_ours(pair: bytes) -> bool:
    """Whether a cookie has a name of ours, or none and a value that a browser would send back as one."""
    return pair.lstrip(_BLANK + b"=").lower().startswith(_OURS)
