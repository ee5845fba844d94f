"""On BentoML: `bentoml serve on_bentoml:NoOp`."""

import bentoml  # type: ignore[import-not-found] # in an environment of its own


@bentoml.service(workers=1)  # type: ignore[misc] # as above
class NoOp:
    """Gives back the input."""

    @bentoml.api  # type: ignore[misc] # as above
    def predict(self, input: str) -> dict[str, str]:  # noqa: A002 - the name of the field
        """What was sent."""
        return {"output": input}
