"""Browser sessions: a one-time ticket becomes a signed cookie."""

import hmac
import secrets
import threading
from collections.abc import Callable
from hashlib import sha256

TICKET_S = 600
SESSION_S = 12 * 3600
_MOST_TICKETS = 100


class Sessions:
    """Gives out tickets, takes each once, and signs cookies.

    Args:
        key: The secret that signs; another key ends every session.
        clock: Seconds since 1970.
    """

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key = hmac.digest(key, b"modelyard browser session", "sha256")
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets: dict[bytes, float] = {}

    def new_ticket(self) -> str:
        """A ticket that is good once, for ten minutes."""
        ticket = secrets.token_urlsafe(32)
        with self._lock:
            self._tickets[sha256(ticket.encode()).digest()] = self._clock() + TICKET_S
            while len(self._tickets) > _MOST_TICKETS:
                self._tickets.pop(next(iter(self._tickets)))
        return ticket

    def take_ticket(self, ticket: str) -> bool:
        """Whether the ticket was good; it is not any more."""
        with self._lock:
            until = self._tickets.pop(sha256(ticket.encode()).digest(), 0.0)
        return until > self._clock()

    def cookie(self) -> str:
        """The value of a new session's cookie."""
        body = f"1.{int(self._clock()) + SESSION_S}.{secrets.token_urlsafe(12)}"
        return f"{body}.{self._sign(body)}"

    def is_good(self, cookie: str) -> bool:
        """Whether the cookie is ours and its time is not over."""
        body, _, signature = cookie.rpartition(".")
        if not body.isascii() or not signature.isascii() or not hmac.compare_digest(self._sign(body), signature):
            return False
        return float(body.split(".")[1]) > self._clock()

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), sha256).hexdigest()
