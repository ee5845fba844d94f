"""The pages of the upload service: the form, the live build, and the console."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from modelyard.domain.errors import ModelyardError
from modelyard.domain.ids import RULE
from modelyard.domain.states import BuildState
from modelyard.web.access import Action, Caller, Principal, requires
from modelyard.web.pages import Pages
from upload_service.build_log import Line
from upload_service.console.pages import add_console
from upload_service.multipart import FIELDS, MOST_FIELDS_BYTES
from upload_service.routes import Doors, take_upload
from upload_service.schemas import Build
from upload_service.waiting import ENDED

MOST_LINES = 1000
"""Of a log, the last lines that a page shows; the text has all."""

_HEADINGS = {
    BuildState.QUEUED: "Waiting",
    BuildState.RUNNING: "Building",
    BuildState.SUCCEEDED: "Ready",
    BuildState.FAILED: "The build failed",
    BuildState.CANCELLED: "The build was cancelled",
}
_TOLD = {
    "unpack": "Unpacking the zip.",
    "lock": "Choosing the versions of its packages.",
    "install": "Installing its packages.",
    "package": "Putting its code and its packages together.",
    "verify": "Starting the app, and asking whether it is ready.",
    BuildState.QUEUED: "Waiting for a builder.",
    BuildState.SUCCEEDED: "Ready: the model takes calls.",
    BuildState.FAILED: "The build failed.",
    BuildState.CANCELLED: "The build was cancelled.",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One step as the timeline shows it; `state` is `done`, `running`, `failed` or `waiting`."""

    name: str
    state: str
    seconds: float | None = None


def pages(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    shown = Pages(Path(__file__).parent / "templates")
    _form_pages(router, doors, shown)
    _build_pages(router, doors, shown)
    add_console(router, doors, shown)
    return router


def _form_pages(router: APIRouter, doors: Doors, shown: Pages) -> None:
    def values(caller: Principal, typed: dict[str, str]) -> dict[str, object]:
        # Only an administrator uploads for others: everybody else's name is theirs, and known.
        own = caller.sees
        return {"typed": dict.fromkeys(FIELDS, "") | typed | ({"username": own} if own else {}), "own": own, "rule": RULE}

    @router.get("/upload/form", dependencies=[requires(Action.READ)])
    def again() -> Response:
        """On to the form, where a browser asks again for the address that it was sent to."""
        return RedirectResponse("/upload", 303)

    @router.get("/upload", dependencies=[requires(Action.UPLOAD)])
    def show_form(request: Request, caller: Caller, username: str = "", model_name: str = "") -> Response:
        """The form; the address may carry the names."""
        typed = {"username": username, "model_name": model_name}
        return shown.render(request, "upload.html", values(caller, typed) | {"problem": None})

    @router.post("/upload/form", dependencies=[requires(Action.UPLOAD)])
    async def send_form(request: Request, caller: Caller) -> Response:
        """Take a zip in from a browser without scripts, and go on to its build."""
        remembering = _Remembering(request)
        try:
            receipt = await take_upload(doors, remembering, caller, None)
        except ModelyardError as error:
            return shown.refuse(request, "upload.html", values(caller, remembering.typed()), error, {*FIELDS, "file"}, content="file")
        return RedirectResponse(f"/upload/{receipt.build_id}", 303)


def _build_pages(router: APIRouter, doors: Doors, shown: Pages) -> None:
    @router.get("/upload/{build_id}", dependencies=[requires(Action.READ)])
    def show_build(request: Request, build_id: str, caller: Caller) -> Response:
        """The build with its log so far."""
        # The state is read first: a page that says "ended" then has every line.
        values = _state(request, doors.models.build(caller, build_id))
        return shown.render(request, "build.html", values | _tail(doors.waiting.logs.after(build_id, 0)))

    @router.get("/upload/{build_id}/state", dependencies=[requires(Action.READ)])
    def show_state(request: Request, build_id: str, caller: Caller) -> Response:
        """The part of the build's page that changes, for its script."""
        return shown.render(request, "build_state.html", _state(request, doors.models.build(caller, build_id)))


def _state(request: Request, build: Build) -> dict[str, object]:
    status = BuildState(build.status)
    told = _TOLD.get(build.step if status is BuildState.RUNNING else status, "A builder has taken it.")
    return {
        "build": build,
        "heading": _HEADINGS[status],
        "told": told,
        "stages": stages(build),
        "ended": status in ENDED,
        "origin": str(request.base_url).rstrip("/"),
    }


def _tail(lines: list[Line]) -> dict[str, object]:
    return {"lines": lines[-MOST_LINES:], "left_out": max(0, len(lines) - MOST_LINES)}


def stages(build: Build) -> list[Stage]:
    """The build's steps between the upload, which is over, and `ready`."""
    status = BuildState(build.status)
    names = [step.name for step in build.steps]
    # -1: no step has begun. A build that ends without one has failed at its first.
    at = names.index(build.step) if build.step in names else -1
    here = {BuildState.RUNNING: "running", BuildState.FAILED: "failed", BuildState.CANCELLED: "failed"}.get(status, "waiting")
    if here == "failed":
        at = max(at, 0)

    def state(position: int) -> str:
        if status is BuildState.SUCCEEDED or position < at:
            return "done"
        return here if position == at else "waiting"

    between = [Stage(step.name, state(position), step.seconds) for position, step in enumerate(build.steps)]
    if status is not BuildState.SUCCEEDED:
        return [Stage("upload", "done"), *between, Stage("ready", "waiting")]
    return [Stage("upload", "done"), *between, Stage("ready", "done", sum(step.seconds or 0.0 for step in build.steps))]


class _Remembering(Request):
    """A request that keeps the head of its body, where a form's text fields are: a refused form shows them again."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.scope, request.receive)
        self._head = bytearray()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body in chunks."""
        async for chunk in super().stream():
            self._head += chunk[: max(0, MOST_FIELDS_BYTES - len(self._head))]
            yield chunk

    def typed(self) -> dict[str, str]:
        """The text fields that came before the file; whatever is broken or cut off is left out."""
        kind = self.headers.get("content-type", "").encode("latin-1")
        form = message_from_bytes(b"content-type: " + kind + b"\r\n\r\n" + bytes(self._head), policy=HTTP)
        found: dict[str, str] = {}
        for part in form.iter_parts() if form.is_multipart() else ():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            if name in FIELDS and isinstance(content, bytes):
                found[str(name)] = content.decode("utf-8", "replace")
        return found
