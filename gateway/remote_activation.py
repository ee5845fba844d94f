"""`RemoteActivation`: the runner in another process, as the front door asks it."""

import asyncio
import json
import socket
from dataclasses import dataclass
from pathlib import Path

import httpx2
from pydantic import TypeAdapter

from modelyard.domain import causes
from modelyard.domain.carried import arrived
from modelyard.domain.errors import ModelyardError, NotReady, Unavailable
from modelyard.runtime import descriptors
from modelyard.runtime.route_wire import ACTIVATED, FOUND, T, read
from modelyard.runtime.routes import Activated, Route
from modelyard.runtime.runtime import NoSuchInstanceError

HTTP_SOCKET = "runner.sock"
WAYS_SOCKET = "ways-in.sock"
ANSWERS_WITHIN_S = 15.0
"""The longest that a lookup, or a holder that is asked for sockets, may take."""


@dataclass(slots=True)
class _Asked:
    """One request that several callers wait for."""

    answer: "asyncio.Task[Activated]"
    waiting: int = 0


class RemoteActivation:
    """See `Activation`; every method belongs to the door's event loop.

    All callers of one model wait for one request. It is withdrawn when the last of them has left; the start itself goes on.

    Args:
        folder: Where the processes of this data folder meet.
        hold_s: Seconds that a call waits for a start; the runner has the same.
    """

    def __init__(self, folder: Path, hold_s: float) -> None:
        self._ways = folder / WAYS_SOCKET
        self._hold_s = hold_s
        self._asked: dict[str, _Asked] = {}
        # A connection a request: what is asked here comes before a start or a first call, and a request that is
        # withdrawn then takes its connection along.
        self._http = httpx2.AsyncClient(
            base_url="http://runner",
            trust_env=False,  # a proxy of the environment knows no Unix sockets
            transport=httpx2.AsyncHTTPTransport(
                uds=str(folder / HTTP_SOCKET), limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0)
            ),
            timeout=httpx2.Timeout(ANSWERS_WITHIN_S),
        )

    async def lookup(self, owner: str, name: str) -> Route | None:
        """See `Activation.lookup`.

        Raises:
            Unavailable: `runner_away`.
        """
        return (await self._ask("GET", "/route", FOUND, owner=owner, name=name)).route

    async def lookup_label(self, label: str) -> Route | None:
        """See `Activation.lookup_label`.

        Raises:
            Unavailable: `runner_away`.
        """
        return (await self._ask("GET", "/labelled", FOUND, label=label)).route

    async def explain(self, owner: str, name: str) -> None:
        """See `Activation.explain`.

        Raises:
            Unavailable: `runner_away`.
        """
        await self._ask("GET", "/absence", FOUND, owner=owner, name=name)

    async def activate(self, model_id: str) -> Activated:
        """See `Activation.activate`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._hold_s
        refused: NotReady | None = None
        while True:
            try:
                async with asyncio.timeout_at(until if refused else None):
                    return await self._join(model_id)
            except TimeoutError:
                raise refused or _away() from None
            except NotReady as told:
                if told.code != "model_starting" or loop.time() >= until:
                    raise
                # The request that this call joined had begun earlier: its time is over, and this call's is not.
                refused = told

    async def sockets(self, instance: str, start: int, count: int, *, v6: bool = False) -> list[socket.socket]:
        """See `Activation.sockets`; fewer than `count` where that is more than one answer carries.

        Raises:
            NoSuchInstanceError: That start of it is gone.
            Unavailable: `runner_away`.
        """
        question = json.dumps({"instance": instance, "start": start, "count": count, "v6": v6}).encode()
        with socket.socket(socket.AF_UNIX, descriptors.KIND) as asking:
            asking.setblocking(False)
            try:
                asking.connect(str(self._ways))  # on a Unix socket: at once or not at all
                descriptors.send(asking, question)
                async with asyncio.timeout(ANSWERS_WITHIN_S):
                    await _readable(asking)
                answer, sockets = descriptors.receive(asking)
            except OSError as error:  # a time-out is one too
                raise _away() from error
        if sockets:
            return sockets
        if json.loads(answer or b"{}").get("gone"):
            raise NoSuchInstanceError(instance)
        raise _away()

    async def _join(self, model_id: str) -> Activated:
        asked = self._asked.get(model_id)
        if asked is None:
            asked = self._asked[model_id] = _Asked(asyncio.create_task(self._activate(model_id)))
            asked.answer.add_done_callback(lambda _ended: self._forget(model_id, asked))
        asked.waiting += 1
        try:
            return await asyncio.shield(asked.answer)
        finally:
            asked.waiting -= 1
            if not asked.waiting:
                self._forget(model_id, asked)  # at once: whoever comes now must not join what is being withdrawn
                asked.answer.cancel()

    def _forget(self, model_id: str, asked: _Asked) -> None:
        if self._asked.get(model_id) is asked:
            del self._asked[model_id]

    async def _activate(self, model_id: str) -> Activated:
        # The runner ends the wait; what is longer than that is a runner that hangs.
        return await self._ask("POST", "/activate", ACTIVATED, self._hold_s + ANSWERS_WITHIN_S, model=model_id)

    async def _ask(self, method: str, path: str, kind: TypeAdapter[T], within_s: float = ANSWERS_WITHIN_S, **words: str) -> T:
        try:
            answer = await self._http.request(method, path, params=words, headers=_cause(), timeout=within_s)
        except httpx2.TransportError as error:
            raise _away() from error
        if answer.is_success:
            return read(kind, answer.content)
        raise _error_of(answer)


def _cause() -> dict[str, str]:
    """What the runner needs to know for its log and its events to go back to this call."""
    cause = causes.current()
    return {causes.TRACEPARENT: cause.trace.header, "x-request-id": cause.request_id} if cause else {}


def _error_of(answer: httpx2.Response) -> ModelyardError:
    try:
        return arrived(answer.json())
    except (ValueError, KeyError):  # the runner's own fault, or its end
        return Unavailable(
            "runner_failed",
            "The part that starts models did not answer as it should.",
            "Call again after the pause; if it happens again, look into the runner's log.",
            retry_after_s=2,
        )


def _away() -> Unavailable:
    return Unavailable(
        "runner_away", "The part that starts models is not there at the moment.", "Call again after the pause.", retry_after_s=2
    )


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _wake, came)
    try:
        await came
    finally:
        loop.remove_reader(sock)


def _wake(came: "asyncio.Future[None]") -> None:
    if not came.done():
        came.set_result(None)
