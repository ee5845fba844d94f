"""What every model app of ours answers beside its own routes: health, metrics, the Open Inference Protocol, and its page."""

import asyncio
import html
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import inference_protocol
from measures import Measured, told
from problems import Problem
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from weights import Weights

_PAGE = Path(__file__).parent / "page"
# The page loads nothing but its own files, shows pictures that were chosen, and calls its own host.
_POLICY = "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def make_app(name: str, weights: Weights[Any], own: Sequence[BaseRoute]) -> Starlette:
    """The app of one model: its own routes, and those that all have."""

    async def health(request: Request) -> Response:
        del request
        return JSONResponse({"status": "healthy", "model": name, "weights": weights.state})

    async def metrics(request: Request) -> Response:
        del request
        return Response(told(), media_type="text/plain; version=0.0.4")

    async def page(request: Request) -> Response:
        del request
        # Under the name that it was uploaded with, where the platform tells it.
        text = (_PAGE / "index.html").read_text(encoding="utf-8").replace("%MODEL%", html.escape(os.environ.get("MODELYARD_MODEL", name)))
        return HTMLResponse(text, headers={"content-security-policy": _POLICY})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loading = asyncio.ensure_future(weights.preload())
        yield
        await loading
        weights.close()

    protocol = inference_protocol.routes(name, "onnxruntime_onnx", lambda: weights.state == "loaded", weights.model)
    shared = [Route("/health", health), Route("/metrics", metrics), Route("/", page), Mount("/page", StaticFiles(directory=_PAGE))]
    return Starlette(
        routes=[*own, *protocol, *shared],
        exception_handlers={Problem: _answer, Exception: _broke},
        lifespan=lifespan,
        middleware=[Middleware(Measured)],
    )


def head(request: Request, name: str) -> dict[str, Any]:
    """How every answer begins: the model, and the version of the app where the platform says it."""
    version = request.headers.get("x-modelyard-version", "")
    return {"model": name, "version": int(version) if version.isascii() and version.isdigit() else None}


async def _broke(request: Request, error: Exception) -> Response:
    del request, error  # the server writes it into the log
    return Problem(500, "internal", "The model itself failed.", "Call again; if it fails again, see the model's log.").answer()


async def _answer(request: Request, problem: Exception) -> Response:
    del request
    assert isinstance(problem, Problem)  # noqa: S101 - registered for this class alone
    return problem.answer()
