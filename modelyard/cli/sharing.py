"""Commands on how a model is called: share, logs, open."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.command import command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.names import ModelArgument, parse_model

if TYPE_CHECKING:
    from modelyard.client import Access


def share(
    invocation: Invocation,
    model: ModelArgument,
    public: Annotated[
        bool | None, typer.Option("--public/--private", help="Whether anybody may call it, without a credential.", show_default=False)
    ] = None,
    also: Annotated[list[str] | None, typer.Option("--with", metavar="NAME", help="A user who may call it from now on.")] = None,
    no_more: Annotated[list[str] | None, typer.Option("--without", metavar="NAME", help="A user who may not any more.")] = None,
) -> None:
    """Say who may call a model; without an option, show who may.

    Examples:
      modelyard share fruit --with bob --with carol
      modelyard share fruit --public
    """
    owner, name = parse_model(invocation, model)
    if both := sorted({*(also or ())} & {*(no_more or ())}):
        raise Failure(ExitCode.USAGE, "with_and_without", f"{both[0]} is named both ways.", "Name each user once.")
    with invocation.connect() as client:
        access = client.access(owner, name)
        if public is not None or also or no_more:
            users = [each for each in dict.fromkeys((*access.users, *(also or ()))) if each not in (no_more or ())]
            wanted = access.model_copy(update={"users": tuple(users), "public": access.public if public is None else public})
            access = client.set_access(owner, name, wanted)
    document = {"username": owner, "model_name": name, **access.model_dump(mode="json")}
    invocation.screen.pairs(document, [("model", f"{owner}/{name}"), ("called by", _callers(owner, access))])


def logs(
    invocation: Invocation,
    model: ModelArgument,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many of the last lines.")] = 100,
) -> None:
    """Print the last lines that a model's own app wrote.

    Examples:
      modelyard logs fruit
      modelyard logs testuser/test-model -n 20
    """
    owner, name = parse_model(invocation, model)
    with invocation.connect() as client:
        written = client.logs(owner, name, lines).splitlines()
    invocation.screen.answer({"username": owner, "model_name": name, "lines": written}, "\n".join(written))


def open_model(invocation: Invocation, model: ModelArgument) -> None:
    """Print the address of a model's own pages, for a browser that is signed in.

    Examples:
      modelyard open fruit
      modelyard open testuser/test-model --json
    """
    owner, name = parse_model(invocation, model)
    url = f"{invocation.url()}/open/{owner}/{name}"
    invocation.screen.answer({"url": url}, url)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    command(app, "share")(share)
    command(app, "logs")(logs)
    command(app, "open")(open_model)


def _callers(owner: str, access: "Access") -> str:
    if access.public:
        return "anybody"
    return ", ".join((owner, *access.users))
