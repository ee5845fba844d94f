"""The calls that open a browser session."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse

from auth_service.schemas import FirstLink
from auth_service.sessions import Sessions
from modelyard.domain.errors import NotFound, Unauthenticated
from modelyard.web.access import Acting, Action, Caller, requires
from modelyard.web.gate import COOKIE


def routes(sessions: Sessions) -> APIRouter:
    """The routes of the auth service."""
    router = APIRouter(tags=["auth"])

    @router.get("/first/{ticket}", dependencies=[requires(Action.PUBLIC)], response_class=RedirectResponse, status_code=303)
    def enter(request: Request, ticket: str, actor: Acting) -> RedirectResponse:
        """Take a one-time ticket, and sign the browser in."""
        cookie = sessions.enter(ticket, actor, request.headers.get("user-agent", ""))
        if cookie is None:
            raise Unauthenticated("link_used", "This link was used, or its time is over.", "Run `modelyard token --link` for a new one.")
        answer = RedirectResponse("/upload", 303)
        answer.headers["referrer-policy"] = "no-referrer"
        answer.headers["cache-control"] = "no-store"
        answer.set_cookie(COOKIE, cookie, max_age=int(sessions.session_s), path="/", secure=True, httponly=True, samesite="lax")
        return answer

    @router.post("/first", dependencies=[requires(Action.ADMINISTER)])
    def new_link(request: Request, caller: Caller) -> FirstLink:
        """A new one-time link that signs a browser in."""
        if caller.by_cookie:
            raise NotFound
        return FirstLink(url=f"{request.base_url}first/{sessions.new_ticket(caller.username)}")

    return router
