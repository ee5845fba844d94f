"""`FrontDoor`: the ASGI application behind `/m/{owner}/{model}/...`, and behind models' own hosts."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from starlette.types import Receive, Scope, Send

from gateway.calls import Calls
from gateway.door_routes import FrontDoorRoutes, Key
from gateway.paths import parse_own_target, parse_target
from gateway.relay import Relays
from gateway.settings import DoorSettings
from gateway.upstream import Upstream
from gateway.way import Passage, Way
from modelyard.domain.errors import Forbidden, Malformed, NotFound
from modelyard.run.tracing import Kind, span
from modelyard.runtime.routes import Activation, Route


class Principal(Protocol):
    """Who calls, as the web layer found out; the door needs the name, and to know how long they may."""

    @property
    def username(self) -> str:
        """The name that the app is told."""

    @property
    def still_good(self) -> Callable[[], bool]:
        """Whether what they were let in with is good now; it reads nothing, and is asked again and again while a call lasts."""


P = TypeVar("P", bound=Principal)
Identify = Callable[[str], Awaitable[P | None]]


class FrontDoor(Generic[P]):
    """Streams calls to the instance that serves a model, starting it first where it is cold.

    The web layer put into `scope["state"]`: `principal` and `request_id`; on a model's own host `label`; and `identify`, where who
    calls depends on the model or must be asked again, which gives the principal for a model's id; the door adds `model_id`. Errors of
    `modelyard.domain.errors` are raised, before the answer has started; what is raised after that must end the connection, so that
    a caller sees a truncated answer and never a falsely complete one. A call whose caller has left returns without an answer.

    Args:
        routes: The table that the runner writes.
        admit: The model's route where this caller may call it, or the error of who may not, which starts nothing; a
            `NotFound` says whether they may know why there is none.
    """

    def __init__(
        self,
        routes: FrontDoorRoutes,
        activation: Activation,
        admit: Callable[[P | None, str, str, Route | None], Route],
        settings: DoorSettings,
    ) -> None:
        self._routes = routes
        self._activation = activation
        self._admit = admit
        self._upstream = Upstream(activation, settings)
        self._calls = Calls(self._upstream, settings)
        self._relays = Relays(self._upstream, settings)
        self._listens = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call, or carry one WebSocket.

        Raises:
            ModelyardError: Malformed, Unauthenticated, NotFound, Forbidden, Conflict, TooLarge, NotReady, BadAnswer or TooSlow.
        """
        label = scope["state"].get("label")
        target = parse_target(scope["raw_path"]) if label is None else parse_own_target(label, scope["raw_path"])
        _check_call(scope)
        passage = Passage(target.key)
        self._routes.enter(target.key)  # before the route is read: a freeze that follows sees this call
        try:
            way = Way(self._routes, self._activation, passage, await self._let_in(scope, target.key))
            scope["state"]["model_id"] = way.route.model_id
            self._listen()
            with span("call", Kind.CLIENT, {"modelyard.model.id": way.route.model_id}):
                if scope["type"] == "websocket":
                    await self._relays.run(scope, receive, send, target, way, partial(self._let_in, scope, target.key))
                else:
                    await self._calls.carry(scope, receive, send, target, way)
        finally:
            self._routes.leave(target.key, passage.instance)

    def close(self) -> None:
        """Close idle connections; call it on the door's event loop, once no call is on its way."""
        self._upstream.close()

    async def _let_in(self, scope: Scope, key: Key) -> Route:
        route = self._routes.find(key) or await self._look_up(key)
        state = scope["state"]
        if (identify := state.get("identify")) is not None:
            # Also for what is none: whether a model is there must not be told by what is asked.
            state["principal"] = await identify(route.model_id if route else "")
        owner, name = (route.owner, route.name) if route else key
        try:
            return self._admit(state["principal"], owner, name, route)
        except NotFound as missing:
            if missing.may_know:
                await self._activation.explain(owner, name)
            raise

    async def _look_up(self, key: Key) -> Route | None:
        if self._routes.is_absent(key):
            return None
        changes, (owner, name) = self._routes.changes, key
        route = await (self._activation.lookup(owner, name) if owner else self._activation.lookup_label(name))
        self._routes.learn(key, route, changes)
        return route

    def _listen(self) -> None:
        if not self._listens:
            self._listens = True
            self._routes.on_drop(partial(asyncio.get_running_loop().call_soon_threadsafe, self._drop))
        self._drop()

    def _drop(self) -> None:
        for instance, start in self._routes.dropped():
            self._upstream.drop(instance, start)
            self._relays.drop(instance, start)


def _check_call(scope: Scope) -> None:
    if scope.get("method") == "CONNECT":
        raise Malformed("method_refused", "CONNECT asks for a tunnel, and a model is no proxy.", "Use another method.")
    if any(name == b"service-worker" for name, _ in scope["headers"]):
        raise Forbidden("service_worker_refused", "A model's script may not become a service worker.", "Register none.")
