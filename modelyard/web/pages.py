"""What every HTML page shares: templates, the policy that guards them, and the pages of errors."""

from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from modelyard.domain.accounts import Role
from modelyard.domain.errors import ModelyardError
from modelyard.web import problems
from modelyard.web.access import no_credential, principal_of
from modelyard.web.forms import own_path, problem_of
from modelyard.web.origins import SAFE

# Only our own files: no script or style of another origin, none written into a page, and no page of ours in a frame.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "same-origin", "cache-control": "no-store", "x-frame-options": "DENY"}
LOGIN = "/login"


class Pages:
    """Renders the templates of one service over the shared base.

    Args:
        folder: The service's own templates.
    """

    def __init__(self, folder: Path | None = None) -> None:
        shared = FileSystemLoader(Path(__file__).parent / "templates")
        loaders = [FileSystemLoader(folder), shared] if folder else [shared]
        self._templates = Environment(
            loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.filters.update(when=when, coded=coded)

    def render(self, request: Request, template: str, values: Mapping[str, object] | None = None, status: int = 200) -> HTMLResponse:
        """The page as an answer, under the policy."""
        principal = principal_of(request.scope)
        shared = {
            "username": principal.username if principal else None,
            "may_upload": principal is not None and principal.role is not Role.VIEWER,
        }
        text = self._templates.get_template(template).render(shared | dict(values or {}))
        return HTMLResponse(text, status, HEADERS)

    def refuse(
        self,
        request: Request,
        template: str,
        values: Mapping[str, object],
        error: ModelyardError,
        fields: Collection[str],
        content: str = "",
    ) -> HTMLResponse:
        """The page again, with what was wrong with its form; see `problem_of`."""
        answer = self.render(request, template, {**values, "problem": problem_of(error, fields, content)}, problems.status_of(error))
        if error.retry_after_s is not None:
            answer.headers["retry-after"] = str(error.retry_after_s)
        return answer


def when(moment: datetime) -> str:
    """A time for people, in UTC to the minute; pages put it into `<time>`, and a script tells it in the reader's own zone."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def coded(text: str) -> Markup:
    """An error's text with what stands between its backticks as code."""
    told = (Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(text.split("`")))
    return Markup().join(told)


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page, and not a program for data."""
    return "text/html" in request.headers.get("accept", "")


def error_page(request: Request, error: ModelyardError) -> Response:
    """The error for a person; one without a session is led to the log-in, and from there back to where they were."""
    if error.code == no_credential().code:
        return RedirectResponse(_login_for(request), 303, {"cache-control": "no-store"})
    status = problems.status_of(error)
    answer = Pages().render(request, "problem.html", {"title": problems.TITLES[status], "error": error}, status)
    for name, value in problems.headers(error).items():
        answer.headers.setdefault(name, value)
    return answer


def _login_for(request: Request) -> str:
    # What was to be sent is lost; only an address that can be asked for again is worth coming back to.
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = own_path(asked) if request.method in SAFE else "/"
    return LOGIN if back == "/" else f"{LOGIN}?{urlencode({'next': back})}"
