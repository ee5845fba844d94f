"""The gate before every route: request id, host, origin and credential; and the one place where errors become answers."""

import re
import time
from collections.abc import Iterable
from functools import partial
from typing import Protocol

import structlog

from modelyard.domain.errors import Misdirected, ModelyardError, NotFound, Unauthenticated
from modelyard.web.access import Asgi, Authenticator, Principal, Receive, Scope, Send
from modelyard.web.answering import Answer
from modelyard.web.limits import Call, Limits, call_of
from modelyard.web.origins import SAFE, Headers, cookie, cross_site, headers_of, host_name, is_foreign
from modelyard.web.watching import PASSED_ON, SOCKET, request_id_of, watched

COOKIE = "__Host-modelyard"
APPS_DOMAIN = "apps.localhost"
APP_PREFIX = b"/m/"
_LABEL = re.compile(r"[a-z0-9-]{1,33}")

_TICKET = re.compile(r"(/first/).+", re.DOTALL)

log = structlog.get_logger(__name__)


def _told(path: str) -> str:
    """The path as the log has it: a one-time link is a secret until it is taken."""
    return _TICKET.sub(r"\1...", path)


class Onward(Protocol):
    """Answers what is another process's, which finds out itself who calls."""

    def takes(self, path: str) -> bool:
        """Whether a call of this path, decoded, is answered so."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it."""


class Gate:
    """Answers what may not pass, and gives the rest a request id and a principal in `scope["state"]`.

    Args:
        hosts: Host names that this server answers for, beside the loopback ones.
        apps: Answers on models' own hosts, with their `label` in the state; without it they are there and empty.
        apps_domain: Models' own hosts lie one label below it.
        limits: How many calls are answered; without it all are.
        onward: Answers what it takes of the calls on the console's hosts, before anybody looks at a credential.
    """

    def __init__(
        self,
        app: Asgi,
        authenticator: Authenticator,
        hosts: Iterable[str] = (),
        apps: Asgi | None = None,
        apps_domain: str = APPS_DOMAIN,
        limits: Limits | None = None,
        onward: Onward | None = None,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._hosts = frozenset({"localhost", "127.0.0.1", "::1", *(host.lower() for host in hosts)})
        self._apps = apps
        self._below_apps = f".{apps_domain}"
        self._limits = limits
        self._onward = onward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a problem document."""
        # ASGI wants names in lower case; the server has them as they came where a WebSocket is opened.
        scope["headers"] = [(field.lower(), value) for field, value in scope["headers"]]
        request_id = request_id_of(scope)
        scope["state"] = {"request_id": request_id, "principal": None}
        answer = Answer(scope, send, request_id)
        began = time.perf_counter()
        with watched(scope, request_id, answer):
            try:
                await self._pass(scope, receive, answer)
            except ModelyardError as error:
                if answer.status:
                    raise
                await answer.problem(error, str(scope["path"]))
            except Exception:
                log.exception("request failed", path=_told(scope["path"]))
                if answer.is_whole:
                    return
                if answer.status:
                    raise
                internal = ModelyardError("internal", "Something went wrong here.", f"Look for {request_id} in the server's log.")
                await answer.problem(internal, str(scope["path"]))
            finally:
                took_ms = round((time.perf_counter() - began) * 1000, 1)
                # Calls of models come by the hundred a second; their line is there for whoever asks for it.
                tell = log.debug if answer.of_app or scope["raw_path"].startswith(APP_PREFIX) else log.info
                tell("request", method=scope.get("method", SOCKET), path=_told(scope["path"]), status=answer.status, took_ms=took_ms)

    async def _pass(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        found = headers_of(scope)
        name = host_name(found.get("host", ""))
        if name.endswith(self._below_apps):
            await self._pass_to_app(name.removesuffix(self._below_apps), scope, receive, answer, found)
            return
        if name not in self._hosts:
            raise Misdirected(
                "host_refused", "This server does not answer for that host name.", "Use localhost, or name the host in the setting `hosts`."
            )
        if self._onward is not None and scope["type"] == "http" and self._onward.takes(scope["path"]):
            scope["state"]["route"] = PASSED_ON
            await self._onward(scope, receive, answer.send)
            return
        scope["state"]["principal"] = principal = await self._counted(scope, found, answer)
        if principal is None and "authorization" in found:
            raise Unauthenticated(
                "bad_credential",
                "This credential is not good.",
                "Send `Authorization: Bearer TOKEN` with the token that `modelyard token` prints.",
            )
        if scope["type"] == "websocket":
            self._check_socket(scope, found)
        elif scope["method"] not in SAFE:
            # A browser without Fetch Metadata says at least where a form comes from.
            unsigned = principal is not None and principal.by_cookie and not {"sec-fetch-site", "origin"} & set(found)
            if unsigned or is_foreign(scope, found):
                raise cross_site()
        await self._app(scope, receive, answer.send)

    async def _pass_to_app(self, label: str, scope: Scope, receive: Receive, answer: Answer, found: Headers) -> None:
        if self._apps is None or not _LABEL.fullmatch(label):
            raise NotFound
        scope["state"]["label"] = label
        if self._limits is not None:
            # Who calls is known once the model is: the cookie is good for that one alone.
            call = call_of(scope, found, to_model=True)
            self._limits.before(call)
            scope["state"]["count"] = partial(self._count, self._limits, call, answer)
        answer.of_app = True
        await self._apps(scope, receive, answer.send)

    def _check_socket(self, scope: Scope, found: Headers) -> None:
        """Let WebSockets into apps, of programs alone: every browser says an origin, and none can send a token here."""
        if not scope["raw_path"].startswith(APP_PREFIX):
            raise NotFound
        if "authorization" in found:
            token = found["authorization"].partition(" ")[2].strip()
            scope["state"]["identify"] = partial(self._again, token)
        if is_foreign(scope, found) or ("origin" in found and "authorization" not in found):
            raise cross_site()

    async def _again(self, token: str, _model_id: str) -> Principal | None:
        return await self._authenticator.by_token(token)

    async def _counted(self, scope: Scope, found: Headers, answer: Answer) -> Principal | None:
        """Who calls, with the call counted; whether a credential is good is asked only where its address may still guess."""
        if self._limits is None:
            return await self._principal(scope, found)
        call = call_of(scope, found, to_model=scope["raw_path"].startswith(APP_PREFIX))
        self._limits.before(call)
        principal = await self._principal(scope, found)
        self._count(self._limits, call, answer, principal)
        return principal

    @staticmethod
    def _count(limits: Limits, call: Call, answer: Answer, principal: Principal | None) -> None:
        allowance = limits.count(call, principal)
        answer.more = allowance.headers
        allowance.insist()

    async def _principal(self, scope: Scope, found: Headers) -> Principal | None:
        if "authorization" in found:
            scheme, _, token = found["authorization"].partition(" ")
            return await self._authenticator.by_token(token.strip()) if scheme.lower() == "bearer" else None
        # On /m/... an uploaded app answers, so that a browser's cookie must mean nothing there.
        if scope["raw_path"].startswith(APP_PREFIX):
            return None
        value = cookie(found.get("cookie", ""), COOKIE)
        return await self._authenticator.by_cookie(value) if value else None
