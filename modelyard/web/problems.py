"""Turns errors into problem documents (RFC 9457); the only table from kinds to HTTP statuses."""

import json
from collections.abc import Mapping

from modelyard.domain.errors import Invalid, Kind, Malformed, ModelyardError, NotFound, WrongMethod

STATUS: Mapping[Kind, int] = {
    Kind.MALFORMED: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.WRONG_METHOD: 405,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.WRONG_TYPE: 415,
    Kind.MISDIRECTED: 421,
    Kind.INVALID: 422,
    Kind.LIMITED: 429,
    Kind.INTERNAL: 500,
    Kind.BAD_ANSWER: 502,
    Kind.UNAVAILABLE: 503,
    Kind.NOT_READY: 503,
    Kind.TOO_SLOW: 504,
    Kind.DISK_FULL: 507,
}
TITLES: Mapping[int, str] = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Refused",
    429: "Too many requests",
    500: "Internal error",
    502: "The model's answer is broken",
    503: "Not ready",
    504: "The model is too slow",
    507: "Disk full",
}
MEDIA_TYPE = "application/problem+json"


def status_of(error: ModelyardError) -> int:
    """The HTTP status of an error."""
    return STATUS[error.kind]


def document(error: ModelyardError, path: str, request_id: str) -> dict[str, object]:
    """The members of the problem document.

    A 404 carries nothing that tells one request from another, so that a hidden object looks like a missing one.
    """
    status = status_of(error)
    told: dict[str, object] = {
        "type": f"urn:modelyard:problem:{error.code}",
        "title": TITLES[status],
        "status": status,
        "detail": error.message,
        "code": error.code,
        "mend": error.mend,
    }
    if error.kind is not Kind.NOT_FOUND:
        told |= {"instance": path, "request_id": request_id}
    if error.errors:
        told["errors"] = list(error.errors)
    return told | error.extra


def headers(error: ModelyardError) -> dict[str, str]:
    """The headers that belong to this kind of answer."""
    told = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
    if error.retry_after_s is not None:
        told["retry-after"] = str(error.retry_after_s)
    if error.kind is Kind.UNAUTHENTICATED:
        told["www-authenticate"] = 'Bearer realm="modelyard"'
    return told


def encode(told: Mapping[str, object]) -> bytes:
    """The document as UTF-8 JSON."""
    return json.dumps(told, ensure_ascii=False).encode()


def from_status(status: int) -> ModelyardError | None:
    """The error of an answer that the web framework decided by itself."""
    if status == STATUS[Kind.NOT_FOUND]:
        return NotFound()
    if status == STATUS[Kind.WRONG_METHOD]:
        return WrongMethod("method_not_allowed", "This cannot be done here.", "See /openapi.json.")
    if status == STATUS[Kind.MALFORMED]:
        return Malformed("malformed", "The request cannot be read.", "See /openapi.json.")
    return None


def from_validation(errors: list[dict[str, object]]) -> ModelyardError:
    """The error of a body or a parameter that does not fit its schema."""
    told = [{"field": ".".join(str(part) for part in _parts(each["loc"])), "message": str(each["msg"])} for each in errors]
    return Invalid("invalid_request", "The request does not fit.", "Correct the fields that `errors` names.", errors=told)


def _parts(location: object) -> tuple[object, ...]:
    return location if isinstance(location, tuple) else (location,)
