"""uvicorn's server, told when it is to end: its own looks ten times a second, all day."""

import asyncio
from contextlib import suppress

import uvicorn


class ToldServer(uvicorn.Server):
    """Runs until `ask_to_end`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._asked: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    async def main_loop(self) -> None:
        """Part of uvicorn's server."""
        asked = asyncio.Event()
        self._asked = asyncio.get_running_loop(), asked
        if not await self.on_tick(0):
            await asked.wait()

    def ask_to_end(self) -> None:
        """Let it end, and at the second time without waiting for calls in flight; from any thread, and from a signal's handler."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self._asked is not None:
            loop, asked = self._asked
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(asked.set)
