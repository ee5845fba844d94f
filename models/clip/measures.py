"""What the model counts about itself; `GET /metrics` tells it in Prometheus' words."""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_registry = CollectorRegistry()
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS = Counter("model_requests", "Calls, by what was asked and status.", ["asked", "status"], registry=_registry)
IMAGES = Counter("model_images", "Images, by what became of them.", ["outcome"], registry=_registry)
BATCH_SIZES = Histogram("model_batch_size", "Inputs in one run.", buckets=(1, 2, 4, 8, 16, 32), registry=_registry)
LATENCY = Histogram("model_request_seconds", "Seconds of a call, by what was asked.", ["asked"], buckets=_SECONDS, registry=_registry)


class Measured:
    """Counts every call on its way to the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and count how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # Known only once it has been routed; a caller cannot make new names.
            asked = getattr(scope.get("endpoint"), "__name__", "other")
            REQUESTS.labels(asked, str(status)).inc()
            LATENCY.labels(asked).observe(time.perf_counter() - began)


def told() -> bytes:
    """All of them, in Prometheus' text format."""
    return generate_latest(_registry)
