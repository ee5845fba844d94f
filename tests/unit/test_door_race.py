"""The freeze race: a call arrives while its instance is being closed, interleaved at random."""

import random
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from gateway.door_routes import FrontDoorRoutes
from modelyard.domain.ids import label
from modelyard.runtime.routes import Route, RouteRemoved, RouteState

KEY = ("ann", "iris")
OWN = ("", label("iris", "model-1"))
"""The same model by its own host."""
Steps = Generator[None, None, None]


def route(state: RouteState, start: int = 1, model_id: str = "model-1") -> Route:
    return Route(model_id, *KEY, "version-1", 1, state, instance="i-1", start=start, port=8080, label=label(KEY[1], model_id))


@dataclass
class World:
    """A model's instance, its runner and its door; `broken` holds what must never happen."""

    routes: FrontDoorRoutes = field(default_factory=FrontDoorRoutes)
    open: bool = True
    start: int = 1
    catalogue: Route | None = field(default_factory=lambda: route(RouteState.RUNNING))
    broken: list[str] = field(default_factory=list)

    def write(self, state: RouteState) -> None:
        self.catalogue = route(state, self.start)
        self.routes.apply([self.catalogue])

    def runner(self) -> Steps:
        """Close the instance if nobody calls: the cold state is written before in-flight is read."""
        self.write(RouteState.CLOSING)
        yield
        if self.routes.stats("model-1").in_flight:
            yield
            if self.catalogue is not None and self.catalogue.state is RouteState.CLOSING:
                self.write(RouteState.RUNNING)
            return
        # Turning back and closing are decided in one place, under the runner's own lock: a call that asked for a start meanwhile wins.
        if self.catalogue is not None and self.catalogue.state is RouteState.CLOSING:
            self.open = False
            self.write(RouteState.COLD)

    def remover(self) -> Steps:
        """Delete the model: take the route away, and close once nobody calls."""
        self.catalogue = None
        self.routes.apply([RouteRemoved("model-1", *KEY)])
        yield
        while self.routes.stats("model-1").in_flight:
            yield
        self.open = False

    def forgetter(self) -> Steps:
        """What a restarted runner does first: it writes every route anew, this one not among them."""
        self.routes.replace([], 1)
        yield

    def activate(self) -> bool:
        if self.catalogue is None:
            return False
        if not self.open:
            self.start += 1
            self.open = True
        self.write(RouteState.RUNNING)
        return True

    def call(self, key: tuple[str, str] = KEY, *, in_order: bool = True) -> Steps:
        """One call, as the door makes it; `in_order` False reads the route before it counts itself in."""
        if in_order:
            self.routes.enter(key)
            yield
        found = self.routes.find(key)
        yield
        if not in_order:
            self.routes.enter(key)
        if found is None:
            changes, answer = self.routes.changes, self.catalogue
            yield
            self.routes.learn(key, answer, changes)
            found = answer
            yield
        if found is not None and (found.state is RouteState.RUNNING or self.activate()):
            for _ in range(2):
                if not self.open:
                    self.broken.append("the instance was closed under a call that saw it running")
                yield
        self.routes.leave(key)


def interleave(rng: random.Random, parts: list[Iterator[None]]) -> None:
    while parts:
        part = rng.choice(parts)
        try:
            next(part)
        except StopIteration:
            parts.remove(part)


def play(seed: int, *, in_order: bool = True) -> World:
    rng = random.Random(seed)
    world = World()
    if rng.random() < 0.7:
        world.routes.apply([route(RouteState.RUNNING)])
    parts: list[Iterator[None]] = [world.call(rng.choice([KEY, OWN]), in_order=in_order) for _ in range(rng.randint(1, 4))]
    parts.append(world.remover() if rng.random() < 0.3 else world.runner())
    if rng.random() < 0.3:
        parts.append(world.forgetter())
    interleave(rng, parts)
    return world


def test_no_instance_is_closed_under_a_call_that_saw_it_running(scaled: Callable[[int], int]) -> None:
    for seed in range(scaled(100_000)):
        world = play(seed)
        assert not world.broken, f"seed {seed}"
        assert world.routes.stats("model-1").in_flight == 0, f"seed {seed}"


def test_the_planted_bug_of_counting_too_late_is_found() -> None:
    assert any(play(seed, in_order=False).broken for seed in range(2_000))


def test_the_order_holds_between_two_threads(scaled: Callable[[int], int]) -> None:
    world = World()
    world.routes.apply([route(RouteState.RUNNING)])
    closed = threading.Event()
    stop = threading.Event()
    broken: list[int] = []

    def runner() -> None:
        while not stop.is_set():
            world.routes.apply([route(RouteState.CLOSING)])
            if not world.routes.stats("model-1").in_flight:
                closed.set()
                world.routes.apply([route(RouteState.COLD)])
                closed.clear()
            world.routes.apply([route(RouteState.RUNNING)])

    thread = threading.Thread(target=runner)
    thread.start()
    try:
        for number in range(scaled(1_000_000)):
            world.routes.enter(KEY)
            found = world.routes.find(KEY)
            if found is not None and found.state is RouteState.RUNNING and closed.is_set():
                broken.append(number)
            world.routes.leave(KEY)
    finally:
        stop.set()
        thread.join()
    assert not broken


def test_repeated_and_older_writes_change_nothing() -> None:
    routes = FrontDoorRoutes()
    routes.replace([route(RouteState.RUNNING)], 5)
    routes.replace([], 4)
    routes.apply([route(RouteState.RUNNING), RouteRemoved("an-older-model", *KEY)])
    assert routes.find(KEY) == route(RouteState.RUNNING)
    assert routes.dropped() == []
    routes.apply([route(RouteState.CLOSING), route(RouteState.COLD)])
    assert routes.dropped() == [("i-1", 1)]
    routes.apply([RouteRemoved("model-1", *KEY), RouteRemoved("model-1", *KEY)])
    assert routes.find(KEY) is None


def test_counts_outlive_the_route_and_names_that_nobody_has_are_forgotten() -> None:
    now = [100.0]
    routes = FrontDoorRoutes(clock=lambda: now[0])
    routes.apply([route(RouteState.RUNNING)])
    now[0] = 110.0
    assert routes.stats("model-1").idle_s == 10.0
    routes.enter(KEY)
    routes.reached("model-1")
    routes.apply([RouteRemoved("model-1", *KEY)])
    routes.replace([], 1)
    assert (routes.stats("model-1").in_flight, routes.stats("model-1").idle_s) == (1, 0.0)
    routes.leave(KEY)
    assert (routes.stats("model-1").in_flight, routes.stats("model-1").calls) == (0, 1)
    routes.enter(OWN)
    assert (routes.stats("model-1").in_flight, routes.calls_to("model-1", "i-1")) == (1, 1)
    routes.leave(OWN)
    routes.enter(("ann", "nothing"))
    routes.leave(("ann", "nothing"))
    assert routes._in_flight == {}


def test_an_absent_model_is_remembered_until_a_change_or_the_end_of_its_time() -> None:
    now = [0.0]
    routes = FrontDoorRoutes(absent_s=1.0, clock=lambda: now[0])
    routes.learn(KEY, None, routes.changes)
    assert routes.is_absent(KEY)
    routes.apply([route(RouteState.COLD)])
    assert not routes.is_absent(KEY)
    routes.learn(KEY, None, routes.changes - 1)
    assert not routes.is_absent(KEY)
    routes.learn(KEY, None, routes.changes)
    now[0] = 1.0
    assert not routes.is_absent(KEY)
