"""The `Engine` over Docker's SDK: the one module of this service that knows it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from upload_service.engine import EngineAway, EngineRefusedError, Json

ANSWERS_WITHIN_S = 120.0
LONG_S = 3600.0
"""What takes as long as its bytes do: a load, a build, a transfer; the caller's own deadline is shorter."""
MOST_CONNECTIONS = 32


class DockerEngine:
    """One engine; every thread may use it.

    Args:
        url: Such as `unix:///var/run/docker.sock`; empty: what `DOCKER_HOST` says, or the usual socket.

    Raises:
        EngineAway: It does not answer.
    """

    def __init__(self, url: str = "") -> None:
        told = {"base_url": url} if url else kwargs_from_env()
        with _told():
            self._api = APIClient(version="auto", timeout=ANSWERS_WITHIN_S, max_pool_size=MOST_CONNECTIONS, **told)

    def facts(self) -> Json:
        """See `Engine`."""
        with _told():
            return dict(self._api.info())

    def image(self, reference: str) -> Json | None:
        """See `Engine`."""
        with _told(), suppress(NotFound):
            return dict(self._api.inspect_image(reference))
        return None

    def images(self, pattern: str) -> list[str]:
        """See `Engine`."""
        before = pattern.removesuffix("*")
        with _told():
            found = self._api.images(filters={"reference": pattern})
        return sorted(tag for each in found for tag in each["RepoTags"] or () if tag.startswith(before))

    def load(self, parts: Iterable[bytes]) -> None:
        """See `Engine`; its errors come inside the answer's stream."""
        with _told():
            response = self._api.post(
                self._api._url("/images/load"),  # noqa: SLF001 - `load_image` bounds the whole transfer by the short time-out
                data=iter(parts),
                params={"quiet": "true"},
                stream=True,
                timeout=LONG_S,
            )
            self._api._raise_for_status(response)  # noqa: SLF001 - as above
            for line in self._api._stream_helper(response, decode=True):  # noqa: SLF001 - as above
                if problem := line.get("error"):
                    raise EngineRefusedError(str(problem).strip())

    def build(self, context: IO[bytes], tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[str]:
        """See `Engine`."""
        with _told():
            lines = self._api.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                rm=True,
                forcerm=True,
                buildargs=dict(arguments),
                labels=dict(labels),
                network_mode="none",
                use_config_proxy=False,
                decode=True,
                timeout=LONG_S,
            )
            for line in lines:
                if problem := line.get("error"):
                    raise EngineRefusedError(str(problem).strip())
                if text := str(line.get("stream", "")).strip():
                    yield text

    def tag(self, reference: str, tag: str) -> None:
        """See `Engine`."""
        name, _, last = tag.rpartition(":")
        with _told():
            self._api.tag(reference, name, last, force=True)

    def untag(self, tag: str) -> None:
        """See `Engine`; containers keep what they were made of, and so its bytes."""
        with _told(), suppress(NotFound):
            self._api.remove_image(tag, force=False, noprune=False)

    def pull(self, reference: str) -> None:
        """See `Engine`."""
        name, tag = _parted(reference)
        with _told():
            _check(self._api.pull(name, tag=tag, stream=True, decode=True))

    def push(self, tag: str) -> None:
        """See `Engine`."""
        name, last = _parted(tag)
        with _told():
            _check(self._api.push(name, tag=last, stream=True, decode=True))

    def create(self, name: str, config: Json) -> str:
        """See `Engine`."""
        with _told():
            return str(self._api.create_container_from_config(dict(config), name)["Id"])

    def put(self, container: str, folder: str, tar: bytes | IO[bytes]) -> None:
        """See `Engine`."""
        with _told():
            self._api.put_archive(container, folder, tar)

    def get(self, container: str, path: str) -> Iterator[bytes]:
        """See `Engine`."""
        with _told():
            stream, _ = self._api.get_archive(container, path)
            yield from stream

    def attach(self, container: str) -> Iterator[bytes]:
        """See `Engine`."""
        with _told():
            return iter(self._api.attach(container, stream=True))

    def start(self, container: str) -> None:
        """See `Engine`."""
        with _told():
            self._api.start(container)

    def wait(self, container: str) -> tuple[int, bool]:
        """See `Engine`."""
        with _told():
            status = int(self._api.wait(container, timeout=LONG_S)["StatusCode"])
            return status, bool(self._api.inspect_container(container)["State"]["OOMKilled"])

    def remove(self, container: str) -> None:
        """See `Engine`."""
        with _told(), suppress(NotFound):
            self._api.remove_container(container, force=True, v=True)

    def containers(self, labels: Sequence[str]) -> list[Json]:
        """See `Engine`."""
        with _told():
            return list(self._api.containers(all=True, filters={"label": list(labels)}))

    def create_volume(self, name: str, labels: Mapping[str, str], options: Mapping[str, str] | None = None) -> str:
        """See `Engine`."""
        with _told():
            return str(self._api.create_volume(name, driver="local", driver_opts=dict(options or {}), labels=dict(labels))["Mountpoint"])

    def remove_volume(self, name: str) -> None:
        """See `Engine`."""
        with _told(), suppress(NotFound):
            self._api.remove_volume(name, force=True)

    def volumes(self, labels: Sequence[str]) -> list[Json]:
        """See `Engine`."""
        with _told():
            return list(self._api.volumes(filters={"label": list(labels)})["Volumes"] or [])

    def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        """See `Engine`."""
        apart = {"com.docker.network.bridge.enable_icc": "false"}
        with _told():
            self._api.create_network(name, driver="bridge", options=apart, labels=dict(labels), check_duplicate=True)

    def remove_network(self, name: str) -> None:
        """See `Engine`."""
        with _told(), suppress(NotFound):
            self._api.remove_network(name)

    def networks(self, labels: Sequence[str]) -> list[Json]:
        """See `Engine`."""
        with _told():
            return list(self._api.networks(filters={"label": list(labels)}))

    def disk(self) -> Json:
        """See `Engine`."""
        with _told():
            return dict(self._api.df())

    def close(self) -> None:
        """See `Engine`."""
        self._api.close()


def _parted(reference: str) -> tuple[str, str]:
    """Name and tag, where the host may have a port; a digest stays whole."""
    name, mark, tag = reference.rpartition(":")
    return (name, tag) if mark and "/" not in tag else (reference, "latest")


def _check(lines: Iterable[dict[str, Any]]) -> None:
    for line in lines:
        if problem := line.get("error"):
            raise EngineRefusedError(str(problem).strip())


@contextmanager
def _told() -> Iterator[None]:
    """The SDK's errors as ours."""
    try:
        yield
    except APIError as error:
        raise EngineRefusedError(str(error.explanation or error)) from error
    except (DockerException, RequestException, OSError) as error:
        raise EngineAway(str(error)) from error
