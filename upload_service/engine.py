"""What the builder asks of a container engine beside what the runtime asks; `docker_engine.py` answers it by Docker's SDK."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import IO, Protocol

from modelyard.runtime.engine import Engine, EngineRefusedError, Json, Stream

__all__ = ["BuildEngine", "Conversation", "EngineRefusedError", "Json"]


class Conversation(Stream[tuple[int, bytes]], Protocol):
    """What a container prints, piece by piece, with the number of the output that it came on, 1 or 2; and a way to its input."""

    def send(self, content: bytes) -> None:
        """Give it to the container's input.

        Raises:
            OSError: There is nobody any more who reads.
        """


class BuildEngine(Engine, Protocol):
    """An engine in which images are made. Every verb raises `EngineAway` or `EngineRefusedError`."""

    def images(self, pattern: str) -> list[str]:
        """The tags that match, such as `modelyard-code/ab12:*`."""

    def load(self, parts: Iterable[bytes]) -> None:
        """Take images from a tar stream; refused: `EngineRefusedError` with the engine's reason."""

    def build(self, context: IO[bytes], tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> Generator[str, None, None]:
        """Build a tar with a `Dockerfile`, and yield what is printed; to be closed by whoever stops before the end."""

    def tag(self, reference: str, tag: str) -> None:
        """Give an image another tag."""

    def untag(self, tag: str) -> None:
        """Take the tag away, and the image where it was the last; also an image by its id that has no tag."""

    def pull(self, reference: str) -> None:
        """Fetch an image from its registry."""

    def push(self, tag: str) -> None:
        """Send an image to its registry."""

    def converse(self, container: str) -> Conversation:
        """As `attach`, with the container's input; its config opens it."""

    def create_volume(self, name: str, labels: Mapping[str, str], options: Mapping[str, str]) -> str:
        """As `volume`, with options of its driver."""

    def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a network with a way out, whose members do not reach one another."""

    def remove_network(self, name: str) -> None:
        """Remove a network; not there: nothing happens."""

    def networks(self, labels: Sequence[str]) -> list[Json]:
        """All networks with these labels."""

    def disk(self) -> Json:
        """The engine's own count of its disk (`GET /system/df`)."""
