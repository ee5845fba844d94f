"""The pages of the auth service: log-in, sign-up, log-out, and the account."""

from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from auth_service.console.pages import add_account
from auth_service.guessing import DEVICE_S
from auth_service.log_in import DEVICE_COOKIE, SignedIn
from auth_service.routes import Doors
from modelyard.domain.errors import ModelyardError
from modelyard.domain.ids import RULE, is_name
from modelyard.store.audit import Actor
from modelyard.web.access import Acting, Action, Caller, principal_of, requires
from modelyard.web.forms import Form, Typed, attempt, own_path
from modelyard.web.gate import COOKIE
from modelyard.web.pages import LOGIN, Pages

_PUBLIC = [requires(Action.PUBLIC)]


def pages(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    shown = Pages(Path(__file__).parent / "templates")
    _log_in_pages(router, doors, shown)
    _sign_up_pages(router, doors, shown)
    _log_out_pages(router, doors, shown)
    add_account(router, doors, shown)
    return router


def _log_in_pages(router: APIRouter, doors: Doors, shown: Pages) -> None:
    def values(typed: str, back: str) -> dict[str, object]:
        # A password that was typed into the wrong field is not shown again.
        return {"typed": typed if is_name(typed) else "", "next": back, "signup": doors.sign_up.mode, "problem": None, "signed_out": False}

    @router.get(LOGIN, dependencies=_PUBLIC)
    def show_log_in(request: Request, next: str = "/", done: str = "") -> Response:  # noqa: A002 - the name in the address
        """The form; whoever is signed in goes on to where they wanted to be."""
        back = own_path(next)
        if principal_of(request.scope) is not None:
            return RedirectResponse(back, 303)
        return shown.render(request, "login.html", {**values("", back), "signed_out": bool(done)})

    @router.post(LOGIN, dependencies=_PUBLIC)
    def log_in(request: Request, actor: Acting, form: Typed) -> Response:
        """Sign the browser in, and lead it back to where it was."""
        back = own_path(form.one("next"))
        opened = attempt(lambda: _by_password(doors, request, form, actor))
        if isinstance(opened, ModelyardError):
            return shown.refuse(request, "login.html", values(form.one("username"), back), opened, {"username", "password"})
        return _with_cookies(RedirectResponse(back, 303), opened, doors)


def _sign_up_pages(router: APIRouter, doors: Doors, shown: Pages) -> None:
    def values(typed: str, invite: str) -> dict[str, object]:
        invited = doors.sign_up.invited(invite) if invite else None
        mode = doors.sign_up.mode
        more = {"username": invited.username if invited else typed, "fixed": invited is not None, "spent": bool(invite and not invited)}
        return {"invite": invite, "closed": mode != "open" and not invited, "signup": mode, "rule": RULE, "problem": None, "typed": more}

    @router.get("/signup", dependencies=_PUBLIC)
    def show_sign_up(request: Request, invite: str = "") -> Response:
        """The form, or why there is none."""
        return shown.render(request, "signup.html", values("", invite))

    @router.post("/signup", dependencies=_PUBLIC)
    def sign_up(request: Request, actor: Acting, form: Typed) -> Response:
        """Make the account, and sign the browser in."""
        username, invite = form.one("username"), form.one("invite")
        made = attempt(lambda: doors.sign_up.make(username, form.one("password"), invite, actor))
        if isinstance(made, ModelyardError):
            return shown.refuse(request, "signup.html", values(username, invite), made, {"username", "password"})
        opened = attempt(lambda: _by_password(doors, request, form, actor))
        if isinstance(opened, ModelyardError):
            return RedirectResponse(LOGIN, 303)
        return _with_cookies(RedirectResponse("/", 303), opened, doors)


def _log_out_pages(router: APIRouter, doors: Doors, shown: Pages) -> None:
    @router.get("/logout", dependencies=[requires(Action.ACCOUNT)])
    def ask(request: Request) -> Response:
        """Whether they mean it: an address that is followed changes nothing."""
        return shown.render(request, "logout.html")

    @router.post("/logout", dependencies=[requires(Action.ACCOUNT)])
    def log_out(caller: Caller, actor: Acting) -> Response:
        """End the session, here and in every process."""
        doors.sessions.log_out(caller, actor)
        answer = RedirectResponse(f"{LOGIN}?{urlencode({'done': 'signed-out'})}", 303)
        answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return answer


def _by_password(doors: Doors, request: Request, form: Form, actor: Actor) -> SignedIn:
    device, agent = request.cookies.get(DEVICE_COOKIE, ""), request.headers.get("user-agent", "")
    return doors.log_in.by_password(form.one("username"), form.one("password"), actor.address, device, agent, actor)


def _with_cookies(answer: Response, opened: SignedIn, doors: Doors) -> Response:
    for name, value, age_s in ((COOKIE, opened.cookie, doors.sessions.session_s), (DEVICE_COOKIE, opened.device, DEVICE_S)):
        answer.set_cookie(name, value, max_age=int(age_s), path="/", secure=True, httponly=True, samesite="lax")
    return answer
