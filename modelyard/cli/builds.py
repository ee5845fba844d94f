"""Builds as they happen: the command `build-log`, and how an upload's build is watched."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.command import command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.names import complete_model, parse_model
from modelyard.cli.screen import Screen, harmless

if TYPE_CHECKING:
    from modelyard.client import Build, Client

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FAILED_STATUS = frozenset({"failed", "cancelled"})


def build_log(
    invocation: Invocation,
    model_or_build: Annotated[
        str, typer.Argument(metavar="MODEL|BUILD", help="A model (its newest build), or a build's id.", autocompletion=complete_model)
    ],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the build has ended.")] = False,
) -> None:
    """Print a build's log.

    Examples:
      modelyard build-log fruit
      modelyard build-log -f testuser/test-model
    """
    screen = invocation.screen
    with invocation.connect() as client:
        build_id = _build_id(invocation, client, model_or_build)
        lines: list[str] = []
        if follow:
            for line in client.follow_build_log(build_id):
                lines.append(line.text)
                if not screen.as_json:
                    typer.echo(harmless(line.text))
        else:
            lines = client.build_log(build_id).splitlines()
        build = client.build(build_id)
    if screen.as_json or not follow:
        screen.answer({"build": build.model_dump(mode="json"), "lines": lines}, "\n".join(lines))


def watch(screen: Screen, client: "Client", build_id: str) -> "Build":
    """Say every line of the build until it has ended, and return how it ended."""
    with screen.spinner("building"):
        for line in client.follow_build_log(build_id):
            screen.say(f"  {line.text}", style="dim")
    return client.build(build_id)


def failed(build: "Build") -> Failure:
    """The failure of a build that ended without a version that can be called."""
    reason = build.message or build.reason or f"The build ended as {build.status}."
    return Failure(
        ExitCode.FAILED, "build_failed", reason, build.mend or f"modelyard build-log {build.id}", {"build": build.model_dump(mode="json")}
    )


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    command(app, "build-log")(build_log)


def _build_id(invocation: Invocation, client: "Client", text: str) -> str:
    if _ID.fullmatch(text):
        return text
    owner, name = parse_model(invocation, text)
    build_id = client.model(owner, name).build_id
    if build_id is None:
        raise Failure(ExitCode.NOT_FOUND, "no_build", f"{owner}/{name} was never built.", f"modelyard upload DIR --model {owner}/{name}")
    return build_id
