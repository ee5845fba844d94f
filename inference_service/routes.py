"""The calls of the inference service: what models print."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from inference_service.model_output import ModelOutput
from modelyard.web.access import Action, Caller, requires

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
