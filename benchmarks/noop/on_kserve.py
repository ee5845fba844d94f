"""On KServe's SDK: `python on_kserve.py PORT`."""

import sys
from typing import Any

from kserve import Model, ModelServer  # type: ignore[import-not-found] # in an environment of its own


class NoOp(Model):  # type: ignore[misc] # as above
    """Gives back the instances."""

    def __init__(self) -> None:
        super().__init__("noop")
        self.ready = True

    async def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        """What was sent."""
        del headers, response_headers
        return {"predictions": payload["instances"]}


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), workers=1, enable_grpc=False, enable_latency_logging=False).start([NoOp()])
