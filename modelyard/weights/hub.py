"""Downloads a checkpoint's files from a hub of models over HTTPS: resumed where it was cut off, checked against the hub's own digest.

It speaks what Hugging Face's hub speaks: `GET /{repo}/resolve/{revision}/{file}`, whose first answer names the commit
(`X-Repo-Commit`) and the file's digest (`X-Linked-Etag` or `ETag`: the SHA-256 of a large file, else the SHA-1 of its Git blob).
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urljoin, urlsplit

import httpx2
import stamina

from modelyard.domain.errors import Invalid, Unavailable

Progress = Callable[[int, int], None]
"""Is told the bytes that are here, and the bytes in all; 0 where the hub does not say."""

TRIES = 5
MOST_REDIRECTS = 4
_PART_BYTES = 1024 * 1024
T = TypeVar("T")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as the hub describes it.

    Args:
        digest: The SHA-256 (64 digits), or the SHA-1 of its Git blob (40 digits).
    """

    url: str
    commit: str
    digest: str
    size: int


class Hub:
    """One hub.

    Args:
        url: Its address.
        silent_s: Seconds that it may stay silent.
    """

    def __init__(self, url: str, silent_s: float = 30.0) -> None:
        self._url = url.rstrip("/")
        # Bodies come as they are: a length in between would be that of a compressed one.
        self._http = httpx2.Client(timeout=silent_s, headers={"accept-encoding": "identity", "user-agent": "modelyard"})

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def describe(self, repo: str, revision: str, file: str) -> Remote:
        """What the hub says of a file, before anything of it is sent.

        Raises:
            Unavailable: `hub_unreachable`.
            Invalid: `hub_has_no_such_file`, `hub_tells_no_digest`.
        """
        url = f"{self._url}/{quote(repo)}/resolve/{quote(revision, safe='')}/{quote(file)}"
        answer = self._tried(lambda: self._head(url))
        digest = (answer.headers.get("x-linked-etag") or answer.headers.get("etag") or "").removeprefix("W/").strip('"')
        if not (_SHA256.fullmatch(digest) or _SHA1.fullmatch(digest)):
            raise Invalid("hub_tells_no_digest", f"{url} names no digest: what comes cannot be checked.", "Pull from a folder: --from DIR")
        size = answer.headers.get("x-linked-size") or answer.headers.get("content-length") or "0"
        return Remote(url, answer.headers.get("x-repo-commit", ""), digest, int(size) if size.isdigit() else 0)

    def fetch(self, remote: Remote, target: Path, progress: Progress) -> None:
        """Bring the file here; a part of it that lies at `target` with `.part` at its end is not sent again.

        Raises:
            Unavailable: `hub_unreachable`; what has come is kept for the next time.
            Invalid: `digest_differs`; nothing of it is kept.
        """
        if target.is_file() and is_it(target, remote.digest):
            progress(target.stat().st_size, target.stat().st_size)
            return
        part = target.with_name(target.name + ".part")
        self._tried(lambda: self._download(remote, part, progress))
        if not is_it(part, remote.digest):
            part.unlink()
            raise Invalid(
                "digest_differs",
                f"What came from {remote.url} has another digest than the hub says: {remote.digest}.",
                "Pull again; if it stays, do not trust this hub or the way to it.",
            )
        part.replace(target)

    def _head(self, url: str) -> httpx2.Response:
        # The hub redirects to itself where a name has changed, and to a store of files once it has said what is asked here.
        for _ in range(MOST_REDIRECTS):
            answer = self._http.head(url)
            onward = answer.headers.get("location", "")
            target = urljoin(url, onward)
            if not (answer.is_redirect and onward and _same_place(url, target)) or "x-linked-etag" in answer.headers:
                return _good(answer)
            url = target
        return _good(answer)

    def _download(self, remote: Remote, part: Path, progress: Progress) -> None:
        have = part.stat().st_size if part.exists() else 0
        if remote.size and have >= remote.size:
            return
        headers = {"range": f"bytes={have}-"} if have else {}
        with self._http.stream("GET", remote.url, headers=headers, follow_redirects=True) as answer:
            if answer.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
                part.unlink()  # it is longer than the file: the file has changed since
                raise httpx2.ReadError("the part does not fit the file any more")
            if answer.status_code >= httpx2.codes.BAD_REQUEST:
                answer.read()
            _good(answer)
            resumed = have and answer.status_code == httpx2.codes.PARTIAL_CONTENT
            done = have if resumed else 0
            with part.open("ab" if resumed else "wb") as file:
                for piece in answer.iter_raw():
                    file.write(piece)
                    done += len(piece)
                    progress(done, remote.size)
        if remote.size and done < remote.size:
            raise httpx2.ReadError(f"cut off after {done} of {remote.size} bytes")

    def _tried(self, act: Callable[[], T]) -> T:
        try:
            for attempt in stamina.retry_context(on=httpx2.TransportError, attempts=TRIES, wait_initial=0.2, wait_max=5.0):
                with attempt:
                    return act()
        except httpx2.HTTPError as error:
            raise Unavailable(
                "hub_unreachable",
                f"The hub at {self._url} cannot be reached: {error}",
                "Check the network, or pull from a folder: --from DIR",
            ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")


def is_it(path: Path, digest: str) -> bool:
    """Whether a file has this digest: SHA-256, or by its length the SHA-1 of a Git blob."""
    with path.open("rb") as file:
        if len(digest) == hashlib.sha256().digest_size * 2:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
        blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while piece := file.read(_PART_BYTES):
            blob.update(piece)
    return blob.hexdigest() == digest


def _good(answer: httpx2.Response) -> httpx2.Response:
    """The answer, where it is one that can be used."""
    status = answer.status_code
    if status in {401, 403, 404}:
        raise Invalid(
            "hub_has_no_such_file",
            f"The hub has nothing at {answer.request.url} that is open to everybody.",
            "Check the name, or download the checkpoint yourself and pull it: --from DIR",
        )
    if status >= httpx2.codes.BAD_REQUEST:
        raise httpx2.TransportError(f"{answer.request.url} answered {status}", request=answer.request)
    return answer


def _same_place(one: str, other: str) -> bool:
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, first.netloc) == (second.scheme, second.netloc)
