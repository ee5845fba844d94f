"""The gate of models' own hosts: a ticket becomes a cookie there, and the cookie counts for the pages of that host alone."""

from collections.abc import Callable
from typing import Protocol
from urllib.parse import parse_qs

from anyio import to_thread

from modelyard.domain.errors import ModelyardError, NotFound, NotReady, Unauthenticated
from modelyard.store.audit import Actor
from modelyard.web import problems
from modelyard.web.access import Asgi, Message, Principal, Receive, Scope, Send, no_credential
from modelyard.web.apps_pages import error_page, page, send_page
from modelyard.web.origins import OWN_SITE, SAFE, Headers, cross_site, headers_of, is_foreign, is_navigation, own_origin

APP_COOKIE = "__Host-modelyard-app"
OURS = b"/.modelyard/"
ENTER = OURS + b"enter"
COOKIE_S = 12 * 3600
"""Seconds that a browser keeps the cookie; it ends with its session in any case."""

Enter = Callable[[str, str, Actor], str | None]
"""Takes a ticket for the host of this label, and gives the cookie; None where it is not good, or was taken before."""


class Visitors(Protocol):
    """Knows whose cookie it is."""

    async def by_app_cookie(self, value: str, model_id: str) -> Principal | None:
        """The principal of a cookie that opens this one model's own host."""


class AppsGate:
    """Answers on models' own hosts; the gate before it put the host's `label` into `scope["state"]`.

    Args:
        door: Serves the model of the label to whom `scope["state"]["identify"]` finds.
        console: The host name of the console, to which a browser without a good cookie is sent.
    """

    def __init__(self, door: Asgi, visitors: Visitors, enter: Enter, console: str) -> None:
        self._door = door
        self._visitors = visitors
        self._enter = enter
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call.

        Raises:
            ModelyardError: As the door has it; Forbidden where a page of another origin sends what changes something.
        """
        found = headers_of(scope)
        if scope["raw_path"].startswith(OURS):
            await self._answer_ours(scope, found, send)
            return
        self._check_origin(scope, found)
        value = _app_cookie(scope) if _counts(scope, found) else None

        async def identify(model_id: str) -> Principal | None:
            principal = await self._visitors.by_app_cookie(value, model_id) if value else None
            _count(scope, principal)
            return principal

        scope["state"]["identify"] = identify
        await self._pass(scope, receive, send, found)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, found: Headers) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._door(scope, receive, noted)
        except ModelyardError as error:
            if isinstance(error, Unauthenticated):
                _count(scope, None)
            if started or not is_navigation(scope, found):
                raise
            await self._tell(error, scope, found, send)

    async def _tell(self, error: ModelyardError, scope: Scope, found: Headers, send: Send) -> None:
        """Answer a person, where the door has no answer of the app's."""
        if isinstance(error, Unauthenticated):
            await send_page(send, 303, {"location": self._way_back(scope, found)})
        elif isinstance(error, NotReady):
            soon = str(error.retry_after_s or 1)
            text = page("The model is starting", f"{error.message} This page asks again.")
            await send_page(send, 503, {"refresh": soon, "retry-after": soon}, text)
        else:
            again = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
            await send_page(send, problems.status_of(error), again, error_page(error, self._at_console(scope, found, "/")))

    @staticmethod
    def _check_origin(scope: Scope, found: Headers) -> None:
        if scope["type"] == "websocket":
            # Also for a public model, where the app may have signed a browser in by cookies of its own.
            if "origin" in found and found["origin"].lower() != own_origin(scope, found):
                raise no_credential()
        elif scope["method"] not in SAFE and is_foreign(scope, found):
            raise cross_site()

    async def _answer_ours(self, scope: Scope, found: Headers, send: Send) -> None:
        if scope["raw_path"] != ENTER or scope.get("method") != "GET":
            raise NotFound
        _count(scope, None)
        if "sec-fetch-mode" in found and not is_navigation(scope, found):
            # Else a page of another host could sign a browser in here behind its user's back.
            raise cross_site()
        cookie = await to_thread.run_sync(self._take, scope)
        if cookie is None:
            again = (self._way_back(scope, found), "Open the model again")
            text = page("This link was used", "It opens a model's pages once, within half a minute.", link=again)
            await send_page(send, 401, {}, text)
            return
        kept = f"{APP_COOKIE}={cookie}; Max-Age={COOKIE_S}; Path=/; Secure; HttpOnly; SameSite=Lax"
        await send_page(send, 303, {"location": "/", "set-cookie": kept})

    def _take(self, scope: Scope) -> str | None:
        ticket = parse_qs(scope["query_string"].decode("latin-1")).get("ticket", [""])[0]
        client = scope.get("client")
        actor = Actor("", "", client[0] if client else "", scope["state"]["request_id"])
        return self._enter(ticket, scope["state"]["label"], actor)

    def _way_back(self, scope: Scope, found: Headers) -> str:
        return self._at_console(scope, found, f"/open/{scope['state']['label']}")

    def _at_console(self, scope: Scope, found: Headers, path: str) -> str:
        _, colon, port = found.get("host", "").partition(":")
        return f"{scope['scheme']}://{self._console}{colon}{port}{path}"


def console_name(apps_domain: str, hosts: tuple[str, ...]) -> str:
    """The console's host name where only a model's own host is known: the name above the apps' where it is one of ours, else the first."""
    _, _, above = apps_domain.partition(".")
    return above if above in {"localhost", *hosts} else next(iter(hosts), "localhost")


def _count(scope: Scope, principal: Principal | None) -> None:
    """Count the call against who makes it, or their address; once, though who calls is asked again while a WebSocket is open."""
    count = scope["state"].pop("count", None)
    if count is not None:
        count(principal)


def _counts(scope: Scope, found: Headers) -> bool:
    """Whether the cookie counts: hosts of other models are the same site to a browser, and send it along."""
    if scope["type"] == "websocket":
        return found.get("origin", "").lower() == own_origin(scope, found)
    return found.get("sec-fetch-site") in OWN_SITE or is_navigation(scope, found)


def _app_cookie(scope: Scope) -> str | None:
    """The cookie's value; None also where it came twice: one of them is not ours then."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
    pairs = [pair.strip().partition("=") for value in values for pair in value.split(";")]
    found = [value for name, _, value in pairs if name == APP_COOKIE]
    return found[0] if len(found) == 1 else None
