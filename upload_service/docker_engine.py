"""The `BuildEngine` over Docker's SDK: the one module of this service that speaks to it."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from typing import IO, Any

from modelyard.runtime import docker_engine
from modelyard.runtime.engine import EngineRefusedError, Json
from upload_service.engine import Conversation

LONG_S = 3600.0
"""What takes as long as its bytes do: a load, a build, a transfer; the caller's own deadline is shorter."""
TAR = {"Content-Type": "application/tar"}


class DockerEngine(docker_engine.DockerEngine):
    """As the runtime's, and makes images."""

    def images(self, pattern: str) -> list[str]:
        """See `BuildEngine`."""
        found = self._ask(lambda api: api.images(filters={"reference": pattern}))
        # An image is found by one of its tags, and told with all of them.
        return sorted(tag for each in found for tag in each["RepoTags"] or () if _matches(tag, pattern))

    def load(self, parts: Iterable[bytes]) -> None:
        """See `BuildEngine`; its errors come inside the answer's stream."""

        def loaded(api: Any) -> None:
            url = api._url("/images/load")  # noqa: SLF001 - `load_image` bounds the whole transfer by the short time-out
            with closing(api.post(url, data=iter(parts), params={"quiet": "true"}, stream=True, timeout=LONG_S)) as response:
                api._raise_for_status(response)  # noqa: SLF001 - as above
                _check(api._stream_helper(response, decode=True))  # noqa: SLF001 - as above

        self._ask(loaded)

    def build(self, context: IO[bytes], tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> Generator[str, None, None]:
        """See `BuildEngine`."""
        asked = {
            "t": tag,
            "rm": True,
            "forcerm": True,
            "buildargs": json.dumps(dict(arguments)),
            "labels": json.dumps(dict(labels)),
            "networkmode": "none",
        }

        def began(api: Any) -> tuple[Any, Iterator[dict[str, Any]]]:
            # The SDK's own `build` hands out lines alone: who stops between two of them could not close the answer.
            response = api._post(api._url("/build"), data=context, params=asked, headers=TAR, stream=True, timeout=LONG_S)  # noqa: SLF001 - as above
            api._raise_for_status(response)  # noqa: SLF001 - as above
            return response, api._stream_helper(response, decode=True)  # noqa: SLF001 - as above

        response, lines = self._ask(began)
        with closing(response):
            for line in lines:
                _check([line])
                if text := str(line.get("stream", "")).strip():
                    yield text

    def tag(self, reference: str, tag: str) -> None:
        """See `BuildEngine`."""
        name, _, last = tag.rpartition(":")
        self._ask(lambda api: api.tag(reference, name, last, force=True))

    def untag(self, tag: str) -> None:
        """See `BuildEngine`; a container that is there keeps what it was made of."""
        self._find(lambda api: api.remove_image(tag, force=True))

    def pull(self, reference: str) -> None:
        """See `BuildEngine`."""
        name, tag = _parted(reference)
        self._ask(lambda api: _check(api.pull(name, tag=tag, stream=True, decode=True)))

    def push(self, tag: str) -> None:
        """See `BuildEngine`."""
        name, last = _parted(tag)
        self._ask(lambda api: _check(api.push(name, tag=last, stream=True, decode=True)))

    def converse(self, container: str) -> Conversation:
        """See `BuildEngine`."""
        response = self._ask(lambda api: docker_engine.attached(api, container, stdin=1))
        return _Conversation(response, docker_engine.framed(response))

    def create_volume(self, name: str, labels: Mapping[str, str], options: Mapping[str, str]) -> str:
        """See `BuildEngine`."""
        told = {"driver": "local", "driver_opts": dict(options), "labels": dict(labels)}
        return str(self._ask(lambda api: api.create_volume(name, **told)["Mountpoint"]))

    def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        """See `BuildEngine`."""
        apart = {"com.docker.network.bridge.enable_icc": "false"}
        self._ask(lambda api: api.create_network(name, driver="bridge", options=apart, labels=dict(labels), check_duplicate=True))

    def remove_network(self, name: str) -> None:
        """See `BuildEngine`."""
        self._find(lambda api: api.remove_network(name))

    def networks(self, labels: Sequence[str]) -> list[Json]:
        """See `BuildEngine`."""
        return self._ask(lambda api: list(api.networks(filters={"label": [*labels]})))

    def disk(self) -> Json:
        """See `BuildEngine`."""
        return self._ask(lambda api: dict(api.df()))


class _Conversation(docker_engine.AnswerStream):
    """See `Conversation`."""

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)


def _matches(tag: str, pattern: str) -> bool:
    """As engines match: a star stays between two slashes."""
    parts, wanted = tag.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True))


def _parted(reference: str) -> tuple[str, str | None]:
    """Name and tag, where the host may have a port; a digest stays with the name."""
    if "@" in reference:
        return reference, None
    name, mark, tag = reference.rpartition(":")
    return (name, tag) if mark and "/" not in tag else (reference, "latest")


def _check(lines: Iterable[dict[str, Any]]) -> None:
    """Read to the end, so that the connection is free again, then raise the first error of it."""
    if failed := [line for line in lines if line.get("error")]:
        problem = failed[0]
        raise EngineRefusedError(int((problem.get("errorDetail") or {}).get("code", 500)), str(problem["error"]).strip())
