"""The calls that send a browser to a model's own host."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse

from auth_service.opening.visits import Opening
from modelyard.store import catalog
from modelyard.web.access import Action, Caller, requires
from modelyard.web.apps_gate import ENTER


def routes(opening: Opening, apps_domain: str) -> APIRouter:
    """The routes of the way there."""
    router = APIRouter(tags=["auth"])
    callers = [requires(Action.PREDICT)]

    @router.get("/open/{username}/{model_name}", dependencies=callers, response_class=RedirectResponse, status_code=303)
    def open_model(request: Request, username: str, model_name: str, caller: Caller) -> RedirectResponse:
        """Send a signed-in browser to the model's own pages."""
        label, ticket = opening.ticket(caller, lambda session: catalog.serving_by_name(session, username, model_name))
        return _lead(request, f"{label}.{apps_domain}", ticket)

    @router.get("/open/{label}", dependencies=callers, response_class=RedirectResponse, status_code=303)
    def open_label(request: Request, label: str, caller: Caller) -> RedirectResponse:
        """As by name, for a browser that comes from the model's own host without a cookie that is good."""
        label, ticket = opening.ticket(caller, lambda session: catalog.serving_by_label(session, label))
        return _lead(request, f"{label}.{apps_domain}", ticket)

    return router


def _lead(request: Request, host: str, ticket: str) -> RedirectResponse:
    port = f":{request.url.port}" if request.url.port else ""
    url = f"{request.url.scheme}://{host}{port}{ENTER.decode()}?ticket={ticket}"
    return RedirectResponse(url, 303, {"cache-control": "no-store", "referrer-policy": "no-referrer"})
