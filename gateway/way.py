"""The way of one call: counted where it goes, woken where its model is cold."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.door_routes import FrontDoorRoutes, Key
from gateway.upstream import InstanceGoneError
from modelyard.domain.errors import BadAnswer
from modelyard.runtime.routes import Activation, Route, RouteState

T = TypeVar("T")


@dataclass(slots=True)
class Passage:
    """Where a call that was counted in has been directed; empty while that is open."""

    key: Key
    instance: str = ""


@dataclass(slots=True)
class Way:
    """How one call reaches an instance.

    Args:
        timings: What a start took that this call waited for, in seconds.
        since: When the instance was known to run, on the monotonic clock.
    """

    routes: FrontDoorRoutes
    activation: Activation
    passage: Passage
    route: Route
    timings: Mapping[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)
    _woken: bool = field(default=False, init=False)

    async def reach(self, take: Callable[[Route], Awaitable[T]]) -> T:
        """What `take` gives of the running instance; a route whose instance is gone is woken once.

        Raises:
            BadAnswer: `instance_gone`.
            NotReady: As `Activation.activate` has it.
        """
        if self.route.state is not RouteState.RUNNING:
            await self._wake()
        while True:
            self._direct()
            try:
                return await take(self.route)
            except InstanceGoneError:
                if self._woken:
                    raise gone() from None
                await self._wake()

    async def reach_again(self, take: Callable[[Route], Awaitable[T]]) -> T:
        """As `reach`, for a call that the instance took and ended over: starting another for it would hide that.

        Raises:
            BadAnswer: `instance_gone`.
        """
        try:
            return await take(self.route)
        except InstanceGoneError:
            raise gone() from None

    async def _wake(self) -> None:
        activated = await self.activation.activate(self.route.model_id)
        self.route, self.timings, self._woken = activated.route, activated.timings, True
        self.since = time.monotonic()

    def _direct(self) -> None:
        if self.passage.instance != self.route.instance:
            self.routes.direct(self.passage.key, self.passage.instance, self.route.instance)
            self.passage.instance = self.route.instance


def gone() -> BadAnswer:
    """The error of an instance that ended before it answered."""
    return BadAnswer(
        "instance_gone", "The model's instance ended before it answered.", "Call again; if it happens again, look into the model's log."
    )
