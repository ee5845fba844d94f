"""Live answers: how many of them an account may have open, and that nobody holds one without reading it."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress

from fastapi.sse import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from modelyard.domain.errors import Limited

MOST_OPEN = 20
"""Streams of one account in one process; a browser opens six to one host."""
RETRY_AFTER_S = 10


class Seats:
    """Counts the streams that are open; used on the event loop alone."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, account_id: str) -> Iterator[None]:
        """Have one more open for the length of the block.

        Raises:
            Limited: `too_many_streams`.
        """
        if self._taken[account_id] >= MOST_OPEN:
            raise Limited(
                "too_many_streams",
                f"Your account has {MOST_OPEN} live streams open.",
                "Close one of them, or read the same without `Accept: text/event-stream`.",
                retry_after_s=RETRY_AFTER_S,
            )
        self._taken[account_id] += 1
        try:
            yield
        finally:
            self._taken[account_id] -= 1
            if not self._taken[account_id]:
                del self._taken[account_id]


class Stream(EventSourceResponse):
    """Server-sent events in a seat of their reader's account.

    Args:
        stall_s: A reader who takes nothing for so long is let go, in the midst of what was sent.
    """

    def __init__(self, events: AsyncGenerator[bytes], seats: Seats, account_id: str, stall_s: float) -> None:
        super().__init__(events)
        self._events = events
        self._seats = seats
        self._account_id = account_id
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            Limited: `too_many_streams`; nothing was sent then.
        """

        async def lively(message: Message) -> None:
            async with asyncio.timeout(self._stall_s):
                await send(message)

        with self._seats.taken(self._account_id), suppress(TimeoutError):
            async with aclosing(self._events):
                await super().__call__(scope, receive, lively)
