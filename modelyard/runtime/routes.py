"""Route values, and the two protocols between the front door and the runner."""

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class RouteState(StrEnum):
    """Where a call goes: straight to the instance, or to `activate` first."""

    COLD = "cold"
    RUNNING = "running"
    CLOSING = "closing"


@dataclass(frozen=True, slots=True)
class Route:
    """How the calls of one model reach its serving version.

    Args:
        instance: The name under the runtime; `start` tells one start of it from the next.
        host: Where the app listens inside its namespace, `127.0.0.1` or `::1`.
        port: Its port there.
        timeout_s: The time from a call's first byte to the answer's first byte, and between two bytes of it.
        keep_alive_s: How long an idle connection to the app may be used again.
        label: The first part of the host name on which the model's own pages live.
        public: Whether anybody may call it, without a credential.
        shared_with: The users who may, beside the owner and administrators.
        socket: The absolute path of the inlet's Unix socket; empty where the runtime hands out sockets itself.
    """

    model_id: str
    owner: str
    name: str
    version_id: str
    version: int
    state: RouteState
    instance: str = ""
    start: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    timeout_s: float = 60.0
    max_body_bytes: int = 100 * 1024 * 1024
    keep_alive_s: float = 30.0
    label: str = ""
    public: bool = False
    shared_with: frozenset[str] = frozenset()
    socket: str = ""


@dataclass(frozen=True, slots=True)
class Activated:
    """A route that can be called now, and what it took to get there, in seconds, for `Server-Timing`."""

    route: Route
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteStats:
    """What the door counted for one model since it started.

    Args:
        in_flight: Calls between their arrival and the end of their answer, now.
        idle_s: Seconds since the last call ended; 0 while one is in flight.
        calls: All calls that reached the app.
    """

    in_flight: int
    idle_s: float
    calls: int


@dataclass(frozen=True, slots=True)
class RouteRemoved:
    """The model has no route any more: the door asks the runner again at the next call."""

    model_id: str
    owner: str
    name: str


RouteChange = Route | RouteRemoved


class Routes(Protocol):
    """The door's side: the runner writes routes here and reads what the door counted.

    The door adds to `in_flight` before it reads a route; the runner writes a route before it reads `in_flight`.
    """

    def replace(self, routes: Iterable[Route], generation: int) -> None:
        """Forget every route and take these; an older generation than the last changes nothing."""

    def apply(self, changes: Iterable[RouteChange]) -> None:
        """Each change is atomic and holds for the next call; repeated, it changes nothing.

        Raises:
            Unavailable: The door may not have taken them; until it has, it counts as carrying a call of every model.
        """

    def stats(self, model_id: str) -> RouteStats:
        """What was counted for this model; a model never called: nothing in flight, idle since the door started."""

    def overview(self, model_ids: Iterable[str]) -> Mapping[str, RouteStats]:
        """`stats` of each of these models, in one question: whoever looks at many asks the door once."""

    def calls_to(self, model_id: str, instance: str) -> int:
        """Calls that may still reach this instance: those on their way in it, and those of the model not directed yet.

        Read after the model's route has left the instance, 0 says that no call will ever reach it again.
        """


class Activation(Protocol):
    """The runner's side: the door asks for routes, starts and ways in."""

    async def lookup(self, owner: str, name: str) -> Route | None:
        """The model's route as the catalogue has it, starting nothing; None: there is no such model that is ready."""

    async def lookup_label(self, label: str) -> Route | None:
        """As `lookup`, by the label of the model's own host."""

    async def explain(self, owner: str, name: str) -> None:
        """Return where there is no such model; it is asked for those who may know more than that.

        Raises:
            NotReady: `model_building`, no version of it is ready yet.
            Conflict: `model_not_built`, none will be ready without a new upload.
        """

    async def activate(self, model_id: str) -> Activated:
        """A running route; all callers of a model share one start. Waits without holding a thread.

        Raises:
            NotReady: The start took longer than the hold time, or waits for its back-off; carries `state`, `phase`.
            NotFound: The model was deleted meanwhile.
            Unavailable: No runner is there, or the sandbox could not be made.
        """

    async def sockets(self, instance: str, start: int, count: int, *, v6: bool = False) -> list[socket.socket]:
        """Unconnected TCP sockets of the instance's own network, see `Runtime.dial`.

        Raises:
            NoSuchInstanceError: That start of it is gone.
        """
