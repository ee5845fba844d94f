"""What a role hands to a process: its routes, its loops and its readiness checks; and the kernel that it is given."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.run.settings import Settings
from modelyard.store.blobs import FolderBlobs
from modelyard.store.database import Database
from modelyard.store.doorbell import COMMITTED, Doorbell
from modelyard.web.access import Asgi, Router


@dataclass(frozen=True, slots=True)
class Kernel:
    """What every service is made of."""

    settings: Settings
    database: Database
    blobs: FolderBlobs
    bell: Doorbell
    clock: Callable[[], float]
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the process begins to drain: whoever waits for long looks at it."""


REST_S = 30.0
"""The longest rest of a loop that follows rows."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Work that goes on for as long as the process runs, in a thread of its own.

    Args:
        step: Does what there is to do; True where there is more, so that it is called again at once.
        channel: The doorbell's channel that wakes it.
        every_s: The longest time between two steps.
        threads: How many threads run it.
        follows_rows: What there is to do is known from rows: it is also called soon after any commit, so that it may rest for long.
    """

    name: str
    step: Callable[[], bool]
    channel: str
    every_s: float
    threads: int = 1
    follows_rows: bool = False

    @property
    def channels(self) -> tuple[str, ...]:
        """All that wake it."""
        return (self.channel, COMMITTED) if self.follows_rows else (self.channel,)


@dataclass(frozen=True, slots=True)
class Service:
    """One role of one service."""

    name: str
    told_as: str = ""
    """The name in `/health`; empty for a part that nobody outside knows."""
    routers: Sequence[Router] = ()
    mounts: Mapping[str, Asgi] = field(default_factory=dict)
    streams: Sequence[str] = ()
    """Paths whose routes read their bodies piece by piece, under a limit of their own."""
    loops: Sequence[Loop] = ()
    ready: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    begin_drain: Callable[[], None] = lambda: None
    """Called on the event loop when the process begins to drain: nobody is sent here any more, and what would last for ever ends."""
    hang_up: Callable[[], None] = lambda: None
    """Called on the event loop, after the last request has ended."""
    close: Callable[[], None] = lambda: None
    """Called once the loops have ended."""
