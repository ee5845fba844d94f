"""Which token goes with a call, and how one that has ended is replaced, once."""

import threading
import time
from collections.abc import Callable, Generator
from typing import Protocol

import httpx2

from modelyard.client.account_answers import Tokens
from modelyard.client.refusals import ProblemError

EARLY_S = 30.0
"""A token is replaced this long before it ends, so that it does not end on its way."""


class TokenSource(Protocol):
    """Where the tokens of a client come from."""

    def current(self) -> str | None:
        """The token to send; None: none."""

    def renewed(self, refused: str) -> str | None:
        """Another token in place of one that the server refused; None where there is none."""


class Fixed:
    """A `TokenSource` of one token, such as an API key."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def current(self) -> str | None:
        """See `TokenSource`."""
        return self._token

    def renewed(self, refused: str) -> str | None:  # noqa: ARG002 - the protocol's word
        """See `TokenSource`: there is no other."""
        return None


class Renewing:
    """A `TokenSource` that keeps a log-in alive in this process's memory; threads may share it.

    Args:
        tokens: What the log-in gave.
        refresh: Trades a refresh token for new tokens.
    """

    def __init__(self, tokens: Tokens, refresh: Callable[[str], Tokens]) -> None:
        self._refresh = refresh
        self._lock = threading.Lock()
        self._take(tokens)

    def current(self) -> str | None:
        """See `TokenSource`."""
        with self._lock:
            return self._renew() if time.time() > self._ends_at - EARLY_S else self._tokens.access_token

    def renewed(self, refused: str) -> str | None:
        """See `TokenSource`; another thread may have replaced it already."""
        with self._lock:
            return self._tokens.access_token if self._tokens.access_token != refused else self._renew()

    def _renew(self) -> str | None:
        try:
            self._take(self._refresh(self._tokens.refresh_token))
        except ProblemError:
            return None  # the log-in has ended: the server's own 401 says so
        return self._tokens.access_token

    def _take(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._ends_at = time.time() + tokens.expires_in


class Bearer(httpx2.Auth):
    """Puts the token on each request (RFC 6750); where the server refuses it, the request is sent once more with another."""

    def __init__(self, source: TokenSource) -> None:
        self.source = source

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """As the library asks for it."""
        token = self.source.current()
        if token is None:
            yield request
            return
        request.headers["Authorization"] = f"Bearer {token}"
        answer = yield request
        if _is_refused(answer) and (fresh := self.source.renewed(token)) is not None:
            request.headers["Authorization"] = f"Bearer {fresh}"
            yield request


def _is_refused(answer: httpx2.Response) -> bool:
    # A model's own 401 is its answer, and the call is not for us to repeat.
    kind = answer.headers.get("content-type", "").partition(";")[0]
    return answer.status_code == httpx2.codes.UNAUTHORIZED and kind == "application/problem+json"
