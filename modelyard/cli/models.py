"""Commands on models that are there: list, show, delete."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.command import command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.names import ModelArgument, parse_model
from modelyard.cli.screen import Screen

if TYPE_CHECKING:
    from modelyard.client import Deleted, Model, ModelRow, Version


def list_models(invocation: Invocation) -> None:
    """List your models, as an administrator everybody's; or those of one owner.

    Examples:
      modelyard list
      modelyard list --owner testuser --json
    """
    with invocation.connect() as client:
        rows = client.models(invocation.owner)
    if not rows:
        whose = f"{invocation.owner} has" if invocation.owner else "You see"
        invocation.screen.say(f"{whose} no models yet. Try: modelyard upload DIR")
    columns = ("model", "version", "status", "created", "description")
    invocation.screen.table([row.model_dump(mode="json") for row in rows], columns, [_cells(row) for row in rows])


def show(invocation: Invocation, model: ModelArgument) -> None:
    """Show one model with its versions.

    Examples:
      modelyard show fruit
      modelyard show testuser/test-model --json
    """
    owner, name = parse_model(invocation, model)
    with invocation.connect() as client:
        found = client.model(owner, name)
    invocation.screen.pairs(found.model_dump(mode="json"), _facts(found, f"{invocation.url()}/m/{owner}/{name}/"))


def delete(
    invocation: Invocation,
    model: ModelArgument,
    version: Annotated[int | None, typer.Option(min=1, help="Only this version; the last one takes the model with it.")] = None,
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Take zip and history too; without it they are kept.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a model, or one version of it.

    Examples:
      modelyard delete fruit
      modelyard delete testuser/test-model --version 2 --yes
    """
    owner, name = parse_model(invocation, model)
    what = f"{owner}/{name}" + (f" version {version}" if version else "")
    with invocation.connect() as client:
        found = client.model(owner, name)
        doomed = [_the_version(found, version)] if version else list(found.versions)
        if dry_run:
            document = {"would_delete": what, "versions": [each.version for each in doomed], "purge": purge}
            invocation.screen.answer(document, f"would delete {what}")
            return
        _ask(invocation.screen, what, yes=yes)
        gone = client.delete_version(doomed[0].id, purge=purge) if version else client.delete(owner, name, purge=purge)
    invocation.screen.answer(gone.model_dump(mode="json"), _told(gone, what))


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    command(app, "list")(list_models)
    command(app, "show")(show)
    command(app, "delete")(delete)


def _cells(row: "ModelRow") -> tuple[str, ...]:
    return (f"{row.username}/{row.model_name}", str(row.version), row.status, row.created_at or "", row.description)


def _facts(found: "Model", url: str) -> list[tuple[str, str]]:
    facts = [("model", f"{found.username}/{found.model_name}"), ("id", found.id), ("status", found.status), ("url", url)]
    optional = {"state": found.state, "serving": found.serving, "found": found.found, "description": found.description}
    facts += [(label, str(value)) for label, value in optional.items() if value]
    return facts + [(f"version {each.version}", f"{each.status}  {each.id}") for each in found.versions]


def _the_version(found: "Model", version: int) -> "Version":
    for each in found.versions:
        if each.version == version:
            return each
    there = ", ".join(str(each.version) for each in found.versions) or "none"
    mend = f"Choose one of its versions: {there}."
    raise Failure(ExitCode.NOT_FOUND, "no_such_version", f"{found.username}/{found.model_name} has no version {version}.", mend)


def _ask(screen: Screen, what: str, *, yes: bool) -> None:
    if yes:
        return
    if not screen.can_ask:
        raise Failure(ExitCode.USAGE, "not_confirmed", f"Nobody is there to confirm that {what} goes.", "Add --yes.")
    typer.confirm(f"Delete {what}?", abort=True, err=True)


def _told(gone: "Deleted", what: str) -> str:
    return f"{gone.status} {what}, {gone.bytes_freed} bytes freed, {gone.bytes_kept} bytes kept"
