"""What surrounds a command: which server it speaks to, with which token, as whom, and where it writes."""

import getpass
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.cli.failures import ExitCode, Failure, from_status
from modelyard.cli.log_ins import KeptLogIn, LogIn, LogIns
from modelyard.cli.screen import Screen
from modelyard.domain.ids import RESERVED, suggest

if TYPE_CHECKING:
    from modelyard.client import Client, Tokens
    from modelyard.run.settings import Settings

SERVER_FILE = "server.json"
TOKEN_FILE = "owner.token"  # noqa: S105 - a file's name


@dataclass(frozen=True)
class Invocation:
    """One call of the command line; None means that it was not said.

    Args:
        server: The server's URL.
        data: The data folder.
        token: The API key, or an access token.
        owner: The username whose models are meant.
        as_json: Whether standard output gets JSON.
    """

    server: str | None = None
    data: Path | None = None
    token: str | None = field(default=None, repr=False)
    owner: str | None = None
    as_json: bool = False

    def with_flags(self, **said: object) -> "Invocation":
        """The same with what was said after the command's name, which wins."""
        return replace(self, **{name: value for name, value in said.items() if value})  # type: ignore[arg-type] # names and types are those of `common`

    @cached_property
    def screen(self) -> Screen:
        """Where the command writes."""
        return Screen(as_json=self.as_json)

    @cached_property
    def username(self) -> str:
        """The owner that was named, else the user that the token speaks for; the local user where that is the platform's own `owner`."""
        if self.owner:
            return self.owner
        if self.token:
            name = self._named_by_token()
        else:
            found = self.log_in()
            name = found.username if found else ""
        return local_username() if not name or name in RESERVED else name

    def _named_by_token(self) -> str:
        try:
            with self.connect() as client:
                return client.me().username
        except Failure as failure:
            if failure.code != "scope_too_small":
                raise
            mend = "Write owner/name, or say --owner NAME."
            raise Failure(ExitCode.USAGE, "owner_unknown", "This key does not tell whose models are meant.", mend) from failure

    def settings(self, **overrides: object) -> "Settings":
        """The settings in force; `overrides` are flags by dotted name, None where not said."""
        from modelyard.run.settings import load_settings  # noqa: PLC0415 - `--help` need not load the settings' library

        return load_settings(self.data, **overrides)

    @cached_property
    def folder(self) -> Path:
        """The data folder in force."""
        return self.data or self.settings().data

    def url(self) -> str:
        """The server's URL.

        Raises:
            Failure: `no_server` where none was named and none runs on the data folder.
        """
        if self.server:
            return self.server.rstrip("/")
        if (here := self._running_here()) is None:
            raise Failure(ExitCode.NOT_READY, "no_server", f"No server runs on {self.folder}.", self._start())
        return here

    def _start(self) -> str:
        return f"modelyard up --data {self.data}" if self.data else "modelyard up"

    @cached_property
    def log_ins(self) -> LogIns:
        """Where log-ins are kept."""
        return LogIns()

    def log_in(self) -> LogIn | None:
        """The log-in at the server; None where there is none, or no server."""
        url = self.server.rstrip("/") if self.server else self._running_here()
        return self.log_ins.find(url) if url else None

    def credential(self) -> str | KeptLogIn | None:
        """The token that was named, else the log-in at the server, else the owner token, where the server is that of the data folder."""
        if self.token:
            return self.token
        if self.log_in() is not None:
            return KeptLogIn(self.log_ins, self.url(), self._refresh)
        here = self._running_here()
        # The owner token is not for any other server to see.
        if self.server and self.server.rstrip("/") != here:
            return None
        try:
            return (self.folder / TOKEN_FILE).read_text().strip() or None
        except FileNotFoundError:
            return None

    def _running_here(self) -> str | None:
        """The URL of the server that runs on the data folder."""
        try:
            return str(json.loads((self.folder / SERVER_FILE).read_text())["url"]).rstrip("/")
        except (OSError, ValueError, LookupError):
            return None

    def _refresh(self, refresh_token: str) -> "Tokens":
        from modelyard.client import Client  # noqa: PLC0415 - `--help` need not load an HTTP client

        with Client(self.url()) as client:
            return client.refresh(refresh_token)

    def current_token(self) -> str | None:
        """The text of the token in use; of a log-in one that is fresh."""
        found = self.credential()
        if not isinstance(found, KeptLogIn):
            return found
        with self._edge():
            return found.current()

    @contextmanager
    def connect(self, timeout_s: float = 60.0, *, bare: bool = False) -> Generator["Client"]:
        """A client of the server; its refusals become failures of the command.

        Args:
            timeout_s: Seconds that the server may stay silent in one call.
            bare: Without a token, for a log-in.
        """
        from stamina import instrumentation  # noqa: PLC0415 - as the next line

        from modelyard.client import Client  # noqa: PLC0415 - `--help` need not load an HTTP client

        instrumentation.set_on_retry_hooks(())  # a retry is no news, and its log line would end up among the data
        credential = None if bare else self.credential()
        with self._edge(), Client(self.url(), credential, timeout_s=timeout_s) as client:
            yield client

    @contextmanager
    def _edge(self) -> Generator[None]:
        from modelyard.client import ProblemError, UnreachableError  # noqa: PLC0415 - as in `connect`

        try:
            yield
        except ProblemError as problem:
            mend = problem.mend or "Run `modelyard doctor`."
            extra = {**problem.extra, "status": problem.status, "retry_after_s": problem.retry_after_s}
            raise Failure(from_status(problem.status), problem.code, problem.detail, mend, extra) from problem
        except UnreachableError as error:
            mend = "Check --server and MODELYARD_SERVER." if self.server else self._start()
            raise Failure(ExitCode.NOT_READY, "unreachable", str(error), mend) from error


def local_username() -> str:
    """The local user's name as a valid username."""
    try:
        name = suggest(getpass.getuser())
    except (KeyError, OSError):
        name = suggest("")
    return f"{name[:38]}-1" if name in RESERVED else name
