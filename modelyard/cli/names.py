"""How a model is named on the command line: `owner/name`, or `name` alone."""

from contextlib import suppress
from typing import Annotated

import typer

from modelyard.cli.failures import Failure
from modelyard.cli.invocation import Invocation
from modelyard.domain.errors import ModelyardError
from modelyard.domain.ids import ModelName, Owner, parse_model_name, parse_owner

_COMPLETION_S = 2.0


def parse_model(invocation: Invocation, text: str) -> tuple[Owner, ModelName]:
    """The owner and the name; the owner is the invocation's where the text names none.

    Raises:
        Invalid: One of them breaks the rule for names.
    """
    owner, slash, name = text.rpartition("/")
    return parse_owner(owner if slash else invocation.username), parse_model_name(name)


def complete_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """Model names for the shell, from the server; none where there is no answer within two seconds."""
    said = {key: value for key, value in ctx.find_root().params.items() if key in {"server", "data", "token", "owner"}}
    invocation = Invocation().with_flags(**said)
    owner, slash, _ = incomplete.rpartition("/")
    # The shell's line is no place for an error: whatever goes wrong, nothing is offered.
    with suppress(Failure, ModelyardError, OSError), invocation.connect(_COMPLETION_S) as client:
        return [f"{owner}{slash}{row.model_name}" for row in client.models(owner if slash else invocation.username)]
    return []


ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="owner/name, or name for one of yours.", autocompletion=complete_model, show_default=False)
]
