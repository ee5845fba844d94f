"""The calls of the upload service: uploads, models and who may call them, builds and their logs, events."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.sse import format_sse_event
from starlette.requests import ClientDisconnect

from modelyard.domain.errors import Malformed, NotFound
from modelyard.store.blobs import Blobs
from modelyard.store.doorbell import INSTANCES
from modelyard.web.access import Acting, Action, Caller, Principal, acting, credential_ended, requires
from modelyard.web.streams import Seats, Stream
from upload_service import receive, views
from upload_service.deletion import Deletion, Deletions
from upload_service.events import EventViews
from upload_service.holding import held
from upload_service.models import ModelViews
from upload_service.multipart import lively, read_form
from upload_service.receive import Receipt, Receive
from upload_service.schemas import Access, Build, Deleted, Events, LogLine, Model, Models, Upload
from upload_service.sharing import Sharing
from upload_service.waiting import Waiting

MOST_WAIT_S = 300
MOST_LISTED = 100
Limit = Annotated[int, Query(ge=1, le=MOST_LISTED)]
"""The most that one page of a list holds."""
_LINE = re.compile(r"[0-9]{1,9}")
_TEXT = {"type": "string"}
_UPLOAD_FORM = {
    "type": "object",
    "required": ["model_name", "file"],
    "properties": {
        "username": _TEXT,
        "model_name": _TEXT,
        "description": _TEXT,
        "file": {"type": "string", "contentMediaType": "application/zip"},
    },
}
_UPLOAD_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD_FORM}}}}


@dataclass(frozen=True, slots=True)
class Doors:
    """What the routes speak to."""

    receive: Receive
    blobs: Blobs
    models: ModelViews
    deletions: Deletions
    sharing: Sharing
    events: EventViews
    waiting: Waiting
    seats: Seats
    delete_wait_s: float
    stall_s: float


async def take_upload(doors: Doors, request: Request, caller: Principal, key: str | None) -> Receipt:
    """Stream the request's body into a staging file and accept it; whatever is refused leaves nothing."""
    asked = receive.Request(caller, acting(request), key)
    async with held(doors.receive, asked) as claim:
        staged = await run_in_threadpool(doors.blobs.stage)
        try:
            chunks = lively(request.stream(), doors.stall_s)
            form = await read_form(request.headers.get("content-type", ""), chunks, staged)
            if not caller.still_good():  # a body may take hours
                raise credential_ended()
            return await run_in_threadpool(doors.receive.accept, asked, claim, form, staged)
        except ClientDisconnect as error:
            raise Malformed("upload_cut", "The connection ended before the body did.", "Send it again.") from error
        finally:
            await run_in_threadpool(staged.discard)


def routes(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["models"])
    _upload_routes(router, doors)
    _model_routes(router, doors)
    _access_routes(router, doors)
    _build_routes(router, doors)
    _event_routes(router, doors)
    return router


