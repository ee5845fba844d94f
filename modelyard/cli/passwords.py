"""How a command gets a password: asked for on a terminal, or as the first line of standard input."""

import sys
from typing import Annotated

import typer

from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.screen import Screen

PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def password(screen: Screen, *, from_input: bool, confirm: bool = False) -> str:
    """The password; never from an argument, which every user of the machine can see.

    Raises:
        Failure: `no_password`, there is nobody to ask, or standard input is empty.
    """
    if not from_input and screen.can_ask:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))
    found = sys.stdin.readline().rstrip("\r\n") if from_input else ""
    if not found:
        raise Failure(ExitCode.USAGE, "no_password", "There is no password.", "Pipe it in, with --password-stdin.")
    return found
