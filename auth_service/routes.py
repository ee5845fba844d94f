"""The calls that open a browser session."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse

from auth_service.schemas import FirstLink
from auth_service.sessions import SESSION_S, Sessions
from modelyard.domain.errors import NotFound, Unauthenticated
from modelyard.web.access import Action, Caller, Role, requires
from modelyard.web.gate import COOKIE


def routes(sessions: Sessions) -> APIRouter:
    """The routes of the auth service."""
    router = APIRouter(tags=["auth"])

    @router.get("/first/{ticket}", dependencies=[requires(Action.PUBLIC)], response_class=RedirectResponse, status_code=303)
    def enter(ticket: str) -> RedirectResponse:
        """Take a one-time ticket, and sign the browser in."""
        if not sessions.take_ticket(ticket):
            raise Unauthenticated("link_used", "This link was used, or its time is over.", "Run `modelyard token --link` for a new one.")
        answer = RedirectResponse("/upload", 303)
        answer.headers["referrer-policy"] = "no-referrer"
        answer.headers["cache-control"] = "no-store"
        answer.set_cookie(COOKIE, sessions.cookie(), max_age=SESSION_S, path="/", secure=True, httponly=True, samesite="lax")
        return answer

    @router.post("/first", dependencies=[requires(Action.ADMINISTER)])
    def new_link(request: Request, caller: Caller) -> FirstLink:
        """A new one-time link that signs a browser in."""
        if caller.role is not Role.ADMIN or caller.by_cookie:
            raise NotFound
        return FirstLink(url=f"{request.base_url}first/{sessions.new_ticket()}")

    return router
