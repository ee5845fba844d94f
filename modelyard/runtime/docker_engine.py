"""The `Engine` over Docker's SDK: the one module of the kernel that knows it."""

import json
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from typing import Any, TypeVar

from docker import APIClient
from docker.errors import APIError, DockerException
from docker.utils import convert_filters, kwargs_from_env
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from modelyard.runtime.engine import EngineAway, EngineRefusedError, Json, Stream

USUAL = "unix:///var/run/docker.sock"
DIALS_WITHIN_S = 10.0
"""The time in which an engine must say which version it is: one that takes calls and answers none is as good as away."""
ANSWERS_WITHIN_S = 60.0
MOST_CONNECTIONS = 64
SHORTEST_WAIT_S = 0.05
LINE_BYTES = 128
"""What a line of output has about, where the engine counts lines and we count bytes."""
FRAME = struct.Struct(">BxxxL")
"""What comes before each piece of output: which stream it is of, and its length (the engine's API, "Attach to a container")."""

T = TypeVar("T")


class DockerEngine:
    """One Docker engine; it is dialled at the first question, and again after it was away.

    Args:
        url: Such as `unix:///var/run/docker.sock`; empty: what `DOCKER_HOST` says, or the usual socket.
        dials_within_s: The longest that the first question waits for an answer.
        answers_within_s: The longest that each later one does.
    """

    def __init__(self, url: str = "", *, dials_within_s: float = DIALS_WITHIN_S, answers_within_s: float = ANSWERS_WITHIN_S) -> None:
        self.calls = 0
        self._dials_within_s = dials_within_s
        self._answers_within_s = answers_within_s
        self._told: dict[str, Any] = {"base_url": url} if url else kwargs_from_env()
        scheme, _, path = str(self._told.get("base_url", USUAL)).partition("://")
        self._path = path if scheme in {"unix", "http+unix"} else ""
        self._dialling = threading.Lock()
        self._api: APIClient | None = None
        self._failed_at, self._failure = -math.inf, ""

    def facts(self) -> Json:
        """See `Engine`."""
        return {**self._ask(lambda api: api.info()), "version": self._ask(lambda api: api.version())}

    def ping(self) -> None:
        """See `Engine`."""
        self._ask(lambda api: api.ping())

    def image(self, reference: str) -> Json | None:
        """See `Engine`."""
        return self._find(lambda api: api.inspect_image(reference))

    def containers(self, labels: Sequence[str]) -> list[Json]:
        """See `Engine`."""
        return self._ask(lambda api: list(api.containers(all=True, filters={"label": [*labels]})))

    def inspect(self, container: str) -> Json | None:
        """See `Engine`."""
        return self._find(lambda api: api.inspect_container(container))

    def create(self, name: str, config: Json) -> str:
        """See `Engine`."""
        return str(self._ask(lambda api: api.create_container_from_config(dict(config), name)["Id"]))

    def start(self, container: str) -> None:
        """See `Engine`."""
        self._ask(lambda api: api.start(container))

    def kill(self, container: str, signal: str) -> None:
        """See `Engine`."""
        with _unless(HTTPStatus.CONFLICT):
            self._ask(lambda api: api.kill(container, signal))

    def wait(self, container: str, within_s: float) -> bool:
        """See `Engine`."""
        until = time.monotonic() + within_s
        try:
            self._ask(lambda api: api.wait(container, timeout=max(within_s, SHORTEST_WAIT_S), condition="not-running"))
        except EngineAway:
            # The SDK tells a time-out while the answer is read as a broken connection.
            if time.monotonic() < until:
                raise
            return False
        return True

    def pause(self, container: str) -> None:
        """See `Engine`."""
        self._ask(lambda api: api.pause(container))

    def unpause(self, container: str) -> None:
        """See `Engine`."""
        with _unless(HTTPStatus.CONFLICT, HTTPStatus.INTERNAL_SERVER_ERROR):  # the latter: what old engines say of one that is not paused
            self._ask(lambda api: api.unpause(container))

    def rename(self, container: str, name: str) -> None:
        """See `Engine`."""
        self._ask(lambda api: api.rename(container, name))

    def remove(self, container: str) -> None:
        """See `Engine`."""
        self._find(lambda api: api.remove_container(container, force=True, v=True))

    def run_inside(self, container: str, words: Sequence[str]) -> tuple[int, bytes]:
        """See `Engine`."""
        began = self._ask(lambda api: api.exec_create(container, [*words])["Id"])
        printed = self._ask(lambda api: api.exec_start(began))
        return int(self._ask(lambda api: api.exec_inspect(began)["ExitCode"])), bytes(printed)

    def read_inside(self, container: str, words: Sequence[str]) -> bytes:
        """See `Engine`."""
        began = self._ask(lambda api: api.exec_create(container, [*words])["Id"])
        return bytes(self._ask(lambda api: api.exec_start(began)))

    def attach(self, container: str) -> Stream[bytes]:
        """See `Engine`."""
        response = self._ask(lambda api: attached(api, container))
        return AnswerStream(response, (piece for _, piece in framed(response)))

    def logs(self, container: str, limit_bytes: int) -> bytes:
        """See `Engine`."""
        lines = limit_bytes // LINE_BYTES + 1
        return bytes(self._ask(lambda api: api.logs(container, tail=lines)))[-limit_bytes:]

    def usage(self, container: str) -> Json:
        """See `Engine`."""
        return dict(self._ask(lambda api: api.stats(container, stream=False, one_shot=True)))

    def events(self, filters: Mapping[str, Sequence[str]], since: str) -> Stream[Json]:
        """See `Engine`."""
        asked = {"filters": convert_filters({name: [*values] for name, values in filters.items()}), "since": since or None}
        response = self._ask(lambda api: _checked(api, api._get(api._url("/events"), params=asked, stream=True)))  # noqa: SLF001 - as `attach`
        return AnswerStream(response, _objects(response))

    def volume(self, name: str, labels: Mapping[str, str]) -> str:
        """See `Engine`."""
        return str(self._ask(lambda api: api.create_volume(name, driver="local", labels=dict(labels))["Mountpoint"]))

    def volumes(self, labels: Sequence[str]) -> list[Json]:
        """See `Engine`."""
        return self._ask(lambda api: list(api.volumes(filters={"label": [*labels]})["Volumes"] or ()))

    def remove_volume(self, name: str) -> None:
        """See `Engine`."""
        self._find(lambda api: api.remove_volume(name))

    def close(self) -> None:
        """See `Engine`."""
        with self._dialling:
            api, self._api = self._api, None
        if api is not None:
            api.close()

    def _client(self) -> APIClient:
        asked_at = time.monotonic()
        with self._dialling:
            if self._api is None and self._failed_at > asked_at:
                raise EngineAway(self._failure)  # whoever waited in line has seen it as well: a line is as long as one try
            if self._api is None:
                self._api = self._dialled()
            return self._api

    def _dialled(self) -> APIClient:
        try:
            # `auto` asks which version both sides speak: new engines refuse what old ones know, and the other way round.
            api = APIClient(
                version="auto", timeout=self._dials_within_s, max_pool_size=MOST_CONNECTIONS, use_ssh_client=False, **self._told
            )
        except (DockerException, RequestException, OSError) as error:
            self._failed_at, self._failure = time.monotonic(), _why(error)
            raise
        api.timeout = self._answers_within_s
        return api

    def _ask(self, question: Callable[[APIClient], T]) -> T:
        self.calls += 1
        with _translated():
            self._knock()
            return question(self._client())

    def _knock(self) -> None:
        """Raise where nobody listens: the SDK would leave the socket of such a try open until it is collected."""
        if self._path:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
                knocking.settimeout(self._dials_within_s)
                knocking.connect(self._path)

    def _find(self, question: Callable[[APIClient], T]) -> T | None:
        try:
            return self._ask(question)
        except EngineRefusedError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise


