"""Who called one of our own processes that passes a call on, and how: believed on the Unix socket of the data folder alone."""

from modelyard.web.access import Asgi, Receive, Scope, Send
from modelyard.web.watching import is_internal

CALLER = b"x-modelyard-caller"
"""The address that the call came from; whatever has this field was passed on."""
SCHEME = b"x-modelyard-scheme"
"""`https` where the call came over TLS, which ends at the gateway: pages and their cookies are of that origin."""
_SCHEMES = frozenset({"http", "https"})


class Inside:
    """An application that is told where a call began, not which process passed it on: limits, guessing and the audit trail ask for it."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as the application does."""
        if scope["type"] == "http" and is_internal(scope):
            told = [value for name, value in scope["headers"] if name == CALLER]
            if len(told) == 1:
                scope["client"] = (told[0].decode("latin-1"), 0)
                schemes = [value.decode("latin-1") for name, value in scope["headers"] if name == SCHEME]
                if len(schemes) == 1 and schemes[0] in _SCHEMES:
                    scope["scheme"] = schemes[0]
        await self._app(scope, receive, send)
