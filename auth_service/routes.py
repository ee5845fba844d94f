"""The calls of the auth service: log-in, sign-up, keys, users, and the public keys of access tokens."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import RedirectResponse

from auth_service import schemas
from auth_service.accounts import Accounts
from auth_service.grants import Grants
from auth_service.keys import Keys, KeyWish
from auth_service.log_in import LogIn
from auth_service.schemas import Account, FirstLink, Invitation, Key, KeySet, Me, NewKey, OpenSession, Token
from auth_service.sessions import Sessions
from auth_service.sign_up import SignUp
from auth_service.views import when
from modelyard.domain.errors import NotFound, Unauthenticated
from modelyard.web.access import Acting, Action, Caller, requires
from modelyard.web.forms import Typed
from modelyard.web.gate import COOKIE

MOST_LISTED = 100
_TEXT = {"type": "string"}
_TOKEN_FORM = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"enum": ["password", "refresh_token"]},
        "username": _TEXT,
        "password": _TEXT | {"format": "password"},
        "refresh_token": _TEXT,
    },
}
_TOKEN_BODY = {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": _TOKEN_FORM}}}}
_PUBLIC: dict[str, Any] = {"dependencies": [requires(Action.PUBLIC)]}
_OWN: dict[str, Any] = {"dependencies": [requires(Action.ACCOUNT)]}
_ADMIN: dict[str, Any] = {"dependencies": [requires(Action.ADMINISTER)]}
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


@dataclass(frozen=True, slots=True)
class Doors:
    """What the routes and the pages speak to."""

    log_in: LogIn
    sign_up: SignUp
    accounts: Accounts
    keys: Keys
    sessions: Sessions
    grants: Grants


def routes(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["auth"])
    _link_routes(router, doors)
    _sign_in_routes(router, doors)
    _own_routes(router, doors)
    _key_routes(router, doors)
    _user_routes(router, doors)
    return router


def _link_routes(router: APIRouter, doors: Doors) -> None:
    @router.get("/first/{ticket}", response_class=RedirectResponse, status_code=303, **_PUBLIC)
    def enter(request: Request, ticket: str, actor: Acting) -> RedirectResponse:
        """Take a one-time ticket, and sign the browser in."""
        cookie = doors.sessions.enter(ticket, actor, request.headers.get("user-agent", ""))
        if cookie is None:
            raise Unauthenticated("link_used", "This link was used, or its time is over.", "Run `modelyard token --link` for a new one.")
        answer = RedirectResponse("/", 303, {"referrer-policy": "no-referrer", "cache-control": "no-store"})
        answer.set_cookie(COOKIE, cookie, max_age=int(doors.sessions.session_s), path="/", secure=True, httponly=True, samesite="lax")
        return answer

    @router.post("/first", **_ADMIN)
    def new_link(request: Request, caller: Caller) -> FirstLink:
        """A new one-time link that signs a browser in."""
        if caller.by_cookie:
            raise NotFound
        return FirstLink(url=f"{request.base_url}first/{doors.sessions.new_ticket(caller.username)}")


def _sign_in_routes(router: APIRouter, doors: Doors) -> None:
    @router.post("/auth/token", openapi_extra=_TOKEN_BODY, **_PUBLIC)
    def token(request: Request, response: Response, form: Typed, actor: Acting) -> Token:
        """Tokens for a password or for a refresh token, which is used up by it (RFC 6749, 4.3 and 6)."""
        response.headers["cache-control"] = "no-store"
        given = doors.grants.give(form.one, request.headers.get("user-agent", ""), actor)
        return Token(access_token=given.access, expires_in=given.expires_in, refresh_token=given.refresh)

    @router.post("/auth/signup", status_code=201, **_PUBLIC)
    def sign_up(asked: schemas.SignUpAsked, actor: Acting) -> Account:
        """Make an account for oneself, or take an invitation."""
        return doors.sign_up.make(asked.username, asked.password.get_secret_value(), asked.invite, actor)

    @router.get("/.well-known/jwks.json", **_PUBLIC)
    def key_set(response: Response) -> KeySet:
        """The public keys that access tokens are verified with."""
        response.headers["cache-control"] = "max-age=5"
        return KeySet(keys=doors.grants.public_keys())


def _own_routes(router: APIRouter, doors: Doors) -> None:
    @router.get("/auth/me", dependencies=[requires(Action.READ)])
    def me(caller: Caller) -> Me:
        """Who calls, and what the credential is good for."""
        return Me(username=caller.username, role=caller.role, scopes=sorted(caller.scopes))

    @router.post("/auth/logout", status_code=204, **_OWN)
    def log_out(response: Response, caller: Caller, actor: Acting) -> None:
        """End the session of the credential in use."""
        doors.sessions.log_out(caller, actor)
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")

    @router.post("/auth/password", status_code=204, **_OWN)
    def change_password(asked: schemas.OwnPasswordAsked, caller: Caller, actor: Acting) -> None:
        """Change one's own password; every other log-in ends."""
        doors.accounts.change_password(caller, asked.old_password.get_secret_value(), asked.password.get_secret_value(), actor)

    @router.get("/auth/sessions", **_OWN)
    def list_sessions(caller: Caller) -> dict[str, list[OpenSession]]:
        """The caller's log-ins that have not ended, the newest first."""
        return {"sessions": doors.sessions.listed(caller)}

    @router.delete("/auth/sessions/{session_id}", status_code=204, **_OWN)
    def end_session(session_id: str, caller: Caller, actor: Acting) -> None:
        """End one of the caller's log-ins."""
        doors.sessions.end_own(caller, session_id, actor)


