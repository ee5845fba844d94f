"""What a process answers before its parts are there: its health, and of everything else that it is starting."""

from collections.abc import Sequence
from typing import NoReturn

from modelyard.domain.errors import Unavailable
from modelyard.web.access import Asgi, Message, Principal, Receive, Scope, Send
from modelyard.web.app import Health, create_app

RETRY_AFTER_S = 1
_OWN = ("/health", "/livez", "/readyz", "/static/")
_STARTUP, _SHUTDOWN, _ENDED = "lifespan.startup", "lifespan.shutdown", "lifespan.shutdown.complete"


class Starting:
    """Answers for an application that is still to come, and hands every call to it from then on.

    Args:
        health: Answers `/health` until then.
    """

    def __init__(self, hosts: Sequence[str], apps_domain: str, health: Health) -> None:
        refusing = _Refusing()
        self._before = create_app([], _Nobody(), hosts, refusing, apps_domain, health=health, onward=refusing)
        self.app: Asgi | None = None
        """The application, once it is there."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call, or the server's lifespan messages."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await (self.app or self._before)(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": f"{_STARTUP}.complete"})
        await receive()
        # The application hears of its whole life at the end of it: it may have come at any time.
        messages = iter((_STARTUP, _SHUTDOWN))

        async def hear() -> Message:
            return {"type": next(messages)}

        async def tell(message: Message) -> None:
            if message["type"] == _ENDED:
                await send(message)

        await (self.app or self._before)({"type": "lifespan"}, hear, tell)


class _Nobody:
    """The authenticator of a process that cannot ask yet."""

    async def by_token(self, token: str) -> Principal | None:
        """See `Authenticator`."""
        del token
        _raise()

    async def by_cookie(self, value: str) -> Principal | None:
        """See `Authenticator`."""
        del value
        _raise()


class _Refusing:
    """Answers everything but what every process answers for itself."""

    def takes(self, path: str) -> bool:
        """See `Onward`."""
        return not path.startswith(_OWN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Onward`."""
        del scope, receive, send
        _raise()


def _raise() -> NoReturn:
    raise Unavailable(
        "starting", "This process is starting.", "Call again in a moment; /health says what it waits for.", retry_after_s=RETRY_AFTER_S
    )
