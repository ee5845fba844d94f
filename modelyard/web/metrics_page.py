"""`/metrics`, in the text that Prometheus reads: answered on the internal listener alone, and not there on any other."""

from collections.abc import Collection

import anyio.to_thread
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from modelyard.domain.errors import NotFound
from modelyard.run.measures import Measures
from modelyard.run.metrics import REGISTRY
from modelyard.run.service import Kernel, Service
from modelyard.web.access import Action, Guarded, Receive, Scope, Send, no_credential, principal_of
from modelyard.web.inside import CALLER
from modelyard.web.watching import is_internal

PATH = "/metrics"


def metrics(kernel: Kernel, roles: Collection[str]) -> Service:
    """The service that shows what this process counts.

    Args:
        roles: The names of the services that run beside it, now or later.
    """
    measures = CollectorRegistry(auto_describe=False)
    measures.register(Measures(kernel.database, roles, kernel.clock))
    return Service("metrics", mounts={PATH: Guarded(_Page(measures), Action.PUBLIC)})


class _Page:
    """An ASGI application of one page."""

    def __init__(self, measures: CollectorRegistry) -> None:
        self._measures = measures

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            Unauthenticated: It came over another listener, or was passed on by the front door, without a credential.
            NotFound: As before, with one; or it asks for something else.
        """
        passed_on = any(name == CALLER for name, _ in scope["headers"])
        if not is_internal(scope) or passed_on or scope["path"] != PATH or scope["method"] not in {"GET", "HEAD"}:
            # As for every path that is not there.
            raise NotFound if principal_of(scope) else no_credential()
        # Rows are read for it.
        text = await anyio.to_thread.run_sync(self._text)
        fields = [(b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})

    def _text(self) -> bytes:
        return generate_latest(REGISTRY) + generate_latest(self._measures)
