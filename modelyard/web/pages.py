"""What every HTML page shares: templates, the policy that guards them, and the page for those not signed in."""

from collections.abc import Mapping
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from modelyard.web.access import principal_of

# Only our own files: no script or style of another origin, none written into a page, and no page of ours in a frame.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "same-origin", "cache-control": "no-store", "x-frame-options": "DENY"}


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

    def render(self, request: Request, template: str, values: Mapping[str, object] | None = None, status: int = 200) -> HTMLResponse:
        """The page as an answer, under the policy."""
        principal = principal_of(request.scope)
        text = self._templates.get_template(template).render(username=principal.username if principal else None, **(values or {}))
        return HTMLResponse(text, status, HEADERS)


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page, and not a program for data."""
    return "text/html" in request.headers.get("accept", "")


def sign_in_page(request: Request) -> HTMLResponse:
    """Tells a person without a session how to get one."""
    return Pages().render(request, "sign_in.html", status=401)
