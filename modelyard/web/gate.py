"""The gate before every route: request id, host, origin and credential; and the one place where errors become answers."""

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from http.cookies import CookieError, SimpleCookie
from typing import Any

import structlog

from modelyard.domain.errors import Forbidden, Misdirected, ModelyardError, NotFound, Unauthenticated
from modelyard.domain.ids import new_id
from modelyard.web import problems
from modelyard.web.access import Asgi, Authenticator, Message, Principal, Receive, Scope, Send

COOKIE = "__Host-modelyard"
APPS_DOMAIN = "apps.localhost"
APP_PREFIX = b"/m/"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITE = frozenset({"same-origin", "none"})
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/\s]+))(?::\d{0,5})?")

log = structlog.get_logger(__name__)


class Gate:
    """Answers what may not pass, and gives the rest a request id and a principal in `scope["state"]`.

    Args:
        hosts: Host names that this server answers for, beside the loopback ones.
    """

    def __init__(self, app: Asgi, authenticator: Authenticator, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._authenticator = authenticator
        self._hosts = frozenset({"localhost", "127.0.0.1", "::1", *(host.lower() for host in hosts)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a problem document."""
        if scope["type"] != "http":
            await _refuse_other(scope, receive, send)
            return
        request_id = new_id()
        scope["state"] = {"request_id": request_id, "principal": None}
        answer = _Answer(send, request_id)
        began = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._admit(scope)
                await self._app(scope, receive, answer.send)
            except ModelyardError as error:
                if answer.status:
                    raise
                await answer.problem(error, str(scope["path"]))
            except Exception:
                log.exception("request failed", path=scope["path"])
                if answer.is_whole:
                    return
                if answer.status:
                    raise
                internal = ModelyardError("internal", "Something went wrong here.", f"Look for {request_id} in the server's log.")
                await answer.problem(internal, str(scope["path"]))
            finally:
                took_ms = round((time.perf_counter() - began) * 1000, 1)
                # Calls of models come by the hundred a second; their line is there for whoever asks for it.
                tell = log.debug if scope["raw_path"].startswith(APP_PREFIX) else log.info
                tell("request", method=scope["method"], path=scope["path"], status=answer.status, took_ms=took_ms)

    async def _admit(self, scope: Scope) -> None:
        found = _headers(scope)
        self._check_host(found)
        scope["state"]["principal"] = principal = await self._principal(scope, found)
        if scope["method"] not in SAFE:
            _check_origin(scope, found, principal)

    def _check_host(self, found: dict[str, str]) -> None:
        name = _host_name(found.get("host", ""))
        if name.endswith("." + APPS_DOMAIN):
            raise NotFound
        if name not in self._hosts:
            raise Misdirected(
                "host_refused", "This server does not answer for that host name.", "Use localhost, or name the host in the setting `hosts`."
            )

    async def _principal(self, scope: Scope, found: dict[str, str]) -> Principal | None:
        if credential := found.get("authorization"):
            scheme, _, token = credential.partition(" ")
            principal = await self._authenticator.by_token(token.strip()) if scheme.lower() == "bearer" else None
            if principal is None:
                raise Unauthenticated("bad_credential", "This credential is not good.", "Send the one that `modelyard token` prints.")
            return principal
        # On /m/... an uploaded app answers, so that a browser's cookie must mean nothing there.
        if scope["raw_path"].startswith(APP_PREFIX):
            return None
        value = _cookie(found.get("cookie", ""))
        return await self._authenticator.by_cookie(value) if value else None


class _Answer:
    """What was sent so far, and the headers that every answer carries."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0
        self.is_whole = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            ours = {
                b"date": formatdate(usegmt=True).encode(),
                b"x-request-id": self._request_id.encode(),
                b"x-content-type-options": b"nosniff",
                b"content-security-policy": b"default-src 'none'",
            }
            message = {**message, "headers": [*message["headers"], *((n, v) for n, v in ours.items() if n not in present)]}
        elif not message.get("more_body"):
            self.is_whole = True
        await self._send(message)

    async def problem(self, error: ModelyardError, path: str) -> None:
        body = problems.encode(problems.document(error, path, self._request_id))
        told = {**problems.headers(error), "content-length": str(len(body))}
        if error.kind.value in {"too_large", "unauthenticated", "misdirected"}:
            # The body was not read to its end; the connection cannot carry another request.
            told["connection"] = "close"
        headers = [(name.encode(), value.encode()) for name, value in told.items()]
        await self.send({"type": "http.response.start", "status": problems.status_of(error), "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _check_origin(scope: Scope, found: dict[str, str], principal: Principal | None) -> None:
    """Refuse what another site's page sends (Fetch Metadata, and RFC 6454 for browsers without it)."""
    site, origin = found.get("sec-fetch-site"), found.get("origin")
    own = f"{scope['scheme']}://{found.get('host', '')}".lower()
    foreign = (site is not None and site not in OWN_SITE) or (origin is not None and origin.lower() != own)
    unsigned = principal is not None and principal.by_cookie and site is None and origin is None
    if foreign or unsigned:
        raise Forbidden(
            "cross_site", "A page of another site may not do this.", "Use Modelyard's own pages, or send the token without a browser."
        )


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1").lower()
        if text in found and text in {"host", "authorization", "origin", "sec-fetch-site"}:
            raise Misdirected("header_doubled", f"The header {text} came twice.", "Send it once.")
        found[text] = value.decode("latin-1")
    return found


def _host_name(value: str) -> str:
    found = _HOST.fullmatch(value)
    return (found[1] or found[2]).lower().removesuffix(".") if found else ""


def _cookie(header: str) -> str | None:
    try:
        found: Any = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return None
    return str(found.value) if found else None


async def _refuse_other(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        # WebSockets into apps come with the apps' own hosts.
        await send({"type": "websocket.close", "code": 1008})
