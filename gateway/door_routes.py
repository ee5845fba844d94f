"""`FrontDoorRoutes`: the route table of the ASGI front door, with its counts of calls in flight."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from modelyard.domain.ids import label
from modelyard.runtime.routes import Route, RouteChange, RouteState, RouteStats

T = TypeVar("T")

Key = tuple[str, str]
"""What a call knows before any route is read: owner and model name, or nothing and the label of the model's own host."""

_MOST_ABSENT = 10_000


class FrontDoorRoutes:
    """Routes and counts in plain dictionaries, written by the runner's threads and read by the door's event loop.

    The door's loop is the only thread that writes counts, so they need no lock; a route is one immutable value behind one
    dictionary entry, so a reader sees the old or the new one, never a mixture. The order that the freeze depends on (the door
    adds to in-flight, then reads the route; the runner writes the route, then reads in-flight) holds under the GIL because it
    runs one bytecode at a time, and without the GIL because storing into a dictionary takes and releases its lock, which is a
    full fence. Writers take a lock among themselves only.
    """

    def __init__(self, *, absent_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._absent_s = absent_s
        self._clock = clock
        self._began = clock()
        self._writing = threading.Lock()
        self._generation = -1
        self._changes = 0
        self._routes: dict[Key, Route] = {}
        self._keys: dict[str, tuple[Key, ...]] = {}
        self._absent: dict[Key, float] = {}
        self._in_flight: dict[Key, int] = {}
        self._undirected: dict[Key, int] = {}
        self._directed: dict[str, int] = {}
        self._ended: dict[Key, float] = {}
        self._calls: dict[str, int] = {}
        self._dropped: deque[tuple[str, int]] = deque()
        self._tell: Callable[[], object] | None = None

    # --- what the runner calls, from any thread

    def replace(self, routes: Iterable[Route], generation: int) -> None:
        """Forget every route and take these; an older generation than the last changes nothing."""
        fresh = {key: route for route in routes for key in _keys(route)}
        with self._writing:
            if generation < self._generation:
                return
            self._generation = generation
            self._changes += 1
            before, self._routes = self._routes, fresh
            # A deleted model's keys stay while its last calls are in flight: the runner waits for them by its id.
            kept = {model_id: keys for model_id, keys in self._keys.items() if any(map(self._in_flight.get, keys))}
            self._keys = kept | {route.model_id: _keys(route) for route in fresh.values()}
            self._absent.clear()
            for key, route in before.items():
                self._drop(key, route, fresh.get(key))

    def apply(self, changes: Iterable[RouteChange]) -> None:
        """Each change is atomic and holds for the next call; repeated, it changes nothing."""
        with self._writing:
            for change in changes:
                # Also for a removal: a call that still looks the model up is in flight under its name or its label alone.
                self._keys[change.model_id] = keys = _keys(change)
                self._changes += 1
                for key in keys:
                    self._absent.pop(key, None)
                    self._put(key, change)

    def stats(self, model_id: str) -> RouteStats:
        """What was counted for this model; a model never called: nothing in flight, idle since the door started.

        A model that has the name of a deleted one counts the last calls of that one as in flight too, until they end.
        """
        keys = self._keys.get(model_id, ())
        calls = self._calls.get(model_id, 0)
        # In flight is read first: the door notes the end of a call before it takes the call off.
        in_flight = sum(self._in_flight.get(key, 0) for key in keys)
        ended = max((self._ended.get(key, self._began) for key in keys), default=self._began)
        return RouteStats(in_flight, 0.0 if in_flight else max(0.0, self._clock() - ended), calls)

    def overview(self, model_ids: Iterable[str]) -> dict[str, RouteStats]:
        """See `Routes.overview`."""
        return {model_id: self.stats(model_id) for model_id in model_ids}

    def calls_to(self, model_id: str, instance: str) -> int:
        """See `Routes.calls_to`."""
        # The undirected are read first: a call is counted as directed before it stops being undirected.
        undirected = sum(self._undirected.get(key, 0) for key in self._keys.get(model_id, ()))
        return undirected + self._directed.get(instance, 0)

    # --- what the door calls, on its event loop alone

    def enter(self, key: Key) -> None:
        """Count a call in; it must come before `find`."""
        self._undirected[key] = self._undirected.get(key, 0) + 1
        self._in_flight[key] = self._in_flight.get(key, 0) + 1

    def direct(self, key: Key, before: str, instance: str) -> None:
        """Note that a call goes to this instance; `before` is the one that it was directed to, empty for none yet."""
        self._directed[instance] = self._directed.get(instance, 0) + 1
        self._less(self._directed, before) if before else self._less(self._undirected, key)

    def leave(self, key: Key, directed: str = "") -> None:
        """Count a call out, once for each `enter`; `directed` is the instance that it went to."""
        self._less(self._directed, directed) if directed else self._less(self._undirected, key)
        left = self._in_flight[key] - 1
        known = key in self._routes
        if known:
            self._ended[key] = self._clock()
        if left or known:
            self._in_flight[key] = left
        else:  # else every name that anybody asks for would stay in memory
            del self._in_flight[key]
            self._ended.pop(key, None)

    @staticmethod
    def _less(counts: dict[T, int], of: T) -> None:
        counts[of] -= 1
        if not counts[of]:  # no name stays in memory for having been asked for once
            del counts[of]

    def find(self, key: Key) -> Route | None:
        """The route as the runner wrote it last; None: ask the runner."""
        return self._routes.get(key)

    def reached(self, model_id: str) -> None:
        """Count a call that reached the app."""
        self._calls[model_id] = self._calls.get(model_id, 0) + 1

    def is_absent(self, key: Key) -> bool:
        """Whether the runner said a moment ago, and since the last change, that there is no such model."""
        until = self._absent.get(key)
        return until is not None and self._clock() < until

    @property
    def changes(self) -> int:
        """Grows with every change; read before a lookup and handed to `learn`."""
        return self._changes

    def learn(self, key: Key, route: Route | None, changes: int) -> None:
        """Keep what a lookup answered, unless anything changed meanwhile: the answer may then be older than the change."""
        with self._writing:
            if changes != self._changes:
                return
            if route is not None:
                self._keys[route.model_id] = keys = _keys(route)
                self._routes |= dict.fromkeys(keys, route)
                return
            if len(self._absent) >= _MOST_ABSENT:
                self._absent.clear()
            self._absent[key] = self._clock() + self._absent_s

    def on_drop(self, tell: Callable[[], object]) -> None:
        """Have this called, from any thread, whenever `dropped` has something: a server lingers for connections that stay open."""
        self._tell = tell

    def dropped(self) -> list[tuple[str, int]]:
        """The (instance, start) pairs that lost their running route since the last call of this."""
        gone: list[tuple[str, int]] = []
        while self._dropped:
            gone.append(self._dropped.popleft())
        return gone

    def _put(self, key: Key, change: RouteChange) -> None:
        before = self._routes.get(key)
        if isinstance(change, Route):
            self._routes[key] = change
            self._drop(key, before, change)
        elif before is not None and before.model_id == change.model_id:
            del self._routes[key]
            self._drop(key, before, None)

    def _drop(self, key: Key, before: Route | None, after: Route | None) -> None:
        # A route is there under two keys, and is dropped once.
        if not key[0] or before is None or before.state is not RouteState.RUNNING:
            return
        way_in = (before.instance, before.start)
        if after is None or after.state is not RouteState.RUNNING or way_in != (after.instance, after.start):
            self._dropped.append(way_in)
            if self._tell is not None:
                self._tell()


def _keys(change: RouteChange) -> tuple[Key, ...]:
    """Under what the calls of this model come: a removal does not say its label, which the name and the id make."""
    own = change.label if isinstance(change, Route) else label(change.name, change.model_id)
    by_name = (change.owner, change.name)
    return (by_name, ("", own)) if own else (by_name,)
