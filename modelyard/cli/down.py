"""The command that takes everything of this data folder out of the container engine."""

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.command import Reach, command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation

if TYPE_CHECKING:
    from upload_service.engine_yard import EngineYard


def down(
    invocation: Invocation,
    *,
    volumes: Annotated[bool, typer.Option("--volumes", help="Images and volumes too: models must then be built again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
) -> None:
    """Once the server has ended, remove this data folder's containers from the engine; nothing of others, nothing in the folder.

    Examples:
      modelyard down --dry-run
      modelyard down --volumes
    """
    from modelyard.composition import engine_yard  # noqa: PLC0415 - loads the whole server
    from modelyard.run.folder_lock import FolderLock  # noqa: PLC0415 - as the line before

    settings = invocation.settings()
    if not settings.data.is_dir():
        raise Failure(ExitCode.NOT_FOUND, "no_data_folder", f"There is no {settings.data}.", "Name another with --data.")
    with FolderLock(settings.data), closing(engine_yard(settings)) as held:
        _take_down(invocation, held.yard, volumes=volumes, dry_run=dry_run)


def _take_down(invocation: Invocation, yard: "EngineYard", *, volumes: bool, dry_run: bool) -> None:
    from upload_service.engine_yard import remove_all  # noqa: PLC0415 - loads half the server

    things = yard.things(volumes=volumes)
    failed = [] if dry_run else remove_all(yard, volumes=volumes)
    document = {
        "removed": [
            {"kind": each.kind, "name": each.name} for each in things if not dry_run and each not in [thing for thing, _ in failed]
        ],
        "found": [{"kind": each.kind, "name": each.name} for each in things],
    }
    invocation.screen.table(document, ("kind", "name"), [(each.kind, each.name) for each in things])
    if failed:
        thing, why = failed[0]
        raise Failure(
            ExitCode.FAILED, "in_use", f"{thing.kind} {thing.name} could not be removed: {why}", "End what uses it, then try again."
        )


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    command(app, "down", Reach.HERE)(down)