def _key_routes(router: APIRouter, doors: Doors) -> None:
    @router.get("/auth/keys", **_OWN)
    def list_keys(caller: Caller, username: str | None = None) -> dict[str, list[Key]]:
        """The caller's keys; an administrator may ask for another user's."""
        return {"keys": doors.keys.listed(caller, username)}

    @router.post("/auth/keys", status_code=201, **_OWN)
    def make_key(
        response: Response, asked: schemas.KeyAsked, caller: Caller, actor: Acting, idempotency_key: IdempotencyKey = None
    ) -> NewKey:
        """Make a key; it is shown this once, so that a second call with its Idempotency-Key gets 409."""
        response.headers["cache-control"] = "no-store"
        return doors.keys.create(caller, KeyWish(asked.name, asked.scopes, asked.expires_in_s), actor, idempotency_key)

    @router.delete("/auth/keys/{key_id}", status_code=204, **_OWN)
    def revoke_key(key_id: str, caller: Caller, actor: Acting) -> None:
        """End a key everywhere."""
        doors.keys.revoke(caller, key_id, actor)


def _user_routes(router: APIRouter, doors: Doors) -> None:
    @router.get("/auth/users", **_ADMIN)
    def list_users(
        response: Response, limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = MOST_LISTED, cursor: str = ""
    ) -> dict[str, list[Account]]:
        """The accounts by name; `Link: rel="next"` leads on where there are more."""
        listed, following = doors.accounts.listed(cursor, limit)
        if following:
            response.headers["link"] = f'</auth/users?limit={limit}&cursor={following}>; rel="next"'
        return {"users": listed}

    @router.post("/auth/users", status_code=201, **_ADMIN)
    def make_user(asked: schemas.AccountAsked, actor: Acting, idempotency_key: IdempotencyKey = None) -> Account:
        """Make an account."""
        password = asked.password.get_secret_value() if asked.password else None
        return doors.accounts.create(actor, asked.username, asked.role, password, idempotency_key)

    @router.get("/auth/users/{username}", **_ADMIN)
    def show_user(username: str) -> Account:
        """One account."""
        return doors.accounts.one(username)

    @router.patch("/auth/users/{username}", **_ADMIN)
    def change_user(username: str, asked: schemas.AccountChange, actor: Acting) -> Account:
        """Change an account's role or state; its log-ins end, its API keys hold as long as it is active."""
        return doors.accounts.change(actor, username, asked.role, asked.state)

    @router.post("/auth/users/{username}/invite", status_code=201, **_ADMIN)
    def invite(request: Request, username: str, actor: Acting, asked: schemas.InvitationAsked | None = None) -> Invitation:
        """A link with which one person chooses this account's password, once."""
        made = doors.accounts.invite(actor, username, (asked or schemas.InvitationAsked()).role)
        return Invitation(url=f"{request.base_url}signup?invite={made.text}", expires_at=when(made.expires_at))

    @router.put("/auth/users/{username}/password", status_code=204, **_ADMIN)
    def set_password(username: str, asked: schemas.PasswordAsked, actor: Acting) -> None:
        """Give an account another password; its log-ins end."""
        doors.accounts.set_password(actor, username, asked.password.get_secret_value())
