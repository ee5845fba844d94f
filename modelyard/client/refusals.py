"""The two ways in which a call fails: the server refused, or there was none."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import httpx2
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError


class ProblemError(Exception):
    """The server refused, with a problem document (RFC 9457).

    Args:
        status: The answer's HTTP status.
        code: Stable identifier of the problem, `snake_case`.
        detail: What went wrong.
        mend: What the caller can do about it; may be empty.
        retry_after_s: Seconds after which a retry may help; None where it does not.
        extra: The document's other members, such as `errors`, `state` and `phase`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        mend: str = "",
        retry_after_s: int | None = None,
        extra: Mapping[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.mend = mend
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})


class UnreachableError(Exception):
    """No server answered at the address, or the connection broke; a retry may help."""


class _Problem(BaseModel):
    model_config = ConfigDict(extra="allow")

    code: str
    title: str = ""
    detail: str = ""
    mend: str = ""


@contextmanager
def reaching(http: httpx2.Client) -> Generator[None]:
    """Within it, trouble of the connection becomes `UnreachableError`."""
    try:
        yield
    except httpx2.TransportError as error:
        raise UnreachableError(f"No answer from {http.base_url}: {error or type(error).__name__}") from error


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    return isinstance(error, UnreachableError) or (isinstance(error, ProblemError) and error.status in {502, 503})


def refuse(answer: httpx2.Response) -> None:
    """Raise the answer's problem, unless its status is one of success.

    Raises:
        ProblemError: `unexpected_answer` where the answer carries no problem document.
    """
    refuse_problem(answer)
    if not answer.is_success:
        detail = f"The server answered {answer.status_code} {answer.reason_phrase}"
        raise ProblemError(answer.status_code, "unexpected_answer", detail, "Check that the address is that of a Modelyard server.")


def refuse_problem(answer: httpx2.Response) -> None:
    """Raise the problem document that the answer carries, if it carries one."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if not answer.is_error or kind != "application/problem+json":
        return
    try:
        problem = _Problem.model_validate_json(answer.content)
    except ValidationError:
        return
    wait = answer.headers.get("retry-after", "")
    raise ProblemError(
        answer.status_code,
        problem.code,
        problem.detail or problem.title,
        problem.mend,
        int(wait) if wait.isdecimal() else None,
        {key: value for key, value in (problem.model_extra or {}).items() if key not in {"type", "status"}},
    )