def _upload_routes(router: APIRouter, doors: Doors) -> None:
    @router.post("/upload", status_code=202, dependencies=[requires(Action.UPLOAD)], openapi_extra=_UPLOAD_BODY)
    async def upload(
        request: Request,
        caller: Caller,
        prefer: Annotated[str, Header()] = "",
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Upload:
        """Take a zip in; with `Prefer: wait=N` answer once it is ready or failed."""
        receipt = await take_upload(doors, request, caller, idempotency_key)
        if receipt.build_id and (wait_s := _wait_s(prefer)):
            await doors.waiting.build_end(receipt.build_id, wait_s)
        return await run_in_threadpool(doors.models.upload, caller, receipt)


def _model_routes(router: APIRouter, doors: Doors) -> None:
    @router.get("/models", dependencies=[requires(Action.READ)])
    def list_all_models(response: Response, caller: Caller, limit: Limit = MOST_LISTED, cursor: str = "") -> Models:
        """The caller's models, an administrator's everybody's, by owner and name; in pages as those of one user."""
        listed, following = doors.models.of(caller, None, limit, cursor)
        _lead_on(response, "/models", limit, following)
        return listed

    @router.get("/models/{username}", dependencies=[requires(Action.READ)])
    def list_models(response: Response, username: str, caller: Caller, limit: Limit = MOST_LISTED, cursor: str = "") -> Models:
        """The user's models by name, the newest upload of each; `Link: rel="next"` leads on where there are more."""
        listed, following = doors.models.of(caller, username, limit, cursor)
        _lead_on(response, f"/models/{username}", limit, following)
        return listed

    @router.get("/models/{username}/{model_name}", dependencies=[requires(Action.READ)])
    def show_model(username: str, model_name: str, caller: Caller) -> Model:
        """One model, with its versions and what serves it."""
        return doors.models.one(caller, username, model_name)

    @router.delete("/models/{upload_id}", dependencies=[requires(Action.DELETE)], response_model=Deleted)
    async def delete_version(upload_id: str, caller: Caller, actor: Acting, *, purge: bool = False) -> Response:
        """Delete one version; the last one takes the model with it."""
        begun = await run_in_threadpool(doors.deletions.delete_version, caller, upload_id, actor, purge=purge)
        return await _deleted(doors, begun)

    @router.delete("/models/{username}/{model_name}", dependencies=[requires(Action.DELETE)], response_model=Deleted)
    async def delete_model(username: str, model_name: str, caller: Caller, actor: Acting, *, purge: bool = False) -> Response:
        """Delete a model with all its versions."""
        begun = await run_in_threadpool(doors.deletions.delete_model, caller, username, model_name, actor, purge=purge)
        return await _deleted(doors, begun)


def _access_routes(router: APIRouter, doors: Doors) -> None:
    @router.get("/models/{username}/{model_name}/access", dependencies=[requires(Action.READ)])
    def show_access(username: str, model_name: str, caller: Caller) -> Access:
        """Who may call the model beside its owner and administrators."""
        return doors.sharing.of(caller, username, model_name)

    @router.put("/models/{username}/{model_name}/access", dependencies=[requires(Action.SHARE)])
    def change_access(username: str, model_name: str, access: Access, caller: Caller, actor: Acting) -> Access:
        """Say anew who may call the model; it holds at the next call."""
        return doors.sharing.change(caller, username, model_name, access, actor)


def _build_routes(router: APIRouter, doors: Doors) -> None:
    @router.get("/builds/{build_id}", dependencies=[requires(Action.READ)])
    def show_build(build_id: str, caller: Caller) -> Build:
        """How far a build has come."""
        return doors.models.build(caller, build_id)

    @router.get("/builds/{build_id}/log", dependencies=[requires(Action.READ)], response_class=PlainTextResponse)
    async def build_log(request: Request, build_id: str, caller: Caller, last_event_id: Annotated[str, Header()] = "") -> Response:
        """The build's log as text; with `Accept: text/event-stream` live, resuming behind `Last-Event-ID`."""
        await run_in_threadpool(doors.models.build, caller, build_id)
        if "text/event-stream" in request.headers.get("accept", ""):
            after = int(last_event_id) if _LINE.fullmatch(last_event_id) else 0
            return Stream(_events(doors, caller, build_id, after), doors.seats, caller.account_id, doors.stall_s)
        lines = await run_in_threadpool(doors.waiting.logs.after, build_id, 0)
        return PlainTextResponse("".join(f"{line.text}\n" for line in lines))


def _event_routes(router: APIRouter, doors: Doors) -> None:
    @router.get("/events", dependencies=[requires(Action.READ)], response_model=Events)
    async def events(
        request: Request,
        caller: Caller,
        after: str = "",
        limit: Limit = MOST_LISTED,
        last_event_id: Annotated[str, Header()] = "",
    ) -> Response:
        """What happened to the caller's models; with `Accept: text/event-stream` live, resuming behind `Last-Event-ID`."""
        live = "text/event-stream" in request.headers.get("accept", "")
        begin = last_event_id if live and last_event_id else after
        found, more = await run_in_threadpool(doors.events.page, caller, begin, limit)
        if live:
            return Stream(_published(doors, caller, begin), doors.seats, caller.account_id, doors.stall_s)
        following = {"link": f'</events?limit={limit}&after={found[-1].cursor}>; rel="next"'} if more else {}
        return JSONResponse(Events(events=found).model_dump(mode="json"), headers=following)


async def _published(doors: Doors, caller: Principal, after: str) -> AsyncGenerator[bytes]:
    async for told in doors.events.follow(caller, after):
        if told is None:
            yield format_sse_event(comment="nothing new")
        else:
            yield format_sse_event(id=told.cursor, event=told.event, data_str=told.model_dump_json())


async def _events(doors: Doors, caller: Principal, build_id: str, after: int) -> AsyncGenerator[bytes]:
    async for line in doors.waiting.lines(build_id, after, caller.still_good):
        told = LogLine(n=line.n, at=views.when(line.at), text=line.text)
        yield format_sse_event(id=str(line.n), event="log", data_str=told.model_dump_json())
    if doors.waiting.stopping.is_set() or not caller.still_good():
        return
    try:
        end = await run_in_threadpool(doors.models.build, caller, build_id)
    except NotFound:
        return  # it was deleted while it was followed
    yield format_sse_event(event="end", data_str=end.model_dump_json())


def _lead_on(response: Response, path: str, limit: int, following: str) -> None:
    """Name the next page, where the list has one."""
    if following:
        response.headers["link"] = f'<{path}?limit={limit}&cursor={following}>; rel="next"'


async def _deleted(doors: Doors, begun: Deletion) -> Response:
    def look() -> Deletion | None:
        seen = doors.deletions.look(begun.id, begun.version_ids)
        return seen if seen.done else None

    ended = await doors.waiting.until(INSTANCES, look, doors.delete_wait_s)
    told = ended or begun
    body = Deleted(
        id=told.id,
        username=told.owner,
        model_name=told.name,
        status="deleted" if ended else "deleting",
        bytes_freed=told.freed_bytes,
        bytes_kept=told.kept_bytes,
    )
    return JSONResponse(body.model_dump(mode="json"), 200 if ended else 202)


def _wait_s(prefer: str) -> int:
    """The seconds of `Prefer: wait=N` (RFC 7240), cut to the most that is waited."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})", prefer)
    return min(int(found[1]), MOST_WAIT_S) if found else 0
