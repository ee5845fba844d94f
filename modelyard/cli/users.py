"""Commands of administrators on accounts: users create, list, invite, set-role, disable, enable, password."""

from enum import StrEnum
from typing import Annotated

import typer

from modelyard.cli.command import command
from modelyard.cli.invocation import Invocation
from modelyard.cli.passwords import PasswordStdin, password
from modelyard.domain.accounts import AccountState, Role

Name = Annotated[str, typer.Argument(metavar="NAME", help="The username.", show_default=False)]
RoleOption = Annotated[Role, typer.Option("--role", help="What the account may do.")]


def create(invocation: Invocation, name: Name, role: RoleOption = Role.MEMBER, *, password_stdin: PasswordStdin = False) -> None:
    """Make an account; without a password it waits for its invitation.

    Examples:
      modelyard users create ada
      modelyard users create bob --role viewer --password-stdin < password.txt
    """
    secret = password(invocation.screen, from_input=True) if password_stdin else None
    with invocation.connect() as client:
        made = client.create_user(name, secret, role)
    invocation.screen.answer(made.model_dump(mode="json"), f"{made.username}  {made.role}")
    if secret is None:
        invocation.screen.say(f"Nobody can log in as {name} yet. Try: modelyard users invite {name}")


def list_users(invocation: Invocation) -> None:
    """List all accounts.

    Examples:
      modelyard users list
      modelyard users list --json
    """
    with invocation.connect() as client:
        users = client.users()
    rows = [(each.username, each.role, each.state, each.created_at or "") for each in users]
    invocation.screen.table([each.model_dump(mode="json") for each in users], ("username", "role", "state", "created"), rows)


def invite(invocation: Invocation, name: Name) -> None:
    """Print a one-time link with which somebody takes the account and chooses its password.

    Examples:
      modelyard users invite ada
      modelyard users invite ada --json
    """
    with invocation.connect() as client:
        made = client.invite(name)
    invocation.screen.answer(made.model_dump(mode="json"), made.url)


def set_role(
    invocation: Invocation, name: Name, role: Annotated[Role, typer.Argument(metavar="ROLE", help="admin, member or viewer.")]
) -> None:
    """Change what an account may do; its log-ins end, its API keys stay.

    Examples:
      modelyard users set-role ada admin
      modelyard users set-role bob viewer --json
    """
    _change(invocation, name, role=role)


def disable(invocation: Invocation, name: Name) -> None:
    """Let nobody use the account, until it is enabled again; its models stay.

    Examples:
      modelyard users disable ada
      modelyard users disable ada --json
    """
    _change(invocation, name, state=AccountState.DISABLED)


def enable(invocation: Invocation, name: Name) -> None:
    """Let the account be used again.

    Examples:
      modelyard users enable ada
      modelyard users enable ada --json
    """
    _change(invocation, name, state=AccountState.ACTIVE)


def set_password(invocation: Invocation, name: Name, *, password_stdin: PasswordStdin = False) -> None:
    """Give an account another password; all its log-ins end.

    Examples:
      modelyard users password ada
      modelyard users password ada --password-stdin < password.txt
    """
    secret = password(invocation.screen, from_input=password_stdin, confirm=True)
    with invocation.connect() as client:
        client.set_password(name, secret)
    invocation.screen.answer({"username": name, "password": "changed"}, f"{name} has another password")


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    users = typer.Typer()
    command(users, "create")(create)
    command(users, "list")(list_users)
    command(users, "invite")(invite)
    command(users, "set-role")(set_role)
    command(users, "disable")(disable)
    command(users, "enable")(enable)
    command(users, "password")(set_password)
    app.add_typer(users, name="users", help="Accounts; for administrators.")


def _change(invocation: Invocation, name: str, **told: StrEnum) -> None:
    with invocation.connect() as client:
        changed = client.set_user(name, **told)
    invocation.screen.answer(changed.model_dump(mode="json"), f"{changed.username}  {changed.role}  {changed.state}")
