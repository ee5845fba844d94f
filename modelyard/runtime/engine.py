"""What the runtime asks of a container engine, in few verbs; `docker_engine.py` answers them by Docker's SDK."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from modelyard.domain.errors import Unavailable

Json = Mapping[str, Any]
"""An object of the engine's API, as its documentation names the fields."""


class EngineAway(Unavailable):
    """The engine does not answer; nothing is known of what it carries, and a retry helps once it runs again."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "engine_away",
            f"The container engine does not answer: {why}",
            "Start it, or look at it with `modelyard doctor`.",
            retry_after_s=2,
        )


class EngineRefusedError(RuntimeError):
    """The engine answered that it will not do it.

    Args:
        status: Its HTTP status; 404: there is no such thing, 409: its state or its name stands against it.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


T_co = TypeVar("T_co", covariant=True)


class Stream(Protocol[T_co]):
    """What comes piece by piece for as long as the engine sends; it ends where the engine does."""

    def __iter__(self) -> Iterator[T_co]:
        """The pieces, each as it comes."""

    def close(self) -> None:
        """Hang up; whoever waits for the next piece, in another thread too, finds that there is none."""


class Engine(Protocol):
    """A container engine, safe to call from any thread. Every verb raises `EngineAway` or `EngineRefusedError`."""

    calls: int
    """How many questions it was asked so far."""

    def facts(self) -> Json:
        """What the engine says of itself, its versions among it."""

    def ping(self) -> None:
        """Return where it answers."""

    def image(self, reference: str) -> Json | None:
        """An image by tag or id; None where there is none."""

    def containers(self, labels: Sequence[str]) -> list[Json]:
        """Every container with these labels (`name=value`), running or not."""

    def inspect(self, container: str) -> Json | None:
        """A container by id or name; None where there is none."""

    def create(self, name: str, config: Json) -> str:
        """Create a container and return its id."""

    def start(self, container: str) -> None:
        """Start it; running already: nothing happens."""

    def kill(self, container: str, signal: str) -> None:
        """Send its first process a signal; not running: nothing happens."""

    def wait(self, container: str, within_s: float) -> bool:
        """Wait until it runs no more; False where it still does."""

    def pause(self, container: str) -> None:
        """Let all of it stand still."""

    def unpause(self, container: str) -> None:
        """Let it go on; not paused: nothing happens."""

    def rename(self, container: str, name: str) -> None:
        """Give it another name."""

    def remove(self, container: str) -> None:
        """Remove it, running or not; not there: nothing happens."""

    def run_inside(self, container: str, words: Sequence[str]) -> tuple[int, bytes]:
        """Run a command inside it; the exit status, and what was printed."""

    def read_inside(self, container: str, words: Sequence[str]) -> bytes:
        """As `run_inside`, for what is printed alone: a question less."""

    def attach(self, container: str) -> Stream[bytes]:
        """What it prints from now on, piece by piece, until it ends."""

    def logs(self, container: str, limit_bytes: int) -> bytes:
        """About the last of what it printed, as the engine kept it."""

    def usage(self, container: str) -> Json:
        """What it uses now (`GET /containers/ID/stats`)."""

    def events(self, filters: Mapping[str, Sequence[str]], since: str) -> Stream[Json]:
        """What happens to containers from now on, or from `since` as far as the engine remembers."""

    def volume(self, name: str, labels: Mapping[str, str]) -> str:
        """Where a named volume lies on the engine's machine; made where there is none."""

    def volumes(self, labels: Sequence[str]) -> list[Json]:
        """All volumes with these labels."""

    def remove_volume(self, name: str) -> None:
        """Remove it; not there: nothing happens."""

    def close(self) -> None:
        """Let go of the connections."""
