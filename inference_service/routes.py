"""The calls of the inference service: what models print, and what a door in another process asks the runner."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.applications import Starlette
from starlette.routing import Route as Address

from inference_service.model_output import ModelOutput
from modelyard.domain.carried import carried
from modelyard.domain.errors import ModelyardError
from modelyard.run.tracing import request
from modelyard.runtime.route_wire import ACTIVATED, FOUND, Found
from modelyard.runtime.routes import Activation
from modelyard.web.access import Action, Asgi, Caller, Receive, Scope, Send, requires
from modelyard.web.leaving import UntilCallerLeaves
from modelyard.web.problems import status_of
from modelyard.web.watching import request_id_of, trace_of

MOST_LINES = 10_000
USUAL_LINES = 1000


def routes(output: ModelOutput) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["models"])

    @router.get("/models/{username}/{model_name}/logs", dependencies=[requires(Action.READ)], response_class=PlainTextResponse)
    def show_output(
        username: str, model_name: str, caller: Caller, lines: Annotated[int, Query(ge=1, le=MOST_LINES)] = USUAL_LINES
    ) -> PlainTextResponse:
        """The last lines that the serving version of the model printed, as text."""
        return PlainTextResponse(output.last(caller, username, model_name, lines), headers={"cache-control": "no-store"})

    return router


def asked_by_the_door(activation: Activation) -> Asgi:
    """An application for the runner's own Unix socket, whose callers the kernel has named: no credential is asked for."""

    async def look_up(request: Request) -> Response:
        words = request.query_params
        return _json(FOUND.dump_json(Found(await activation.lookup(words["owner"], words["name"]))))

    async def look_up_label(request: Request) -> Response:
        return _json(FOUND.dump_json(Found(await activation.lookup_label(request.query_params["label"]))))

    async def explain(request: Request) -> Response:
        words = request.query_params
        await activation.explain(words["owner"], words["name"])
        return _json(FOUND.dump_json(Found(None)))

    async def activate(request: Request) -> Response:
        return _json(ACTIVATED.dump_json(await activation.activate(request.query_params["model"])))

    addresses = [
        Address("/route", look_up, methods=["GET"]),
        Address("/labelled", look_up_label, methods=["GET"]),
        Address("/absence", explain, methods=["GET"]),
        Address("/activate", activate, methods=["POST"]),
    ]
    app = Starlette(routes=addresses, exception_handlers={ModelyardError: _carry})

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        # What is started, logged and told here goes back to the call that the door carries.
        with request(request_id_of(scope), trace_of(scope), f"{scope['method']} {scope['path']}", {"http.route": scope["path"]}):
            await app(scope, receive, send)

    return UntilCallerLeaves(traced)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _carry(_request: Request, error: Exception) -> Response:
    told = error if isinstance(error, ModelyardError) else ModelyardError("internal", "Something went wrong here.")
    return JSONResponse(carried(told), status_of(told))
