"""Commands on one's own log-in: login, logout."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.command import command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.passwords import PasswordStdin, password
from modelyard.cli.screen import Screen

if TYPE_CHECKING:
    from modelyard.cli.log_ins import LogIn


def login(
    invocation: Invocation,
    username: Annotated[str | None, typer.Option("--username", "-u", metavar="NAME", help="Who you are there.")] = None,
    *,
    password_stdin: PasswordStdin = False,
) -> None:
    """Log in at a server; the commands that follow speak to it as you.

    Examples:
      modelyard login --server https://models.example.org
      modelyard login --username ada --password-stdin < password.txt
    """
    url, screen = invocation.url(), invocation.screen
    name = username or _asked(screen, url)
    secret = password(screen, from_input=password_stdin)
    with invocation.connect(bare=True) as client:
        before, tokens = invocation.log_ins.find(url), client.log_in(name, secret)
        me = client.me()
    invocation.log_ins.keep(url, me.username, tokens)
    if before is not None:
        _end(invocation, before)
    if invocation.token:
        screen.say("MODELYARD_TOKEN or --token is set, and wins over this log-in.", style="yellow")
    screen.answer({"server": url, "username": me.username, "role": me.role}, f"logged in at {url} as {me.username}")


def logout(invocation: Invocation) -> None:
    """End your log-in at a server, there and here.

    Examples:
      modelyard logout
      modelyard logout --server https://models.example.org
    """
    url = invocation.url()
    ended = invocation.log_ins.forget(url)
    if ended is None:
        raise Failure(ExitCode.NOT_FOUND, "not_logged_in", f"You are not logged in at {url}.", f"modelyard login --server {url}")
    _end(invocation, ended)
    invocation.screen.answer({"server": url, "username": ended.username}, f"logged out at {url}")


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    command(app, "login")(login)
    command(app, "logout")(logout)


def _asked(screen: Screen, url: str) -> str:
    if not screen.can_ask:
        raise Failure(ExitCode.USAGE, "no_username", "There is no username.", "modelyard login --username NAME --password-stdin")
    return str(typer.prompt(f"Username at {url}", err=True))


def _end(invocation: Invocation, ended: "LogIn") -> None:
    """End a log-in that is forgotten here, on the server too; one that has ended there already is no trouble."""
    from modelyard.client import Client, ProblemError, UnreachableError  # noqa: PLC0415 - `--help` need not load an HTTP client

    try:
        with Client(invocation.url()) as client:
            client.log_out(client.refresh(ended.refresh_token).access_token)
    except (ProblemError, UnreachableError) as error:
        invocation.screen.say(f"The server was not told: {error}", style="dim")
