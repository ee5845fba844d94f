"""Zero-shot labels and embeddings with CLIP: `POST /predict`, `/embed`, `/v1/embeddings`, the Open Inference Protocol, and a page."""

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

from answers import Choice, about
from batching import Array
from bodies import body_of, from_base64
from embedder import Embedder
from problems import Problem, invalid
from serving import head, make_app
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from weights import Weights

NAME = "clip"
TEMPLATE = "a photo of a {}"
MOST_LABELS = 1000

weights = Weights(NAME, Embedder)


async def predict(request: Request) -> Response:
    """Which of the caller's labels fits each image."""
    async with body_of(request) as body:
        embedder, choice = await weights.model(), Choice.read(body.options)
        labels = _labels(body.options.get("labels"))
        prompts = _prompts(labels, body.options.get("prompt_template", TEMPLATE))
        answer = await about(body, lambda image: embedder.classify(image, labels, prompts, choice))
    return JSONResponse(head(request, NAME) | answer)


async def embed(request: Request) -> Response:
    """The unit vectors of images and texts, in their order, images first."""
    async with body_of(request) as body:
        embedder = await weights.model()
        told = body.options.get("texts", body.options.get("text", []))
        texts = [told] if isinstance(told, str) else list(told) if isinstance(told, list) else [told]
        if not (body.images or texts):
            raise Problem(422, "nothing_to_embed", "The call carries neither image nor text.", "Send `file`, `image` or `texts`.")
        rows = list(await asyncio.gather(*(embedder.embed_image(image) for image in body.images)))
        rows += list(await embedder.texts.embed(texts)) if texts else []
    kinds = ["image"] * len(body.images) + ["text"] * len(texts)
    found = [{"object": kind, "embedding": row.tolist()} for kind, row in zip(kinds, rows, strict=True)]
    return JSONResponse(head(request, NAME) | {"dimensions": embedder.width, "embeddings": found})


async def openai_embeddings(request: Request) -> Response:
    """Embeddings in the shape of OpenAI's API; an input that is a `data:image/...` URL is an image."""
    async with body_of(request) as body:
        embedder = await weights.model()
        told = body.options.get("input")
        inputs = [told] if isinstance(told, str) else told
        if not isinstance(inputs, list) or not inputs or not all(isinstance(each, str) for each in inputs):
            raise invalid("input", "must be a text, or a list of texts")
        form = body.options.get("encoding_format", "float")
        if form not in {"float", "base64"}:
            raise invalid("encoding_format", "must be float or base64")
        if body.options.get("dimensions", embedder.width) != embedder.width:
            raise invalid("dimensions", f"must be {embedder.width}")
        texts = [each for each in inputs if not each.startswith("data:image/")]
        rows = iter(await embedder.texts.embed(texts) if texts else [])
        vectors = [await embedder.embed_image(from_base64(each)) if each.startswith("data:image/") else next(rows) for each in inputs]
        tokens = await embedder.texts.count(texts) if texts else 0
    found = [{"object": "embedding", "index": index, "embedding": _written(row, form)} for index, row in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": found, "model": NAME, "usage": usage})


def _written(row: Array, form: str) -> list[float] | str:
    return row.tolist() if form == "float" else base64.b64encode(row.astype("<f4").tobytes()).decode()


def _labels(told: Any) -> list[str]:
    """A list, the same as JSON text, or one text with commas or line ends between."""
    if isinstance(told, str) and told.lstrip().startswith("["):
        try:
            told = json.loads(told)
        except (ValueError, RecursionError) as error:
            raise invalid("labels", "is no JSON list") from error
    if isinstance(told, str):
        told = told.replace("\n", ",").split(",")
    if not isinstance(told, list) or not all(isinstance(each, str) for each in told):
        raise invalid("labels", 'must be a list of texts, such as ["cat", "dog"], or "cat, dog"')
    labels = list(dict.fromkeys(each.strip() for each in told if each.strip()))
    if not 1 <= len(labels) <= MOST_LABELS:
        raise invalid("labels", f"must be between 1 and {MOST_LABELS}")
    return labels


def _prompts(labels: Sequence[str], template: Any) -> list[str]:
    # Not str.format: a template of a stranger's could reach into objects.
    if not isinstance(template, str) or template.count("{}") != 1:
        raise invalid("prompt_template", f"must hold {{}} once, such as {TEMPLATE!r}")
    return [template.replace("{}", label) for label in labels]


app = make_app(
    NAME,
    weights,
    [
        Route("/predict", predict, methods=["POST"]),
        Route("/embed", embed, methods=["POST"]),
        Route("/v1/embeddings", openai_embeddings, methods=["POST"]),
    ],
)
