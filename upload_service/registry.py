"""A private registry beside the engine: what is built goes there, and what an engine has lost comes from there."""

from modelyard.runtime.engine import EngineRefusedError
from upload_service.builders import BuildError, Log
from upload_service.engine import BuildEngine


class Registry:
    """One registry; the engine holds the credentials for it, if it asks for any.

    Args:
        url: Host, port and path before all names, such as `registry.example.com:5000/models`; no scheme, as an image's name has none.
    """

    def __init__(self, engine: BuildEngine, url: str) -> None:
        self._engine = engine
        self._url = url

    def name(self, tag: str) -> str:
        """The image's name there."""
        return f"{self._url}/{tag}"

    def push(self, tag: str, log: Log) -> None:
        """Send the image that has this tag here.

        Raises:
            BuildError: `push_failed`.
            EngineAway: The engine does not answer.
        """
        there = self.name(tag)
        log(f"push: {there}")
        self._engine.tag(tag, there)
        try:
            self._engine.push(there)
        except EngineRefusedError as error:
            raise BuildError(
                "push_failed", f"The registry did not take the image: {error}", "Check the setting registry.url and the engine's log-in."
            ) from error
        finally:
            self._engine.untag(there)

    def fetch(self, tag: str) -> None:
        """Fetch the image and give it this tag here.

        Raises:
            EngineRefusedError: The registry has none, or does not answer.
            EngineAway: The engine does not answer.
        """
        there = self.name(tag)
        self._engine.pull(there)
        self._engine.tag(there, tag)
        self._engine.untag(there)
