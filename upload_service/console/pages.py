"""The console: the start page with its models, and a page for each model."""

import re

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from modelyard.domain.errors import Invalid, ModelyardError
from modelyard.domain.ids import PLATFORM, RULE, is_name
from modelyard.domain.states import InstanceState, VersionState
from modelyard.domain.weights import ENTRIES
from modelyard.web.access import Acting, Action, Caller, requires
from modelyard.web.forms import Form, Typed, attempt
from modelyard.web.pages import Pages
from upload_service.console.listing import Listings
from upload_service.console.words import facts, told
from upload_service.routes import Doors
from upload_service.schemas import MOST_USERS, Access, Model

PAGE_SIZE = 25
_MODEL = "/console/{username}/{model_name}"
_BETWEEN_NAMES = re.compile(r"[\s,;]+")


def add_console(router: APIRouter, doors: Doors, shown: Pages) -> None:
    """Add all of them to the service's pages."""
    _start_page(router, Listings(doors.waiting.database), shown)
    _model_pages(router, doors, shown)


def _start_page(router: APIRouter, listings: Listings, shown: Pages) -> None:
    @router.get("/", dependencies=[requires(Action.READ)])
    def start(request: Request, caller: Caller, owner: str = "", after: str = "", deleted: str = "") -> Response:
        """The caller's models; an administrator's page lists everybody's, or those of one owner."""
        chosen = owner.strip()
        values = {"listing": listings.of(caller, chosen, after, PAGE_SIZE), "told": told, "owner": chosen, "after": after}
        built_in = listings.built_in()
        values |= {"built_in": built_in, "absent": [entry for entry in ENTRIES.values() if entry not in built_in], "platform": PLATFORM}
        values |= {"shared": [] if after or caller.sees is None else listings.shared(caller)}
        more = {"deleted": bool(deleted), "sees_all": caller.sees is None, "origin": _origin(request)}
        return shown.render(request, "models.html", values | more)


def _model_pages(router: APIRouter, doors: Doors, shown: Pages) -> None:
    @router.get(_MODEL, dependencies=[requires(Action.READ)])
    def show_model(request: Request, username: str, model_name: str, caller: Caller, saved: str = "") -> Response:
        """One model: its state, how it is called, its versions."""
        values = _values(request, doors.models.one(caller, username, model_name))
        return shown.render(request, "model.html", {**values, "saved": bool(saved)})

    @router.post(_MODEL + "/access", dependencies=[requires(Action.SHARE)])
    def change_access(request: Request, username: str, model_name: str, caller: Caller, actor: Acting, form: Typed) -> Response:
        """Say who may call the model."""
        saved = attempt(lambda: doors.sharing.change(caller, username, model_name, _access(form), actor))
        if isinstance(saved, ModelyardError):
            values = _values(request, doors.models.one(caller, username, model_name))
            typed = {"public": bool(form.one("public")), "users": form.one("users")}
            return shown.refuse(request, "model.html", values | typed, saved, {"users"})
        return RedirectResponse(f"/console/{username}/{model_name}?saved=1", 303)

    @router.post(_MODEL + "/delete", dependencies=[requires(Action.DELETE)])
    def delete_model(request: Request, username: str, model_name: str, caller: Caller, actor: Acting, form: Typed) -> Response:
        """Delete the model, whose name was typed to be sure."""
        model = doors.models.one(caller, username, model_name)
        if form.one("name").strip() != model_name:
            values = {**_values(request, model), "typed_name": form.one("name")}
            return shown.refuse(request, "model.html", values, _not_confirmed(model_name), {"name"})
        doors.deletions.delete_model(caller, username, model_name, actor, purge=False)
        return RedirectResponse("/?deleted=1", 303)


def _values(request: Request, model: Model) -> dict[str, object]:
    state = InstanceState(model.state) if model.serving else VersionState(model.state)
    return {
        "model": model,
        "state": told(state),
        "told": told,
        "version_state": VersionState,
        "newest": told(VersionState(model.status)),
        "found": model.found.removeprefix("found: ").replace("`", ""),
        "notes": model.settings["notes"],
        "facts": facts(model.settings),
        "origin": _origin(request),
        "public": model.access.public,
        "users": "\n".join(model.access.users),
        "typed_name": "",
        "problem": None,
        "saved": False,
    }


def _access(form: Form) -> Access:
    users = sorted({name for name in _BETWEEN_NAMES.split(form.one("users").lower()) if name})
    wrong = next((name for name in users if not is_name(name)), None)
    if wrong is not None or len(users) > MOST_USERS:
        what = f"{wrong[:60]!r} is no username." if wrong is not None else f"A model is shared with at most {MOST_USERS} users."
        raise Invalid("users_invalid", what, f"Write usernames: {RULE}.", errors=[{"field": "users", "message": what}])
    return Access(public=bool(form.one("public")), users=users)


def _not_confirmed(name: str) -> Invalid:
    what = "The name that was typed is not the model's."
    return Invalid("not_confirmed", what, f"Type {name} to delete the model.", errors=[{"field": "name", "message": what}])


def _origin(request: Request) -> str:
    return str(request.base_url).rstrip("/")
