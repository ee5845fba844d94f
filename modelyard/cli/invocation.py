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
from modelyard.cli.screen import Screen
from modelyard.domain.ids import RESERVED, suggest

if TYPE_CHECKING:
    from modelyard.client import Client
    from modelyard.run.settings import Settings

SERVER_FILE = "server.json"
TOKEN_FILE = "owner.token"  # noqa: S105 - a file's name


@dataclass(frozen=True)
class Invocation:
    """One call of the command line; None means that it was not said.

    Args:
        server: The server's URL.
        data: The data folder.
        token: The API key.
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
        """The owner that was named, else the name of the local user made valid."""
        return self.owner or local_username()

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
        try:
            return str(json.loads((self.folder / SERVER_FILE).read_text())["url"]).rstrip("/")
        except (OSError, ValueError, LookupError) as error:
            raise Failure(ExitCode.NOT_READY, "no_server", f"No server runs on {self.folder}.", self._start()) from error

    def _start(self) -> str:
        return f"modelyard up --data {self.data}" if self.data else "modelyard up"

    def found_token(self) -> str | None:
        """The token that was named, else the owner token of the data folder."""
        if self.token:
            return self.token
        try:
            return (self.folder / TOKEN_FILE).read_text().strip() or None
        except FileNotFoundError:
            return None

    @contextmanager
    def connect(self, timeout_s: float = 60.0) -> Generator["Client"]:
        """A client of the server; its refusals become failures of the command."""
        from stamina import instrumentation  # noqa: PLC0415 - as the next line

        from modelyard.client import Client, ProblemError, UnreachableError  # noqa: PLC0415 - `--help` need not load an HTTP client

        instrumentation.set_on_retry_hooks(())  # a retry is no news, and its log line would end up among the data
        try:
            with Client(self.url(), self.found_token(), timeout_s=timeout_s) as client:
                yield client
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
