"""The calls that a server takes, one method each: models, their builds, calls and events."""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import httpx2
from pydantic import JsonValue

from modelyard.client.account_calls import AccountCalls
from modelyard.client.answers import Access, Build, Deleted, Event, Health, LogLine, Model, ModelRow, Upload
from modelyard.client.refusals import reaching, refuse_problem
from modelyard.client.tail import Tail
from modelyard.client.zipping import packed

OnBytes = Callable[[int, int], None]
"""Called with the bytes sent so far and the file's size in bytes."""


class Client(AccountCalls):
    """Calls one Modelyard server; every method may raise `ProblemError` and `UnreachableError`.

    Args:
        url: The console's origin, such as `http://127.0.0.1:8080`.
        token: An API key or an access token, or where such tokens come from; None for the calls that need none.
        timeout_s: Seconds that the server may stay silent in one call.

    Example:
        ```python
        from pathlib import Path
        from modelyard import Client

        with Client("http://127.0.0.1:8080", token) as client:
            client.wait(client.upload(Path("fruit"), "ada", "fruit"))
            print(client.predict("ada", "fruit", json={"input": "hello"}).json())
        ```
    """

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

    def models(self, username: str | None = None) -> list[ModelRow]:
        """All models of a user, over all pages of the list; without a name yours, and for administrators everybody's."""
        path = "/models" if username is None else f"/models/{quote(username, safe='')}"
        return [ModelRow.model_validate(row) for row in self._list(path, "models")]

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
        seen = 0

        def fresh(event: httpx2.ServerSentEvent) -> LogLine | None:
            nonlocal seen
            line = LogLine.model_validate_json(event.data) if event.event == "log" else None
            if line is None or line.n <= seen:
                return None
            seen = line.n
            return line

        yield from Tail(self._http, "The log of the build", f"{_build_path(build_id)}/log", fresh)

    def wait(self, upload: Upload, on_line: Callable[[LogLine], object] | None = None) -> Upload:
        """The upload as it stands once its build has ended: `ready`, or `failed` or `cancelled` with a reason.

        Args:
            upload: What `upload` returned.
            on_line: Told every line of the build's log.

        Example:
            ```python
            taken = client.wait(client.upload(Path("fruit"), "ada", "fruit"))
            assert taken.status == "ready", taken.message
            ```
        """
        if upload.build_id is None:
            return upload
        for line in self.follow_build_log(upload.build_id):
            if on_line is not None:
                on_line(line)
        build = self.build(upload.build_id)
        told = build.model_dump(include={"reason", "message", "mend"})
        return upload.model_copy(update={**told, "status": "ready" if build.status == "succeeded" else build.status})

    def logs(self, username: str, name: str, lines: int = 100) -> str:
        """The last lines that the model's own app wrote.

        Example:
            ```python
            print(client.logs("ada", "fruit", lines=20))
            ```
        """
        return self._call("GET", f"{_model_path(username, name)}/logs", params={"lines": lines}).text

    def access(self, username: str, name: str) -> Access:
        """Who may call the model beside its owner and administrators.

        Example:
            ```python
            client.access("ada", "fruit").users
            ```
        """
        return Access.model_validate_json(self._call("GET", f"{_model_path(username, name)}/access").content)

    def set_access(self, username: str, name: str, access: Access) -> Access:
        """Let these call the model, and nobody else beside its owner and administrators.

        Example:
            ```python
            client.set_access("ada", "fruit", Access(users=("bob",)))
            ```
        """
        body = {"public": access.public, "users": list(access.users)}
        return Access.model_validate_json(self._call("PUT", f"{_model_path(username, name)}/access", json=body).content)

    def events(self, after: str | None = None) -> list[Event]:
        """What happened to your models, the oldest first; for administrators to all models.

        Args:
            after: The cursor of an event: only what came after it.

        Example:
            ```python
            crashed = [event.data for event in client.events() if event.event == "model.crashed"]
            ```
        """
        query = f"?after={quote(after, safe='')}" if after else ""
        return [Event.model_validate(each) for each in self._list(f"/events{query}", "events")]

    def follow_events(self, after: str | None = None) -> Iterator[Event]:
        """Each event as it happens, without an end; a broken connection is made anew and goes on behind the last one.

        Args:
            after: The cursor of an event: begin with what came after it; without one with the oldest that is kept.

        Example:
            ```python
            for event in client.follow_events():
                print(event.event, event.data["model_name"])
            ```
        """

        def read(event: httpx2.ServerSentEvent) -> Event | None:
            return Event.model_validate_json(event.data) if event.data else None

        yield from Tail(self._http, "The stream of events", "/events", read, {"after": after} if after else None)

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
        """Call the model's own app and return its answer, whatever its status; only the platform's refusals raise.

        Example:
            ```python
            client.predict("ada", "fruit", json={"input": "hello"}).json()
            with open("apple.jpg", "rb") as image:
                client.predict("ada", "fruit", files={"image": ("apple.jpg", image)}).json()
            ```
        """
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
