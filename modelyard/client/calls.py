"""The calls that a server takes, one method each."""

import io
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

import httpx2
import stamina
from pydantic import JsonValue

from modelyard.client.answers import Build, Deleted, Health, LogLine, Model, ModelRow, Upload
from modelyard.client.refusals import may_pass, reaching, refuse, refuse_problem
from modelyard.client.tail import Tail
from modelyard.client.zipping import packed

OnBytes = Callable[[int, int], None]
"""Called with the bytes sent so far and the file's size in bytes."""


class Client:
    """Calls one Modelyard server; every method may raise `ProblemError` and `UnreachableError`.

    Args:
        url: The console's origin, such as `http://127.0.0.1:8080`.
        token: An API key; None for the calls that need none.
        timeout_s: Seconds that the server may stay silent in one call.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx2.Timeout(timeout_s, connect=min(5.0, timeout_s)),
            trust_env=not _is_loopback(url),  # a proxy of the environment does not know this machine's own ports
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def upload(
        self,
        path_or_zip: Path,
        username: str,
        model_name: str,
        description: str = "",
        wait_s: int = 0,
        on_bytes: OnBytes | None = None,
        idempotency_key: str | None = None,
        file_name: str | None = None,
    ) -> Upload:
        """Send a zip from disk, never whole in memory, and return what the server made of it.

        Args:
            path_or_zip: A zip, or a folder, which is packed into a temporary one first.
            username: Whose model it becomes.
            model_name: The model's name; an existing one gets a new version.
            description: Some words for people.
            wait_s: Seconds, at most 300, to wait for `ready` or `failed`; 0 returns as soon as the bytes are taken.
            on_bytes: Told of the progress.
            idempotency_key: The same key again returns the first answer instead of a second upload.
            file_name: What the zip is called there; its own name where it is not set.
        """
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        fields = {"username": username, "model_name": model_name}
        if description:
            fields["description"] = description
        with packed(path_or_zip) as package, _CountedFile(package.zip_file, on_bytes) as content:
            answer = self._call(
                "POST",
                "/upload",
                data=fields,
                files={"file": (file_name or package.name, content, "application/zip")},
                headers=headers,
                timeout=httpx2.Timeout(self._timeout_s + wait_s, connect=5.0),
            )
        return Upload.model_validate_json(answer.content)

    def models(self, username: str) -> list[ModelRow]:
        """All models of a user, over all pages of the list."""
        rows: list[ModelRow] = []
        path: str | None = f"/models/{quote(username, safe='')}"
        while path:
            answer = self._call("GET", path)
            rows += [ModelRow.model_validate(row) for row in answer.json()["models"]]
            following = answer.links.get("next", {}).get("url")
            # Only path and query are taken over: the token goes to no other server.
            path = httpx2.URL(following).raw_path.decode() if following else None
        return rows

    def model(self, username: str, name: str) -> Model:
        """One model with its versions."""
        return Model.model_validate_json(self._call("GET", _model_path(username, name)).content)

    def delete(self, username: str, name: str, *, purge: bool = False) -> Deleted:
        """Delete a model with all its versions; `purge` takes the zips and rows too."""
        return self._delete(_model_path(username, name), purge=purge)

    def delete_version(self, version_id: str, *, purge: bool = False) -> Deleted:
        """Delete one version, by the id that its upload returned; the last one takes the model with it."""
        return self._delete(f"/models/{quote(version_id, safe='')}", purge=purge)

    def build(self, build_id: str) -> Build:
        """One build as it stands."""
        return Build.model_validate_json(self._call("GET", _build_path(build_id)).content)

    def build_log(self, build_id: str) -> str:
        """The log so far, one line after the other."""
        return self._call("GET", f"{_build_path(build_id)}/log").text

    def follow_build_log(self, build_id: str) -> Iterator[LogLine]:
        """Each line of the log once, from the first, as it is written, until the build has ended.

        A broken connection is made anew and goes on after the last line that was seen (`Last-Event-ID`).
        """
        tail = Tail(self._http, f"{_build_path(build_id)}/log")
        while not tail.ended:
            for attempt in stamina.retry_context(on=may_pass, attempts=12, timeout=None, wait_initial=0.1, wait_max=5.0):
                with attempt:
                    yield from tail.lines()

    def predict(
        self,
        username: str,
        name: str,
        path: str = "/predict",
        *,
        method: str = "POST",
        json: JsonValue = None,
        files: Mapping[str, tuple[str, IO[bytes]]] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Call the model's own app and return its answer, whatever its status; only the platform's refusals raise."""
        # No model is asked to predict a JSON null: None means that there is no JSON body.
        body: dict[str, Any] = {} if json is None else {"json": json}
        with reaching(self._http):
            answer = self._http.request(
                method, f"/m/{quote(username, safe='')}/{quote(name, safe='')}/{path.removeprefix('/')}", files=files, data=data, **body
            )
        refuse_problem(answer)
        return answer

    def health(self) -> Health:
        """Whether the server is well; needs no token."""
        return Health.model_validate_json(self._call("GET", "/health").content)

    def first_link(self) -> str:
        """A one-time link that signs a browser in as the owner."""
        return str(self._call("POST", "/first").json()["url"])

    def _delete(self, path: str, *, purge: bool) -> Deleted:
        return Deleted.model_validate_json(self._call("DELETE", path, params={"purge": "true"} if purge else {}).content)

    def _call(self, method: str, path: str, **request: Any) -> httpx2.Response:
        with reaching(self._http):
            answer = self._http.request(method, path, **request)
        refuse(answer)
        return answer


class _CountedFile(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, path: Path, on_bytes: OnBytes | None) -> None:
        super().__init__(path)
        self._on_bytes = on_bytes
        self._total = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """As `FileIO.read`, telling the progress."""
        chunk = super().read(-1 if size is None else size)
        if self._on_bytes is not None:
            self._on_bytes(self.tell(), self._total)
        return chunk or b""


def _model_path(username: str, name: str) -> str:
    return f"/models/{quote(username, safe='')}/{quote(name, safe='')}"


def _build_path(build_id: str) -> str:
    return f"/builds/{quote(build_id, safe='')}"


def _is_loopback(url: str) -> bool:
    host = httpx2.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
