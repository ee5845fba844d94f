"""The log-ins of this machine's user: one for each server, in a file that nobody else reads, kept alive as they are used."""

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_config_path

from modelyard.cli.failures import ExitCode, Failure

if TYPE_CHECKING:
    from modelyard.client import Tokens

EARLY_S = 30.0
"""A token is renewed this long before it ends."""


@dataclass(frozen=True)
class LogIn:
    """A log-in as it is kept; `ends_at`, seconds since 1970, is the access token's end by this machine's clock."""

    username: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    ends_at: float


class LogIns:
    """The file of log-ins, by server.

    Args:
        folder: Where it is; the user's own configuration folder where it is not said.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or user_config_path("modelyard")
        self._path = self._folder / "log-ins.json"

    def find(self, url: str) -> LogIn | None:
        """The log-in at this server.

        Raises:
            Failure: `log_ins_unsafe`, other users can read the file; `log_ins_broken`, it cannot be read.
        """
        kept = self._read().get(url)
        try:
            return None if kept is None else LogIn(**kept)
        except TypeError as error:
            raise self._broken() from error

    def keep(self, url: str, username: str, tokens: "Tokens") -> LogIn:
        """Remember what a log-in gave, in place of what was there."""
        with self._locked():
            return self._put(url, username, tokens)

    def forget(self, url: str) -> LogIn | None:
        """Forget the log-in at this server; what it was."""
        with self._locked():
            found, entries = self.find(url), self._read()
            if entries.pop(url, None) is not None:
                self._write(entries)
            return found

    def renew(self, url: str, refused: str, refresh: "Callable[[str], Tokens]") -> LogIn | None:
        """The log-in with another access token than `refused`; None where there is no log-in any more.

        A refresh token is good once. Commands that run at the same time therefore take turns, and whoever comes second takes what
        the first one got.
        """
        with self._locked():
            found = self.find(url)
            if found is None or found.access_token != refused:
                return found
            return self._put(url, found.username, refresh(found.refresh_token))

    def _put(self, url: str, username: str, tokens: "Tokens") -> LogIn:
        fresh = LogIn(username, tokens.access_token, tokens.refresh_token, time.time() + tokens.expires_in)
        self._write(self._read() | {url: asdict(fresh)})
        return fresh

    @contextmanager
    def _locked(self) -> Generator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file of its own: the other one is replaced with each change.
        with (self._folder / "log-ins.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, Any]:
        try:
            with self._path.open() as file:
                found = os.fstat(file.fileno())
                if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
                    raise Failure(
                        ExitCode.FAILED, "log_ins_unsafe", f"Other users of this machine can read {self._path}.", f"chmod 600 {self._path}"
                    )
                entries = json.load(file)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise self._broken() from error
        if not isinstance(entries, dict):
            raise self._broken()
        return entries

    def _write(self, entries: dict[str, Any]) -> None:
        fresh = self._path.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(entries, file, indent=1)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(self._path)

    def _broken(self) -> Failure:
        return Failure(ExitCode.FAILED, "log_ins_broken", f"{self._path} does not hold log-ins.", f"rm {self._path}, then modelyard login")


class KeptLogIn:
    """A `TokenSource` of the client: the log-in at one server, renewed as needed.

    Args:
        refresh: Trades a refresh token for new tokens.
    """

    def __init__(self, log_ins: LogIns, url: str, refresh: "Callable[[str], Tokens]") -> None:
        self._log_ins = log_ins
        self._url = url
        self._refresh = refresh

    def current(self) -> str | None:
        """See `TokenSource`.

        Raises:
            Failure: `logged_out`, the log-in has ended.
        """
        found = self._log_ins.find(self._url)
        if found is not None and found.ends_at - EARLY_S <= time.time():
            return self._renewed(found.access_token)
        return found.access_token if found is not None else None

    def renewed(self, refused: str) -> str | None:
        """See `TokenSource`.

        Raises:
            Failure: `logged_out`, the log-in has ended.
        """
        return self._renewed(refused)

    def _renewed(self, refused: str) -> str | None:
        from modelyard.client import ProblemError  # noqa: PLC0415 - `--help` need not load an HTTP client

        try:
            found = self._log_ins.renew(self._url, refused, self._refresh)
        except ProblemError as problem:
            if problem.status not in _ENDED:
                raise
            mend = f"modelyard login --server {self._url}, or modelyard logout --server {self._url}"
            raise Failure(ExitCode.FAILED, "logged_out", f"The log-in at {self._url} has ended.", mend) from problem
        return found.access_token if found is not None else None


_ENDED = frozenset({400, 401, 403, 404})
"""How a server refuses a refresh token; whatever else it answers may pass."""
