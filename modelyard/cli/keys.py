"""Commands on API keys: keys create, list, revoke."""

import platform
import re
from typing import Annotated

import typer

from modelyard.cli.command import command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation

_UNITS_S = {"m": 60, "h": 3600, "d": 86400}


def create(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="What it is for; this machine's name by default.", show_default=False)] = "",
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="What it is good for, such as predict:ada/fruit; give it once for each.")
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends: 12h, 30d.")] = None,
) -> None:
    """Make an API key and print it; it is shown this once.

    Examples:
      modelyard keys create camera --scope predict:ada/fruit --expires 30d
      modelyard keys create --scope models:write --scope predict
    """
    with invocation.connect() as client:
        made = client.create_key(name or platform.node() or "key", scope or (), _seconds(expires) if expires else None)
    invocation.screen.answer(made.model_dump(mode="json"), made.key)
    invocation.screen.say(
        f"Keep it: it is not shown again. It is {made.name!r}, {made.id}, good for {', '.join(made.scopes)}.", style="dim"
    )


def list_keys(
    invocation: Invocation, user: Annotated[str | None, typer.Option(metavar="NAME", help="Whose keys; for administrators.")] = None
) -> None:
    """List your API keys, or another account's.

    Examples:
      modelyard keys list
      modelyard keys list --user ada --json
    """
    with invocation.connect() as client:
        keys = client.keys(user)
    rows = [(each.id, each.name, " ".join(each.scopes), each.last_used_at or "never", each.expires_at or "never") for each in keys]
    invocation.screen.table([each.model_dump(mode="json") for each in keys], ("id", "name", "scopes", "used", "ends"), rows)


def revoke(invocation: Invocation, key_id: Annotated[str, typer.Argument(metavar="ID", help="As `modelyard keys list` has it.")]) -> None:
    """End an API key; within five seconds it is refused everywhere.

    Examples:
      modelyard keys revoke 4f9QmT0bXc2d
      modelyard keys revoke 4f9QmT0bXc2d --json
    """
    with invocation.connect() as client:
        client.revoke_key(key_id)
    invocation.screen.answer({"id": key_id, "revoked": True}, f"revoked {key_id}")


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    keys = typer.Typer()
    command(keys, "create")(create)
    command(keys, "list")(list_keys)
    command(keys, "revoke")(revoke)
    app.add_typer(keys, name="keys", help="API keys of your account.")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([1-9]\d{0,4})([mhd])", text)
    if found is None:
        raise Failure(ExitCode.USAGE, "not_a_time", f"{text!r} is no length of time.", "Write a number and m, h or d: --expires 30d")
    return float(int(found[1]) * _UNITS_S[found[2]])
