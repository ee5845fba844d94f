"""The `modelyard` command itself: all commands, and the options that are common to them."""

from typing import Annotated

import typer

from modelyard import __version__
from modelyard.cli import (
    accounts,
    builds,
    calls,
    demo,
    deploy,
    disk,
    doctor,
    down,
    events,
    keys,
    local,
    models,
    serve,
    sharing,
    users,
    weights,
)
from modelyard.cli.command import DataSetting, Group, JsonFlag, OwnerSetting, ServerSetting, TokenSetting
from modelyard.cli.invocation import Invocation

app = typer.Typer(name="modelyard", cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False)


def _tell_version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"modelyard {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def modelyard(
    ctx: typer.Context,
    server: ServerSetting = None,
    data: DataSetting = None,
    token: TokenSetting = None,
    owner: OwnerSetting = None,
    *,
    as_json: JsonFlag = False,
    version: Annotated[bool, typer.Option("--version", help="Tell the version and end.")] = False,
) -> None:
    """Upload a zip of a Python model app, get a live, authenticated prediction endpoint.

    Examples:
      modelyard demo --once
      modelyard up
    """
    _tell_version(asked=version)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
    ctx.obj = Invocation(server, data, token, owner, as_json)


for group in (local, serve, deploy, builds, models, weights, calls, sharing, events, accounts, keys, users, demo, disk, doctor, down):
    group.register(app)


def main() -> None:
    """Run the command line of this process."""
    app()
