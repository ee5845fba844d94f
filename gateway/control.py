"""The door's side of the wire to the runner: its routes come in, what was counted goes out."""

import fcntl
import secrets
from http import HTTPStatus
from pathlib import Path
from typing import IO, TypeVar

from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Address
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.door_routes import FrontDoorRoutes
from modelyard.domain.errors import Conflict, Unavailable
from modelyard.run.unix_server import UnixServer
from modelyard.runtime.route_wire import (
    BOOT,
    COUNTS,
    DELTA,
    QUESTION,
    REACHING,
    SNAPSHOT,
    Counts,
    Delta,
    Edition,
    Reaching,
    Snapshot,
    WireError,
    read,
)

T = TypeVar("T")

SOCKET = "door.sock"
LOCK = "door.lock"


class Control:
    """Takes snapshots and changes in their order, whatever order they arrive in, and answers what was counted.

    Args:
        boot: Names this life of the door; the runner sees by another name that all routes must be told anew.
    """

    def __init__(self, routes: FrontDoorRoutes, boot: str = "") -> None:
        self._routes = routes
        self.boot = boot or secrets.token_hex(8)
        self._edition: Edition | None = None

    @property
    def is_told(self) -> bool:
        """Whether a runner has said which routes there are."""
        return self._edition is not None

    def replace(self, snapshot: Snapshot) -> bool:
        """Take every route anew; False where a later snapshot, or a later runner's, came before."""
        edition = snapshot.edition
        if self._edition is not None and edition < self._edition:
            return False
        number = edition.term << 32 | edition.generation
        if self._edition is None or edition.term > self._edition.term:
            # Another runner counts the starts of its instances anew: no connection to one of the last runner's may pass for one of its.
            self._routes.replace([], number)
        self._routes.replace(snapshot.routes, number)
        self._edition = edition
        return True

    def change(self, delta: Delta) -> bool:
        """Take changes to the snapshot that was taken last; False where they belong to another one."""
        if delta.edition != self._edition:
            return False
        self._routes.apply(delta.changes())
        return True

    def app(self) -> ASGIApp:
        """The calls of the runner; every answer says which life of the door gave it."""
        addresses = [
            Address("/routes", self._put, methods=["PUT"]),
            Address("/routes", self._patch, methods=["PATCH"]),
            Address("/stats", self._stats, methods=["POST"]),
            Address("/reaching", self._reaching, methods=["GET"]),
        ]
        return Starlette(routes=addresses, exception_handlers={WireError: self._refuse})

    async def _put(self, request: Request) -> Response:
        return self._took(taken=self.replace(read(SNAPSHOT, await request.body())))

    async def _patch(self, request: Request) -> Response:
        return self._took(taken=self.change(read(DELTA, await request.body())))

    async def _stats(self, request: Request) -> Response:
        asked = read(QUESTION, await request.body())
        return self._tell(COUNTS, Counts(self._routes.overview(asked.models)))

    async def _reaching(self, request: Request) -> Response:
        words = request.query_params
        return self._tell(REACHING, Reaching(self._routes.calls_to(words["model"], words["instance"])))

    async def _refuse(self, _request: Request, error: Exception) -> Response:
        return Response(str(error), HTTPStatus.BAD_REQUEST, self._header)

    def _took(self, *, taken: bool) -> Response:
        return Response(status_code=HTTPStatus.NO_CONTENT if taken else HTTPStatus.CONFLICT, headers=self._header)

    def _tell(self, kind: TypeAdapter[T], told: T) -> Response:
        return Response(kind.dump_json(told), media_type="application/json", headers=self._header)

    @property
    def _header(self) -> dict[str, str]:
        return {BOOT: self.boot}


class Listening:
    """The control socket in the folder where the processes meet.

    One door at a time: a second one would say that nothing is in flight while the first still carries calls to an instance.
    """

    def __init__(self, control: Control, folder: Path) -> None:
        self._server = UnixServer(control.app(), folder / SOCKET)
        self._path = folder / LOCK
        self._lock: IO[str] | None = None

    def start(self) -> None:
        """Answer the runner from now on.

        Raises:
            Conflict: `door_running`, another process of this data folder is the door.
        """
        lock = self._path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise Conflict(
                "door_running", "Another gateway of this data folder runs, or is about to end.", "Use that one, or wait for its end."
            ) from None
        lock.truncate(0)  # nginx has its name there, for a runner whose apps it could not reach
        self._lock = lock
        self._server.start()

    def close(self) -> None:
        """Answer no longer; to be called once no call is on its way: for the runner, a door that does not listen carries none."""
        self._server.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class OnceTold:
    """The front door as callers meet it: closed until a runner has said which routes there are."""

    def __init__(self, door: ASGIApp, control: Control) -> None:
        self._door = door
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on.

        Raises:
            Unavailable: `starting`.
        """
        if not self._control.is_told:
            raise Unavailable("starting", "The gateway does not know yet where models run.", "Call again after the pause.", retry_after_s=1)
        await self._door(scope, receive, send)
