"""What the builder asks of a Docker engine, in few verbs; `docker_engine.py` answers them by the SDK."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

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
    """The engine answered that it will not do it, in its own words."""


class Engine(Protocol):
    """A Docker engine; what is not there is None, or nothing happens. Every verb raises `EngineAway` or `EngineRefusedError`."""

    def facts(self) -> Json:
        """What the engine says of itself (`GET /info`)."""

    def image(self, reference: str) -> Json | None:
        """An image by tag or id."""

    def images(self, pattern: str) -> list[str]:
        """The tags that match, such as `modelyard-code/ab12:*`."""

    def load(self, parts: Iterable[bytes]) -> None:
        """Take images from a tar stream; refused: `EngineRefusedError` with the engine's reason."""

    def build(self, context: IO[bytes], tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[str]:
        """Build a tar with a `Dockerfile`, and yield what is printed."""

    def tag(self, reference: str, tag: str) -> None:
        """Give an image another tag."""

    def untag(self, tag: str) -> None:
        """Take the tag away, and the image where it was the last; also an image by its id that has no tag."""

    def pull(self, reference: str) -> None:
        """Fetch an image from its registry."""

    def push(self, tag: str) -> None:
        """Send an image to its registry."""

    def create(self, name: str, config: Json) -> str:
        """Create a container, and return its id."""

    def put(self, container: str, folder: str, tar: bytes | IO[bytes]) -> None:
        """Unpack a tar into a folder of a container."""

    def get(self, container: str, path: str) -> Iterator[bytes]:
        """A tar stream of a path of a container."""

    def attach(self, container: str) -> Iterator[bytes]:
        """What the container prints, as it does; called before `start`, it misses nothing."""

    def start(self, container: str) -> None:
        """Start a container."""

    def wait(self, container: str) -> tuple[int, bool]:
        """Wait for its end; the exit status, and whether it ran out of memory."""

    def remove(self, container: str) -> None:
        """Remove a container, running or not."""

    def containers(self, labels: Sequence[str]) -> list[Json]:
        """All containers with these labels, running or not."""

    def create_volume(self, name: str, labels: Mapping[str, str], options: Mapping[str, str] | None = None) -> str:
        """Create a volume, or find it; its mount point on the engine's machine."""

    def remove_volume(self, name: str) -> None:
        """Remove a volume."""

    def volumes(self, labels: Sequence[str]) -> list[Json]:
        """All volumes with these labels."""

    def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a network with a way out, whose members do not reach one another."""

    def remove_network(self, name: str) -> None:
        """Remove a network."""

    def networks(self, labels: Sequence[str]) -> list[Json]:
        """All networks with these labels."""

    def disk(self) -> Json:
        """The engine's own count of its disk (`GET /system/df`)."""

    def close(self) -> None:
        """Let its connections go."""