class AnswerStream:
    """See `Stream`; over an answer that goes on."""

    def __init__(self, response: Any, pieces: Iterator[Any]) -> None:
        raw = response.raw._fp.fp.raw  # noqa: SLF001 - the SDK has no name for it
        self._response = response
        self._pieces = pieces
        self._is_read = False
        self._socket: socket.socket = getattr(raw, "_sock", raw)
        self._socket.settimeout(None)

    def __iter__(self) -> Iterator[Any]:
        self._is_read = True
        return self._pieces

    def close(self) -> None:
        """See `Stream`."""
        with suppress(OSError):  # the reader, who may wait in another thread, closes the rest
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._is_read:
            self._response.close()


def attached(api: APIClient, container: str, **more: int) -> Any:
    """The answer that both outputs of a container come by, and its input goes by where `more` asks for it."""
    asked = {"stream": 1, "stdout": 1, "stderr": 1, "logs": 0, **more}
    wished = {"Connection": "Upgrade", "Upgrade": "tcp"}
    url = api._url("/containers/{0}/attach", container)  # noqa: SLF001 - `attach` asks for the container's settings first
    return _checked(api, api._post(url, headers=wished, params=asked, stream=True))  # noqa: SLF001 - as above


def _checked(api: APIClient, response: Any) -> Any:
    api._raise_for_status(response)  # noqa: SLF001 - the SDK does so after each question
    return response


def framed(response: Any) -> Iterator[tuple[int, bytes]]:
    """What comes by such an answer: the output's number, 1 or 2, and a piece."""
    # The reader that took the answer's head: the first pieces may lie in it already. The SDK's own `attach` reads past it.
    reader = response.raw._fp.fp  # noqa: SLF001 - the SDK has no name for it
    with closing(response), suppress(OSError, ValueError):  # the engine ended, or this side hung up
        while len(head := reader.read(FRAME.size)) == FRAME.size:
            number, size = FRAME.unpack(head)
            yield number, reader.read(size)


def _objects(response: Any) -> Iterator[Json]:
    with closing(response), suppress(OSError, ValueError, HTTPError):  # as above
        buffered = b""
        while piece := response.raw.read1():
            *lines, buffered = (buffered + piece).split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())


@contextmanager
def _translated() -> Iterator[None]:
    """The SDK's errors as ours."""
    try:
        yield
    except APIError as error:
        status = error.response.status_code if error.response is not None else 0
        raise EngineRefusedError(status, str(error.explanation or error)) from error
    except (DockerException, RequestException, OSError) as error:
        raise EngineAway(_why(error)) from error


def _why(error: Exception) -> str:
    """What the SDK says, and plainly where it waited in vain: it has many words for that."""
    return "it takes questions and answers none in time" if "timed out" in str(error).lower() else str(error)


@contextmanager
def _unless(*statuses: int) -> Iterator[None]:
    """Nothing happens where the engine refuses with one of these."""
    try:
        yield
    except EngineRefusedError as error:
        if error.status not in statuses:
            raise
