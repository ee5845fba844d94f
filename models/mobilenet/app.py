"""Image classification with MobileNetV2: `POST /predict`, the Open Inference Protocol, and a page to try it on."""

from answers import Choice, about
from bodies import body_of
from classifier import Classifier
from serving import head, make_app
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from weights import Weights

NAME = "mobilenet"

weights = Weights(NAME, Classifier)


async def predict(request: Request) -> Response:
    """The labels of one image, or of several."""
    async with body_of(request) as body:
        classifier, choice = await weights.model(), Choice.read(body.options)
        answer = await about(body, lambda image: classifier.classify(image, choice))
    return JSONResponse(head(request, NAME) | answer)


async def labels(request: Request) -> Response:
    """All labels, in the order of their index."""
    return JSONResponse(head(request, NAME) | {"labels": (await weights.model()).labels})


app = make_app(NAME, weights, [Route("/predict", predict, methods=["POST"]), Route("/labels", labels)])
