"""Image classification with MobileNetV2: `POST /predict`, the Open Inference Protocol, and a page to try it on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import inference_protocol
from bodies import Body, body_of
from classifier import Choice, Classifier
from measures import Measured, told
from problems import Problem, invalid
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from weights import Weights

NAME = "mobilenet"
MOST_LABELS = 1000

weights = Weights(NAME, Classifier)


async def predict(request: Request) -> Response:
    """The labels of one image or of several; in an answer about several, each that fails has its own problem."""
    async with body_of(request) as body:
        classifier = await weights.model()
        choice = _choice(body)
        if not body.images:
            raise Problem(422, "no_image", "The call carries no image.", "Send one as the form's field `file`, as the body, or as `image`.")
        head = {"model": NAME, "version": _version(request)}
        if len(body.images) == 1 and not body.several:
            return JSONResponse(head | await classifier.classify(body.images[0], choice))
        results = await asyncio.gather(*(_one_of_several(classifier, image, choice) for image in body.images))
        return JSONResponse(head | {"results": results})


async def _one_of_several(classifier: Classifier, image: bytes, choice: Choice) -> dict[str, Any]:
    try:
        return await classifier.classify(image, choice)
    except Problem as problem:
        return {"error": problem.document()}


async def labels(request: Request) -> Response:
    """All labels, in the order of their index."""
    del request
    return JSONResponse({"model": NAME, "labels": (await weights.model()).labels})


async def health(request: Request) -> Response:
    """Whether the app answers; `weights` says whether predictions do."""
    del request
    return JSONResponse({"status": "healthy", "model": NAME, "weights": weights.state})


async def metrics(request: Request) -> Response:
    """What was counted, in Prometheus' text format."""
    del request
    return Response(told(), media_type="text/plain; version=0.0.4")


async def page(request: Request) -> Response:
    """The page to try it on."""
    del request
    return Response((Path(__file__).parent / "page" / "index.html").read_bytes(), media_type="text/html")


def _choice(body: Body) -> Choice:
    usual = Choice()
    try:
        top_k = int(body.options.get("top_k", usual.top_k))
        threshold = float(body.options.get("confidence_threshold", usual.confidence_threshold))
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid("top_k and confidence_threshold", "must be numbers") from error
    if not 1 <= top_k <= MOST_LABELS:
        raise invalid("top_k", f"must be between 1 and {MOST_LABELS}")
    if not 0 <= threshold <= 1:
        raise invalid("confidence_threshold", "must be between 0 and 1")
    return Choice(top_k, threshold)


def _version(request: Request) -> int | None:
    version = request.headers.get("x-modelyard-version", "")
    return int(version) if version.isascii() and version.isdigit() else None


async def _answer_problem(request: Request, problem: Exception) -> Response:
    del request
    assert isinstance(problem, Problem)  # noqa: S101 - registered for this class alone
    return problem.answer()


@asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    loading = asyncio.ensure_future(weights.preload())
    yield
    await loading
    weights.close()


app = Starlette(
    routes=[
        Route("/", page),
        Route("/predict", predict, methods=["POST"]),
        Route("/labels", labels),
        Route("/health", health),
        Route("/metrics", metrics),
        *inference_protocol.routes(NAME, "onnxruntime_onnx", lambda: weights.state == "loaded", weights.model),
        Mount("/page", StaticFiles(directory=Path(__file__).parent / "page")),
    ],
    exception_handlers={Problem: _answer_problem},
    lifespan=_lifespan,
    middleware=[Middleware(Measured)],
)
