"""The command that uploads an app and watches it become a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urljoin

import typer

from modelyard.cli.builds import FAILED_STATUS, failed, watch
from modelyard.cli.command import command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.names import complete_model, parse_model
from modelyard.domain.ids import suggest

if TYPE_CHECKING:
    from modelyard.client import Client, Upload


def upload(
    invocation: Invocation,
    path: Annotated[Path, typer.Argument(metavar="DIR|ZIP", help="A folder with an app, or a zip of one.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="owner/name or name; the file's by default.", autocompletion=complete_model),
    ] = None,
    description: Annotated[str, typer.Option(help="Some words for people.")] = "",
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Watch the build until it has ended.")] = True,
) -> None:
    """Upload an app, watch its build, and print where it answers.

    Examples:
      modelyard upload ./fruit
      modelyard upload fruit.zip --model ada/fruit --description "Sorts fruit" --json
    """
    if not path.exists():
        raise Failure(
            ExitCode.USAGE, "nothing_to_upload", f"There is no file or folder {path}.", "Name a folder with an app, or a zip of it."
        )
    resolved = path.resolve()
    owner, name = parse_model(invocation, model or suggest(resolved.name if path.is_dir() else resolved.stem))
    with invocation.connect() as client:
        taken = send(invocation, client, path, owner, name, description)
        if wait and taken.build_id and taken.status != "ready":
            taken = _watched(invocation, client, taken)
    where = urljoin(invocation.url(), taken.url or f"/m/{owner}/{name}/")
    document = taken.model_dump(mode="json") | {"url": where}
    invocation.screen.answer(document, f"{taken.status}  {owner}/{name}  version {taken.version}  {where}")


def send(invocation: Invocation, client: "Client", path: Path, owner: str, name: str, description: str = "") -> "Upload":
    """Pack a folder where it is one, and send it with a bar of progress."""
    from modelyard.client.zipping import packed  # noqa: PLC0415 - loads the HTTP client's package

    screen = invocation.screen
    with packed(path) as package:
        for left_out in package.left_out:
            screen.say(f"left out: {left_out}", style="dim")
        with screen.bytes_bar(f"uploading {package.name} as {owner}/{name}") as on_bytes:
            taken = client.upload(package.zip_file, owner, name, description, on_bytes=on_bytes, file_name=package.name)
    if taken.duplicate:
        screen.say(f"these bytes are version {taken.version} already")
    return taken


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    command(app, "upload")(upload)


def _watched(invocation: Invocation, client: "Client", taken: "Upload") -> "Upload":
    build = watch(invocation.screen, client, taken.build_id or "")
    if build.status in FAILED_STATUS:
        raise failed(build)
    return taken.model_copy(update={"status": "ready", **_made(client, taken)})


def _made(client: "Client", taken: "Upload") -> dict[str, str | None]:
    """What has a name only now: its image and its container. Nothing where somebody has deleted or replaced it meanwhile."""
    from modelyard.client import ProblemError  # noqa: PLC0415 - loads the HTTP client's package

    try:
        row = client.model(taken.username, taken.model_name)
    except ProblemError:
        return {}
    return {"docker_image": row.docker_image, "docker_container_id": row.docker_container_id} if row.id == taken.id else {}
