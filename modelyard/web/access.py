"""Who may do what: a credential becomes a `Principal`, and every route declares the action that it performs."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount

from modelyard.domain.errors import NotFound, Unauthenticated

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Router = APIRouter
"""The routes of a service, as it hands them to the process."""
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Action(StrEnum):
    """What a route does; `PUBLIC` needs no credential."""

    PUBLIC = "public"
    UPLOAD = "upload"
    READ = "read"
    DELETE = "delete"
    PREDICT = "predict"
    ADMINISTER = "administer"


class Role(StrEnum):
    """What an account may do beside its own things."""

    ADMIN = "admin"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the account's name, its role, and whether a browser's cookie or a key said so."""

    username: str
    role: Role
    by_cookie: bool = False


class Authenticator(Protocol):
    """Turns what a caller sent into a principal; None where it is not good."""

    def by_token(self, token: str) -> Principal | None:
        """The principal of an API key or a token."""

    def by_cookie(self, value: str) -> Principal | None:
        """The principal of a browser's session."""


def authorize(principal: Principal, owner: str) -> None:
    """Return where the principal may act on what this owner has.

    Raises:
        NotFound: It may not; nobody learns from it whether the object exists.
    """
    if principal.role is not Role.ADMIN and principal.username != owner:
        raise NotFound


def requires(action: Action) -> Any:
    """A dependency that declares a route's action, and lets only those with a credential pass."""

    def check(request: Request) -> None:
        if action is not Action.PUBLIC and principal_of(request.scope) is None:
            raise no_credential()

    check.action = action  # type: ignore[attr-defined]
    return Depends(check)


def current(request: Request) -> Principal:
    """The caller of a route that is not public."""
    principal = principal_of(request.scope)
    if principal is None:
        raise no_credential()
    return principal


Caller = Annotated[Principal, Depends(current)]


class Guarded:
    """An ASGI application that is reached only with a credential, mounted for one action."""

    def __init__(self, app: Asgi, action: Action) -> None:
        self._app = app
        self.action = action

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or raise `Unauthenticated`."""
        if self.action is not Action.PUBLIC and principal_of(scope) is None:
            raise no_credential()
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
        'Send "Authorization: Bearer $(modelyard token)", or open the link that `modelyard token --link` prints.',
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
