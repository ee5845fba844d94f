"""Who may do what: a credential becomes a `Principal`, every route declares its action, and one table says who may perform it."""

from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount

from modelyard.domain import accounts
from modelyard.domain.accounts import ALL_SCOPES, Role
from modelyard.domain.errors import Forbidden, NotFound, Unauthenticated
from modelyard.domain.ids import PLATFORM
from modelyard.runtime.routes import Route
from modelyard.store.audit import Actor

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Router = APIRouter
"""The routes of a service, as it hands them to the process."""
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Action(StrEnum):
    """What a route does; `PUBLIC` needs no credential, and `PREDICT` asks for one once it knows the model."""

    PUBLIC = "public"
    UPLOAD = "upload"
    READ = "read"
    DELETE = "delete"
    SHARE = "share"
    PREDICT = "predict"
    ACCOUNT = "account"
    ADMINISTER = "administer"


_NEEDS: Mapping[Action, accounts.Scope] = {
    Action.UPLOAD: accounts.Scope.WRITE,
    Action.READ: accounts.Scope.READ,
    Action.DELETE: accounts.Scope.WRITE,
    Action.SHARE: accounts.Scope.WRITE,
    Action.ACCOUNT: accounts.Scope.ACCOUNT,
    Action.ADMINISTER: accounts.Scope.ADMIN,
}
_VIEWS = frozenset({Action.READ, Action.PREDICT, Action.ACCOUNT})
_MAY: Mapping[Role, frozenset[Action]] = {
    Role.VIEWER: _VIEWS,
    Role.MEMBER: _VIEWS | {Action.UPLOAD, Action.DELETE, Action.SHARE},
    Role.ADMIN: frozenset(Action),
}


def _for_ever() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and with what.

    Args:
        credential: `key:ID` or `session:ID`, for the audit trail and for limits.
        by_cookie: Whether a browser's cookie said so.
        still_good: Whether what it was found by has neither expired nor been revoked since. Whatever lasts longer than a moment
            asks again and again; it costs a look into memory, and may be asked on any thread.
    """

    username: str
    role: Role
    scopes: frozenset[str] = ALL_SCOPES
    account_id: str = ""
    credential: str = ""
    by_cookie: bool = False
    still_good: Callable[[], bool] = field(default=_for_ever, compare=False, repr=False)

    @property
    def sees(self) -> str | None:
        """The owner whose objects it may act on; None: everybody's. Selects take it as they are told."""
        return None if self.role is Role.ADMIN else self.username


class Authenticator(Protocol):
    """Turns what a caller sent into a principal; None where it is not good."""

    async def by_token(self, token: str) -> Principal | None:
        """The principal of an API key or an access token."""

    async def by_cookie(self, value: str) -> Principal | None:
        """The principal of a browser's session."""


def authorize(principal: Principal, owner: str) -> None:
    """Return where the principal may act on what this owner has.

    Raises:
        NotFound: It may not; nobody learns from it whether the object exists.
    """
    if principal.sees not in {None, owner}:
        raise NotFound


def permit(principal: Principal, action: Action) -> None:
    """Return where the principal may perform such an action at all, on whatever object.

    Raises:
        Forbidden: `role_too_small` or `scope_too_small`.
    """
    if action not in _MAY[principal.role]:
        raise Forbidden(
            "role_too_small", f"An account of the role {principal.role} may not {action}.", "Ask an administrator for another role."
        )
    scope = _NEEDS.get(action)
    if scope is not None and scope not in principal.scopes:
        raise Forbidden(
            "scope_too_small", f"This credential lacks the scope {scope}.", f"Make a key that has it: modelyard keys create --scope {scope}"
        )


