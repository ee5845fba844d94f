"""Passes a call on to the service whose path it is: its body out, the answer back, each at the pace of the slower side."""

import asyncio
import sys
from dataclasses import replace

import anyio
from starlette.types import Receive, Scope, Send

from gateway.headers import Fields, from_service, to_service
from gateway.inbound import Inbound
from gateway.ownership import owner_of
from gateway.services import Services
from gateway.settings import DoorSettings
from gateway.wire import ClosedEarlyError, Head, Wire
from modelyard.domain import causes
from modelyard.domain.errors import BadAnswer, NotFound, TooSlow
from modelyard.web.gate import Onward
from modelyard.web.inside import CALLER, SCHEME

ANSWER_S = 330.0
"""The longest that a service may be silent before it answers: `Prefer: wait` may ask for 300 s."""
_ATTEMPTS = 2
_STREAM = b"text/event-stream"
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})


class Service(Wire):
    """A connection to a service, for one call."""

    def be_patient(self) -> None:
        """Wait for the rest of the answer for as long as the caller does: events may be hours apart."""
        if self._timer is not None:
            self._timer.cancel()

    def finish(self) -> None:
        """Take what has come of the answer for the whole of it."""
        self._whole = True
        self._wake()


class Onwards:
    """Several that take calls, as one: the first that takes a path answers it."""

    def __init__(self, *onwards: Onward) -> None:
        self._onwards = onwards

    def takes(self, path: str) -> bool:
        """Whether any does."""
        return any(each.takes(path) for each in self._onwards)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call that is taken."""
        await next(each for each in self._onwards if each.takes(scope["path"]))(scope, receive, send)


class Forwarding:
    """Calls of the services, on their way through the gateway.

    Each has a connection of its own: on a Unix socket it costs little, and no call meets one that is just being closed.

    Args:
        answer_s: See `ANSWER_S`.
    """

    def __init__(self, services: Services, settings: DoorSettings, answer_s: float = ANSWER_S) -> None:
        self._services = services
        self._answer_s = answer_s
        self._streams: set[Service] = set()
        self._stall_s = settings.stall_s
        # What our own services answer is not foreign: their pages have more and larger fields than an app may.
        self._settings = replace(settings, answer_fields=4 * settings.answer_fields)

    def takes(self, path: str) -> bool:
        """Whether the path is a service's."""
        return owner_of(path) is not None

    def end_streams(self) -> None:
        """End the event streams, which last for as long as both sides stay; whoever follows one comes again, to where it was."""
        for service in self._streams:
            service.finish()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one call to its end; it returns without an answer where the caller has left.

        Raises:
            NotFound: The path is nobody's.
            Unavailable: `service_down`.
            BadAnswer: `service_gone`, it ended over the call.
            TooSlow: `service_too_slow`.
        """
        role = owner_of(scope["path"])
        if role is None:
            raise NotFound
        with anyio.CancelScope() as until_caller_leaves:
            # The service has limits of its own for the body, and says them better.
            inbound = Inbound(scope, receive, max_bytes=sys.maxsize, stall_s=2 * self._stall_s, end_call=until_caller_leaves.cancel)
            reading = asyncio.create_task(inbound.run())
            try:
                await self._carry(role, scope, inbound, send)
            finally:
                reading.cancel()
        if until_caller_leaves.cancelled_caught and inbound.failure is not None:
            raise inbound.failure

    async def _carry(self, role: str, scope: Scope, inbound: Inbound, send: Send) -> None:
        service, head = await self._reach(role, scope, inbound)
        try:
            fields = from_service(head.status, head.fields)
            if not inbound.is_whole:
                # It was answered before its body was read: what is left of that is no next request.
                fields.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": head.status, "headers": fields})
            service.be_patient()
            if any(name == b"content-type" and value.startswith(_STREAM) for name, value in fields):
                self._streams.add(service)
            more = True
            while more:
                piece, more = await service.read()
                await send({"type": "http.response.body", "body": piece, "more_body": more})
        finally:
            self._streams.discard(service)
            service.abort()

    async def _reach(self, role: str, scope: Scope, inbound: Inbound) -> tuple[Service, Head]:
        """The service that takes the call, with the head of its answer; one that ends just now is passed over where that is safe."""
        for attempt in range(_ATTEMPTS):
            service = await self._connected(role)
            try:
                return service, await self._ask(service, scope, inbound)
            except ClosedEarlyError:
                service.abort()
                if attempt or scope["method"] not in _REPEATABLE or not inbound.is_repeatable:
                    break
            except TooSlow:
                service.abort()
                raise TooSlow(
                    "service_too_slow", f"The role {role} was silent for {self._answer_s:g} s.", "Call again; see the log of its processes."
                ) from None
            except BadAnswer as error:
                service.abort()
                raise _gone(role) from error
            except BaseException:
                service.abort()
                raise
        raise _gone(role)

    async def _connected(self, role: str) -> Service:
        connection = await self._services.connect(role)
        try:
            _, service = await asyncio.get_running_loop().create_unix_connection(
                lambda: Service(connection, self._settings), sock=connection
            )
        except BaseException:
            connection.close()
            raise
        return service

    async def _ask(self, service: Service, scope: Scope, inbound: Inbound) -> Head:
        service.begin(head_only=scope["method"] == "HEAD", timeout_s=self._answer_s)
        request = _request(scope, inbound)
        if inbound.has_body:
            request += await inbound.first()
        await service.send(request)
        inbound.attach(service)
        return await service.head()


def _request(scope: Scope, inbound: Inbound) -> bytes:
    """Request line and header fields, as the caller wrote them."""
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    fields = to_service(scope["headers"], _said(scope)) + inbound.framing
    lines = [b"%b %b HTTP/1.1" % (scope["method"].encode("latin-1"), target), *(b"%b: %b" % field for field in fields)]
    return b"\r\n".join([*lines, b"", b""])


def _said(scope: Scope) -> Fields:
    client, cause = scope.get("client"), causes.current()
    said = [(CALLER, (client[0] if client else "").encode("latin-1")), (SCHEME, str(scope["scheme"]).encode("latin-1"))]
    said.append((b"x-request-id", scope["state"]["request_id"].encode("latin-1")))
    if cause is not None:
        said.append((causes.TRACEPARENT.encode(), cause.trace.header.encode()))
    return said


def _gone(role: str) -> BadAnswer:
    return BadAnswer(
        "service_gone", f"The process of the role {role} ended before it answered.", "Send it again, with the same Idempotency-Key."
    )
