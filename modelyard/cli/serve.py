"""The command that runs one role in a process of its own."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.command import Reach, RuntimeFlag, command
from modelyard.cli.invocation import Invocation
from modelyard.cli.screen import Screen

if TYPE_CHECKING:
    from modelyard.serving import Serving


class Role(StrEnum):
    """What a process may be."""

    AUTH = "auth"
    UPLOAD = "upload"
    BUILDER = "builder"
    INFERENCE = "inference"
    RUNNER = "runner"
    GATEWAY = "gateway"


def serve(
    invocation: Invocation,
    role: Annotated[Role, typer.Argument(help="What this process does.")],
    host: Annotated[str | None, typer.Option(help="The address to listen on. [default: 127.0.0.1]", show_default=False)] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="The port of auth, upload or gateway; 0 takes a free one. [default: 8000, 8001, 8080]",
            show_default=False,
        ),
    ] = None,
    *,
    runtime: RuntimeFlag = None,
    trust_uploads: Annotated[bool, typer.Option("--trust-uploads", help="Run uploads without a sandbox; only for your own code.")] = False,
) -> None:
    """Run one role of Modelyard in this process, until SIGTERM; it needs Postgres and Kafka.

    Examples:
      modelyard serve gateway --data ./yard
      modelyard serve builder --data ./yard
    """
    from modelyard import serving  # noqa: PLC0415 - loads the whole server

    settings = invocation.settings(host=host, runtime=runtime, trust_uploads=trust_uploads or None)
    screen = invocation.screen
    code = serving.serve(role.value, settings, port, announce=lambda served: _announce(screen, served))
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    command(app, "serve", Reach.HERE)(serve)


def _announce(screen: Screen, served: "Serving") -> None:
    told = {"role": served.role, "url": served.url, "socket": str(served.socket)}
    screen.answer(told, served.url or str(served.socket))
