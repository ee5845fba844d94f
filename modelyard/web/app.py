"""The application factory: every service's routes behind one gate, with health and problem documents."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from modelyard import __version__
from modelyard.domain.errors import ModelyardError
from modelyard.run.resources import bundled_static
from modelyard.run.service import Service
from modelyard.web import problems
from modelyard.web.access import (
    Action,
    Asgi,
    Authenticator,
    Guarded,
    Receive,
    Scope,
    Send,
    check_declared,
    check_mounted,
    no_credential,
    principal_of,
    requires,
)
from modelyard.web.bodies import Bodies
from modelyard.web.gate import APPS_DOMAIN, Gate, Onward
from modelyard.web.limits import Limits
from modelyard.web.pages import error_page, wants_page

Health = Callable[[], Awaitable[tuple[int, Mapping[str, Any]]]]
"""The HTTP status and the body of `/health`."""

log = structlog.get_logger(__name__)


def create_app(
    services: Sequence[Service],
    authenticator: Authenticator,
    hosts: Sequence[str] = (),
    apps: Asgi | None = None,
    apps_domain: str = APPS_DOMAIN,
    limits: Limits | None = None,
    *,
    health: Health | None = None,
    onward: Onward | None = None,
) -> Asgi:
    """One ASGI application over the services.

    Args:
        hosts: Host names that it answers for, beside the loopback ones.
        apps: Answers on models' own hosts.
        apps_domain: Models' own hosts lie one label below it.
        limits: How many calls are answered; without it all are.
        health: Answers `/health`; without it the services are told by their names, and called healthy.
        onward: Answers what is another process's.

    Raises:
        UndeclaredRouteError: A route does not declare its action.
    """
    api = FastAPI(title="Modelyard", version=__version__, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for router in (
        *(router for service in services for router in service.routers),
        _own_routes(api, services, health or partial(_named, services)),
    ):
        check_declared(router.routes)
        api.include_router(router)
    api.mount("/static", Guarded(_Static(directory=bundled_static()), Action.PUBLIC))
    _answer_problems(api)
    mounts = {prefix.encode(): app for service in services for prefix, app in service.mounts.items()}
    check_mounted(mounts.values())
    read = Bodies(api, [path for service in services for path in service.streams])
    return _Life(
        Gate(_Fork(read, mounts), authenticator, hosts, apps, apps_domain, limits, onward), [service.hang_up for service in services]
    )


class _Static(StaticFiles):
    """Scripts and styles that a browser asks for again after an upgrade; unchanged ones are answered 304."""

    def file_response(self, *args: Any, **words: Any) -> Response:
        """As the library has it, to be asked for each time."""
        answer = super().file_response(*args, **words)
        answer.headers["cache-control"] = "no-cache"
        return answer


class _Life:
    """Answers the server's lifespan messages: when the last request has ended, the services hang up."""

    def __init__(self, app: Asgi, hang_up: Sequence[Callable[[], None]]) -> None:
        self._app = app
        self._hang_up = hang_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for hang_up in self._hang_up:
            hang_up()
        await asyncio.sleep(0)  # one turn of the loop, in which the connections that were closed end
        await send({"type": "lifespan.shutdown.complete"})


class _Fork:
    """Sends calls of apps straight to the front door, past the web framework, and all others to it."""

    def __init__(self, api: Asgi, mounts: Mapping[bytes, Asgi]) -> None:
        self._api = api
        self._mounts = tuple(mounts.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for prefix, app in self._mounts:
            if scope["raw_path"].startswith(prefix):
                await app(scope, receive, send)
                return
        await self._api(scope, receive, send)


def _own_routes(api: FastAPI, services: Sequence[Service], told: Health) -> APIRouter:
    router = APIRouter()
    public = [requires(Action.PUBLIC)]

    @router.get("/health", dependencies=public)
    async def health() -> JSONResponse:
        """Whether the services answer; the guide's shape."""
        status, body = await told()
        return JSONResponse(body, status)

    @router.get("/livez", dependencies=public)
    def livez() -> dict[str, str]:
        """Whether this process answers; asks nothing else."""
        return {"status": "alive"}

    @router.get("/readyz", dependencies=public)
    def readyz() -> JSONResponse:
        """Whether every part that the services need answers, by name."""
        checks = {name: _passes(check) for service in services for name, check in service.ready.items()}
        return JSONResponse(
            {"status": "ready" if all(checks.values()) else "not_ready", "checks": checks}, 200 if all(checks.values()) else 503
        )

    @router.get("/openapi.json", include_in_schema=False, dependencies=[requires(Action.READ)])
    def openapi() -> dict[str, Any]:
        """The description of every call."""
        return api.openapi()

    return router


async def _named(services: Sequence[Service]) -> tuple[int, Mapping[str, Any]]:
    first, *others = [service.told_as for service in services if service.told_as]
    return 200, {"status": "healthy", "service": first, "services": others}


def _passes(check: Any) -> bool:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - a check that raises is an answer: not ready
        log.warning("not ready", error=repr(error))
        return False
    return True


def _answer_problems(api: FastAPI) -> None:
    def answer(request: Request, error: ModelyardError, more: Mapping[str, str] | None = None) -> Response:
        if wants_page(request):
            return error_page(request, error)
        told = problems.document(error, request.url.path, request.state.request_id)
        return Response(problems.encode(told), problems.status_of(error), {**problems.headers(error), **(more or {})})

    def modelyard_error(request: Request, error: Exception) -> Response:
        return answer(request, error) if isinstance(error, ModelyardError) else _internal(request)

    def http_error(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == problems.STATUS[no_credential().kind] or principal_of(request.scope) is None:
            # Without a credential nobody learns which addresses exist.
            return answer(request, no_credential())
        known = problems.from_status(status)
        if known is None:
            return _internal(request)
        return answer(request, known, error.headers if isinstance(error, HTTPException) else None)

    def invalid(request: Request, error: Exception) -> Response:
        errors = list(error.errors()) if isinstance(error, RequestValidationError) else []
        return answer(request, problems.from_validation(errors))

    api.add_exception_handler(ModelyardError, modelyard_error)
    api.add_exception_handler(HTTPException, http_error)
    api.add_exception_handler(RequestValidationError, invalid)
    # Nobody is there to read the answer; what counts is that it is no fault of ours.
    api.add_exception_handler(ClientDisconnect, lambda _request, _error: Response(status_code=400))
    api.add_exception_handler(Exception, lambda request, _error: _internal(request))


def _internal(request: Request) -> Response:
    error = ModelyardError("internal", "Something went wrong here.", "Look for the request id in the server's log.")
    return Response(problems.encode(problems.document(error, request.url.path, request.state.request_id)), 500, problems.headers(error))
