"""Ends calls that outlast their callers' credentials."""

import asyncio
from typing import Protocol


class Watched(Protocol):
    """A call that was let in with a credential."""

    @property
    def still_good(self) -> bool:
        """Whether the credential is."""

    def end(self) -> None:
        """Break the call off; called on the event loop, within no call."""


class Watch:
    """Asks about all that are open, every so often; a call that is over before costs its place in a set.

    Args:
        every_s: Between two rounds.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._open: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Watched) -> None:
        """Ask about this call from now on."""
        self._open.add(call)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._ask)

    def remove(self, call: Watched) -> None:
        """Ask no more, if it was asked at all."""
        self._open.discard(call)

    def _ask(self) -> None:
        # The next round is set first: whatever an end raises, the others are still asked about.
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._ask) if self._open else None
        for call in [each for each in self._open if not each.still_good]:
            call.end()
