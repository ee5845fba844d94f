"""On MLServer: `mlserver start FOLDER`, whose `model-settings.json` names the class."""

from mlserver import MLModel  # type: ignore[import-not-found] # in an environment of its own
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found] # as above


class NoOp(MLModel):  # type: ignore[misc] # as above
    """Gives back the first input."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """What was sent."""
        (given,) = payload.inputs
        output = ResponseOutput(name="output", shape=given.shape, datatype=given.datatype, data=given.data)
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])
