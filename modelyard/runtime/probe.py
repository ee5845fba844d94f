"""Waits until a started app answers HTTP, and finds the address where it does."""

import http.client
import time
from collections.abc import Callable, Iterator

from modelyard.domain.plan import Plan
from modelyard.domain.states import ExitReason
from modelyard.runtime.runtime import Actual, ActualState, Listener, NoSuchInstanceError, Runtime

SHORTEST_WAIT_S, LONGEST_WAIT_S, GROWTH = 0.005, 0.05, 1.25
SHORTEST_ANSWER_S, LONGEST_ANSWER_S = 1.0, 10.0
# Another port than the declared one counts when it has answered for this long: an app may open a side door first.
SETTLE_S = 0.5
# What else an app listens on is looked for when the expected address has kept silent for so long, and less and less often: it may cost
# a question to an engine.
LISTENERS_AFTER_S, LISTENERS_AT_MOST_EVERY_S = 1.0, 4.0
BODY_BYTES = 65536

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what an app listens on, inside its own namespace


class NeverReadyError(Exception):
    """The app ended, or did not answer in time.

    Args:
        reason: `crashed`, `oom_killed` or `never_ready`.
        detail: What was seen last, for people.
    """

    def __init__(self, reason: ExitReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ProbeStoppedError(Exception):
    """The caller's `stop` said so before the app was ready."""


def wait_ready(runtime: Runtime, name: str, start: int, plan: Plan, deadline_s: float, stop: Callable[[], bool] = bool) -> Listener:
    """Wait until the app is ready: its port listens, and `GET` of the health path is answered below 500.

    An app without that path is ready when it answers HTTP at all. Blocks the calling thread.

    Args:
        start: The number that `Runtime.start` returned.
        deadline_s: Seconds from now.
        stop: Asked between tries; True ends the wait.

    Raises:
        NeverReadyError: It exited first, or the deadline has passed.
        ProbeStoppedError: `stop` said so.
    """
    watch = _Watch(runtime, name, start, plan)
    ends, wait_s = time.monotonic() + deadline_s, SHORTEST_WAIT_S
    while True:
        if stop():
            raise ProbeStoppedError(name)
        if address := watch.look(ends - time.monotonic()):
            return address
        watch.check_alive()
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise NeverReadyError(ExitReason.NEVER_READY, f"not ready after {deadline_s:g} s: {watch.seen}")
        time.sleep(min(wait_s, left_s))
        wait_s = min(wait_s * GROWTH, LONGEST_WAIT_S)


class _Watch:
    """What is known so far of one start."""

    def __init__(self, runtime: Runtime, name: str, start: int, plan: Plan) -> None:
        self._runtime = runtime
        self._name = name
        self._start = start
        self._health = plan.health
        self._declared = runtime.expected(name)
        self._heard: list[Listener] = []
        self._looks_at, self._pause_s = time.monotonic() + LISTENERS_AFTER_S, LISTENERS_AFTER_S
        self._answer_s = SHORTEST_ANSWER_S
        self._other_since: float | None = None
        self.seen = self._nothing = f"nothing listens on port {self._declared.port}"

    def look(self, left_s: float) -> Listener | None:
        """The address that answers now."""
        for address in self._candidates():
            if self._answers(address, left_s):
                return address if address.port == self._declared.port else self._settled(address)
        return None

    def check_alive(self) -> None:
        """Raise once the app has ended.

        Raises:
            NeverReadyError: With the reason and the exit that the runtime saw.
        """
        found = next((each for each in self._runtime.actual() if each.name == self._name), None)
        if found is None or found.state is ActualState.EXITED or found.start != self._start:
            raise NeverReadyError(*_ending(found))

    def _candidates(self) -> Iterator[Listener]:
        """The declared port; now and then, and while another one is on trial, whatever else the app listens on, lower ones first."""
        others = self._other_since is not None
        if time.monotonic() >= self._looks_at:
            self._hear()
            self._pause_s = min(self._pause_s * 2, LISTENERS_AT_MOST_EVERY_S)
            self._looks_at, others = time.monotonic() + self._pause_s, True
        if others and self._heard:
            yield from self._heard
        else:
            yield next((each for each in self._heard if each.port == self._declared.port), self._declared)

    def _hear(self) -> None:
        heard = self._runtime.listening(self._name)
        self._heard = sorted(map(_reachable, heard), key=lambda each: (each != self._declared, each.port != self._declared.port, each.port))

    def _settled(self, other: Listener) -> Listener | None:
        """The other address, once it has answered for long enough and the declared port is still silent."""
        self._other_since = self._other_since or time.monotonic()
        self.seen = f"it answers on port {other.port}, and not on port {self._declared.port}"
        if time.monotonic() - self._other_since < SETTLE_S:
            return None
        self._hear()
        if all(each.port != self._declared.port for each in self._heard):
            return other
        self._other_since = None
        return None

    def _answers(self, address: Listener, left_s: float) -> bool:
        """Whether `GET` of the health path is answered there as by a ready app."""
        timeout_s = min(self._answer_s, max(left_s, 0.05))
        try:
            status = self._get(address, timeout_s)
        except (ConnectionRefusedError, NoSuchInstanceError):
            return False
        except (ConnectionResetError, BrokenPipeError):
            # Of an inlet this means that nobody listens behind it.
            if address in self._heard:
                self.seen = f"what listens on port {address.port} did not answer HTTP: it hung up"
        except TimeoutError:
            # A question that the deadline cut short tells less than what was seen before it.
            if timeout_s == self._answer_s or self.seen == self._nothing:
                self.seen = f"GET {self._health} on port {address.port} was not answered within {timeout_s:g} s"
            self._answer_s = min(self._answer_s * 2, LONGEST_ANSWER_S)
        except (OSError, http.client.HTTPException) as error:
            self.seen = f"what listens on port {address.port} did not answer HTTP: {type(error).__name__}"
        else:
            if status < http.HTTPStatus.INTERNAL_SERVER_ERROR or status == http.HTTPStatus.NOT_IMPLEMENTED:
                return True  # 501: a server that has no GET at all, so no health path either
            self.seen = f"GET {self._health} on port {address.port} was answered {status}"
        return False

    def _get(self, address: Listener, timeout_s: float) -> int:
        connection = http.client.HTTPConnection("localhost", address.port, timeout=timeout_s)
        connection.sock = self._runtime.connect(self._name, self._start, address, timeout_s)
        try:
            connection.request("GET", self._health, headers={"Connection": "close", "User-Agent": "modelyard-probe"})
            answer = connection.getresponse()
            answer.read(BODY_BYTES)
            return answer.status
        finally:
            connection.close()


def _reachable(listener: Listener) -> Listener:
    return Listener(_ANY.get(listener.host, listener.host), listener.port)


def _ending(found: Actual | None) -> tuple[ExitReason, str]:
    if found is None:
        return ExitReason.CRASHED, "it was removed"
    return found.reason or ExitReason.CRASHED, found.detail or "it was stopped"
