"""An error as plain values and back, so that it crosses a border between two of our own processes as it is."""

from collections.abc import Mapping
from typing import Any

from modelyard.domain.errors import ModelyardError, NotFound

_KINDS: Mapping[str, type[ModelyardError]] = {each.kind: each for each in ModelyardError.__subclasses__()}


def carried(error: ModelyardError) -> dict[str, Any]:
    """The error as values that JSON knows."""
    return {
        "kind": error.kind,
        "code": error.code,
        "message": error.message,
        "mend": error.mend,
        "errors": list(error.errors),
        "extra": error.extra,
        "retry_after_s": error.retry_after_s,
    }


def arrived(told: Mapping[str, Any]) -> ModelyardError:
    """The error that `carried` took apart, of the same class.

    Raises:
        KeyError: A member is missing: this is no error of ours.
    """
    kind = _KINDS.get(told["kind"], ModelyardError)
    if kind is NotFound:
        return NotFound()
    return kind(
        told["code"], told["message"], told["mend"], errors=told["errors"], extra=told["extra"], retry_after_s=told["retry_after_s"]
    )
