"""Ends the work on a request whose caller has left."""

import asyncio

from modelyard.web.access import Asgi, Message, Receive, Scope, Send


class UntilCallerLeaves:
    """An application around one that reads no bodies: its work is cancelled as soon as nobody waits for the answer."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or return without an answer."""
        work = asyncio.ensure_future(self._answer(scope, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not work.done():
                work.cancel()
            await asyncio.wait({work, leaving})
        if not work.cancelled():
            work.result()

    async def _answer(self, scope: Scope, send: Send) -> None:
        await self._app(scope, _no_body, send)


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
