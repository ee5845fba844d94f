"""What goes wrong, as callers see it: problem documents (RFC 9457) with a stable code and what to do about it."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class Problem(Exception):
    """A call, or one image of it, that cannot be answered.

    Args:
        status: The HTTP status of an answer that consists of this problem alone.
        code: Stable, `snake_case`.
        detail: What is wrong.
        mend: What the caller can do.
        retry_after_s: Seconds after which the same call may succeed.
    """

    def __init__(self, status: int, code: str, detail: str, mend: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.mend = mend
        self.retry_after_s = retry_after_s

    def document(self) -> dict[str, Any]:
        """The members of the problem document."""
        kind = f"urn:modelyard:problem:{self.code}"
        return {"type": kind, "title": self.code.replace("_", " ").capitalize(), "status": self.status, "detail": self.detail} | {
            "code": self.code,
            "mend": self.mend,
        }

    def answer(self) -> JSONResponse:
        """The HTTP answer."""
        headers: Mapping[str, str] = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        return JSONResponse(self.document(), self.status, headers, media_type="application/problem+json")


def invalid(field: str, detail: str) -> Problem:
    """The problem of a field that holds what it may not."""
    return Problem(422, "invalid_request", f"{field} {detail}.", f"Correct {field}.")
