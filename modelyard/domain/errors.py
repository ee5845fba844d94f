"""Every error that a caller may see: a kind, a stable code, a safe message and its mend.

No error knows HTTP: `modelyard.web.problems` alone turns a kind into a status.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """What sort of trouble it is; each maps to one answer at the web's edge."""

    MALFORMED = "malformed"
    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    WRONG_METHOD = "wrong_method"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    WRONG_TYPE = "wrong_type"
    MISDIRECTED = "misdirected"
    LIMITED = "limited"
    NOT_READY = "not_ready"
    UNAVAILABLE = "unavailable"
    BAD_ANSWER = "bad_answer"
    TOO_SLOW = "too_slow"
    DISK_FULL = "disk_full"
    INTERNAL = "internal"


class ModelyardError(Exception):
    """The root of all errors that are shown to a caller.

    Args:
        code: Stable identifier, `snake_case`; part of the public contract.
        message: What went wrong, safe to show.
        mend: What the caller can do about it, one imperative sentence.
        errors: One entry a field or archive entry, for content that was refused.
        extra: Further members of the problem document, such as `state` and `phase`.
        retry_after_s: Seconds after which a retry may help.
    """

    kind: ClassVar[Kind] = Kind.INTERNAL

    def __init__(
        self,
        code: str,
        message: str,
        mend: str = "",
        *,
        errors: Sequence[Mapping[str, str]] = (),
        extra: Mapping[str, str | int | float | bool | None] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.mend = mend
        self.errors = tuple(dict(error) for error in errors)
        self.extra = dict(extra or {})
        self.retry_after_s = retry_after_s


class Malformed(ModelyardError):
    """The request itself cannot be read; sending it again does not help."""

    kind = Kind.MALFORMED


class Invalid(ModelyardError):
    """The content was read and refused; it names the entry, line or field."""

    kind = Kind.INVALID


class Unauthenticated(ModelyardError):
    """No credential, or one that is not good."""

    kind = Kind.UNAUTHENTICATED


class Forbidden(ModelyardError):
    """The caller is known and may not do this."""

    kind = Kind.FORBIDDEN


class NotFound(ModelyardError):
    """There is no such thing for this caller; the same words whether it exists for others or not.

    Args:
        may_know: Whether the name is the caller's, so that they may know why there is nothing.
    """

    kind = Kind.NOT_FOUND

    def __init__(self, *, may_know: bool = False) -> None:
        self.may_know = may_know
        super().__init__("not_found", "There is nothing here.", "Check the address, or list what you have with `modelyard list`.")


class WrongMethod(ModelyardError):
    """The address is known, and this cannot be done to it."""

    kind = Kind.WRONG_METHOD


class Conflict(ModelyardError):
    """The state or the name stands against it."""

    kind = Kind.CONFLICT


class TooLarge(ModelyardError):
    """A limit on size; the message names the limit and its setting."""

    kind = Kind.TOO_LARGE


class WrongType(ModelyardError):
    """The body's media type is not one that is read here."""

    kind = Kind.WRONG_TYPE


class Misdirected(ModelyardError):
    """The request names a host that this server does not answer for."""

    kind = Kind.MISDIRECTED


class Limited(ModelyardError):
    """Too many calls; `retry_after_s` says when the next may come."""

    kind = Kind.LIMITED


class NotReady(ModelyardError):
    """The model is not running yet; a retry after `retry_after_s` helps."""

    kind = Kind.NOT_READY


class Unavailable(ModelyardError):
    """A part that this needs is down; a retry helps."""

    kind = Kind.UNAVAILABLE


class BadAnswer(ModelyardError):
    """The model answered what is not HTTP, or died while answering."""

    kind = Kind.BAD_ANSWER


class TooSlow(ModelyardError):
    """The model did not answer within its time limit."""

    kind = Kind.TOO_SLOW


class DiskFull(ModelyardError):
    """Writing would leave less than the disk reserve."""

    kind = Kind.DISK_FULL
