"""The connection under the client: one origin, one source of tokens, refusals as errors."""

from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import httpx2

from modelyard.client.bearer import Bearer, Fixed, TokenSource
from modelyard.client.refusals import reaching, refuse


class Connection:
    """Sends what the calls of the client ask for.

    Args:
        url: The console's origin, such as `http://127.0.0.1:8080`.
        token: An API key or an access token, or where such tokens come from; None for the calls that need none.
        timeout_s: Seconds that the server may stay silent in one call.
    """

    def __init__(self, url: str, token: str | TokenSource | None = None, *, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._bearer = Bearer(Fixed(token) if token is None or isinstance(token, str) else token)
        self._http = httpx2.Client(
            base_url=url,
            auth=self._bearer,
            timeout=httpx2.Timeout(timeout_s, connect=min(5.0, timeout_s)),
            trust_env=not _is_loopback(url),  # a proxy of the environment does not know this machine's own ports
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _call(self, method: str, path: str, **request: Any) -> httpx2.Response:
        with reaching(self._http):
            answer = self._http.request(method, path, **request)
        refuse(answer)
        return answer

    def _list(self, path: str, member: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        page: str | None = path
        while page:
            answer = self._call("GET", page)
            listed += answer.json()[member]
            page = _next_page(answer)
        return listed


def _next_page(answer: httpx2.Response) -> str | None:
    """Path and query of the list's next page (`Link: rel="next"`, RFC 8288); None where this was the last."""
    following = answer.links.get("next", {}).get("url")
    # Only path and query are taken over: the token goes to no other server.
    return httpx2.URL(following).raw_path.decode() if following else None


def _is_loopback(url: str) -> bool:
    host = httpx2.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