def admit_call(principal: Principal | None, owner: str, name: str, route: Route | None) -> Route:
    """The model's route, where this caller may call it.

    Raises:
        Unauthenticated: There is no credential, and the model is not public, or is none.
        Forbidden: `scope_too_small`, the credential is for other models, whether or not this one exists.
        NotFound: The model is not theirs to call, or is none: then they may know why where the name is theirs.
    """
    if principal is None:
        if route is None or not route.public:
            raise no_credential()
        return route
    if not accounts.may_predict(principal.scopes, owner, name):
        raise Forbidden(
            "scope_too_small",
            "This credential is not good for calling this model.",
            "Make a key for it: modelyard keys create --scope predict",
        )
    if route is None:
        raise NotFound(may_know=principal.sees in {None, owner})
    if not may_call(principal, owner, public=route.public, shared_with=route.shared_with):
        raise NotFound
    return route


def may_call(principal: Principal, owner: str, *, public: bool, shared_with: Container[str]) -> bool:
    """Whether a model of this owner is theirs to call, whatever their credential is good for."""
    return public or owner == PLATFORM or principal.sees in {None, owner} or principal.username in shared_with


def requires(action: Action) -> Any:
    """A dependency that declares a route's action, and lets only those pass who may perform it."""

    def check(request: Request) -> None:
        if action is not Action.PUBLIC:
            permit(current(request), action)

    check.action = action  # type: ignore[attr-defined]
    return Depends(check)


def current(request: Request) -> Principal:
    """The caller of a route that is not public."""
    principal = principal_of(request.scope)
    if principal is None:
        raise no_credential()
    return principal


def acting(request: Request) -> Actor:
    """The caller as the audit trail names them; without a name where nobody has signed in."""
    principal = principal_of(request.scope)
    address = request.client.host if request.client else ""
    request_id = str(request.state.request_id)
    return Actor(principal.username, principal.credential, address, request_id) if principal else Actor("", "", address, request_id)


Caller = Annotated[Principal, Depends(current)]
Acting = Annotated[Actor, Depends(acting)]


class Guarded:
    """An ASGI application beside the routes, mounted for one action.

    For `PREDICT` it lets everybody pass: the door itself asks, with `admit_call`, once it knows whether the model is public.
    """

    def __init__(self, app: Asgi, action: Action) -> None:
        self._app = app
        self.action = action

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or raise `Unauthenticated`."""
        if self.action not in {Action.PUBLIC, Action.PREDICT}:
            principal = principal_of(scope)
            if principal is None:
                raise no_credential()
            permit(principal, self.action)
        await self._app(scope, receive, send)


def principal_of(scope: Scope) -> Principal | None:
    """The principal that the gate put into the request."""
    found = scope.get("state", {}).get("principal")
    return found if isinstance(found, Principal) else None


def no_credential() -> Unauthenticated:
    """The error of a call without a credential."""
    return Unauthenticated(
        "no_credential",
        "This needs a credential.",
        'Send "Authorization: Bearer $(modelyard token)", or sign in at /login.',
    )


def credential_ended() -> Unauthenticated:
    """The error of a call whose credential was good when it began."""
    return Unauthenticated(
        "credential_ended", "The credential of this call is not good any more.", "Sign in again, or send another key, and call again."
    )


class UndeclaredRouteError(AssertionError):
    """A route that does not say what it does: the program must not start."""


def check_declared(routes: list[BaseRoute]) -> None:
    """Return where every route declares its action.

    Raises:
        UndeclaredRouteError: One does not.
    """
    for route in routes:
        if declared(route) is None:
            raise UndeclaredRouteError(f"{getattr(route, 'path', route)!r} declares no action: add requires(Action....) to it")


def check_mounted(apps: Iterable[Asgi]) -> None:
    """Return where every application beside the routes is `Guarded`, and so declares its action.

    Raises:
        UndeclaredRouteError: One is not.
    """
    for app in apps:
        if not isinstance(app, Guarded):
            raise UndeclaredRouteError(f"{app!r} declares no action: mount it as Guarded(app, Action....)")


def declared(route: BaseRoute) -> Action | None:
    """The action that a route declares; None where it does not."""
    if isinstance(route, APIRoute):
        actions = [action for each in route.dependencies if (action := getattr(each.dependency, "action", None))]
        return actions[0] if len(actions) == 1 else None
    return getattr(route.app, "action", None) if isinstance(route, Mount) else None
