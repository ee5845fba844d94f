"""The account's page: its keys, its password, and where it is signed in."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from auth_service.console.wishes import LIVES, key_wish, offered
from auth_service.console.words import ROLES, SCOPES, device_words, scope_words
from auth_service.routes import Doors
from modelyard.domain.accounts import Scope
from modelyard.domain.errors import ModelyardError
from modelyard.web.access import Acting, Action, Caller, Principal, requires
from modelyard.web.forms import Form, Typed, attempt
from modelyard.web.pages import Pages

PAGE = "/account"
TEMPLATE = "account.html"
_DONE = {
    "password": "The password is changed; every other log-in has ended.",
    "revoked": "The key is revoked.",
    "ended": "That log-in has ended.",
}
_BLANK: dict[str, object] = {"name": "", "scopes": [Scope.PREDICT], "model": "", "days": "90"}
_OWN = [requires(Action.ACCOUNT)]


def add_account(router: APIRouter, doors: Doors, shown: Pages) -> None:
    """Add the account's page, and what its forms are sent to."""
    _page(router, doors, shown)
    _key_forms(router, doors, shown)
    _log_in_forms(router, doors, shown)


def _page(router: APIRouter, doors: Doors, shown: Pages) -> None:
    @router.get(PAGE, dependencies=_OWN)
    def show_account(request: Request, caller: Caller, done: str = "") -> Response:
        """Who the caller is, and what was given out to them."""
        return shown.render(request, TEMPLATE, {**_values(doors, caller), "told": _DONE.get(done, "")})

    @router.get(PAGE + "/keys", dependencies=_OWN)
    @router.get(PAGE + "/password", dependencies=_OWN)
    def again() -> Response:
        """On to the page, where a browser asks again for the address that a form was sent to."""
        return RedirectResponse(PAGE, 303)


def _key_forms(router: APIRouter, doors: Doors, shown: Pages) -> None:
    @router.post(PAGE + "/keys", dependencies=_OWN)
    def make_key(request: Request, caller: Caller, actor: Acting, form: Typed) -> Response:
        """Make a key, and show it this once."""
        made = attempt(lambda: doors.keys.create(caller, key_wish(form), actor))
        if isinstance(made, ModelyardError):
            values = {**_values(doors, caller), "typed": _typed(form)}
            return shown.refuse(request, TEMPLATE, values, made, {"name", "scopes", "days"})
        return shown.render(request, TEMPLATE, {**_values(doors, caller), "made": made}, 201)

    @router.get(PAGE + "/keys/{key_id}/revoke", dependencies=_OWN)
    def ask_to_revoke(request: Request, key_id: str, caller: Caller) -> Response:
        """Whether they mean it: a key that is gone does not come back, and the programs that have it stand still."""
        return shown.render(request, "revoke.html", {"key": doors.keys.one(caller, key_id), "scope_words": scope_words})

    @router.post(PAGE + "/keys/{key_id}/revoke", dependencies=_OWN)
    def revoke_key(key_id: str, caller: Caller, actor: Acting) -> Response:
        """End a key."""
        doors.keys.revoke(caller, key_id, actor)
        return RedirectResponse(f"{PAGE}?done=revoked", 303)


def _log_in_forms(router: APIRouter, doors: Doors, shown: Pages) -> None:
    @router.post(PAGE + "/password", dependencies=_OWN)
    def change_password(request: Request, caller: Caller, actor: Acting, form: Typed) -> Response:
        """Change one's own password."""
        refused = attempt(lambda: doors.accounts.change_password(caller, form.one("current"), form.one("password"), actor))
        if isinstance(refused, ModelyardError):
            return shown.refuse(request, TEMPLATE, _values(doors, caller), refused, {"password"})
        return RedirectResponse(f"{PAGE}?done=password", 303)

    @router.post(PAGE + "/sessions/{session_id}/end", dependencies=_OWN)
    def end_session(session_id: str, caller: Caller, actor: Acting) -> Response:
        """End another of the caller's log-ins."""
        doors.sessions.end_own(caller, session_id, actor)
        return RedirectResponse(f"{PAGE}?done=ended", 303)


def _values(doors: Doors, caller: Principal) -> dict[str, object]:
    return {
        "role": ROLES[caller.role],
        "keys": doors.keys.listed(caller),
        "sessions": doors.sessions.listed(caller),
        "has_password": doors.accounts.one(caller.username).has_password,
        "offered": [(scope, SCOPES[scope]) for scope in offered(caller.role)],
        "lives": LIVES,
        "scope_words": scope_words,
        "device_words": device_words,
        "told": "",
        "problem": None,
        "made": None,
        "typed": _BLANK,
    }


def _typed(form: Form) -> dict[str, object]:
    return {name: form.one(name) for name in ("name", "model", "days")} | {"scopes": form.all("scopes")}
