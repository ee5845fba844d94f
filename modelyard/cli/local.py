"""Commands on this machine's own Modelyard: up, token, migrate, config show."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from platformdirs import user_data_path

from modelyard.cli.command import Reach, RuntimeFlag, command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.screen import Screen

if TYPE_CHECKING:
    from modelyard.embedded import Running


def up(
    invocation: Invocation,
    host: Annotated[str | None, typer.Option(help="The address to listen on. [default: 127.0.0.1]", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The port. [default: 8080]", show_default=False)] = None,
    *,
    runtime: RuntimeFlag = None,
    trust_uploads: Annotated[bool, typer.Option("--trust-uploads", help="Run uploads without a sandbox; only for your own code.")] = False,
) -> None:
    """Start Modelyard here, in one process, until Ctrl-C.

    Examples:
      modelyard up --port 9000 --data ./yard
      modelyard up --runtime docker
    """
    from modelyard import embedded  # noqa: PLC0415 - loads the whole server

    settings = invocation.settings(host=host, port=port, runtime=runtime, trust_uploads=trust_uploads or None)
    screen = invocation.screen
    code = embedded.up(settings, announce=lambda running: _announce(screen, running))
    raise typer.Exit(code)


def token(
    invocation: Invocation, *, link: Annotated[bool, typer.Option("--link", help="A one-time link that signs a browser in.")] = False
) -> None:
    """Print the token in use, or a one-time link for a browser.

    It is the one that was named, else a fresh one of the log-in at the server, else the owner's key of the data folder.

    Examples:
      modelyard token
      modelyard token --link
    """
    if link:
        with invocation.connect() as client:
            url = client.first_link()
        invocation.screen.answer({"url": url}, url)
        return
    found = invocation.current_token()
    if found is None:
        where = f"for {invocation.server}" if invocation.server else f"in {invocation.folder}"
        mend = f"modelyard login --server {invocation.server}" if invocation.server else "modelyard up"
        raise Failure(ExitCode.NOT_READY, "no_token", f"There is no token {where} yet.", mend)
    invocation.screen.answer({"token": found}, found)


def migrate(
    invocation: Invocation,
    *,
    roles: Annotated[bool, typer.Option("--roles", help="Also make a Postgres role for each service, with the least rights.")] = False,
    log_ins: Annotated[
        Path | None, typer.Option("--log-ins", metavar="DIR", help="As --roles, with a log-in for each service; DIR gets their passwords.")
    ] = None,
) -> None:
    """Bring the database to the newest schema.

    Examples:
      modelyard migrate
      modelyard migrate --roles
    """
    from modelyard.store.database import Database, sqlite_url  # noqa: PLC0415 - loads the database's library
    from modelyard.store.doorbell import Doorbell  # noqa: PLC0415 - as the line before
    from modelyard.store.log_ins import make_log_ins  # noqa: PLC0415 - as the line before
    from modelyard.store.migrations import migrate as apply  # noqa: PLC0415 - as the line before
    from modelyard.store.roles import grant  # noqa: PLC0415 - as the line before

    settings = invocation.settings()
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(Database(settings.database_url or sqlite_url(settings.data / "modelyard.db"), Doorbell())) as database:
        database.wait_until_ready(settings.database_wait_s)
        revision = apply(database.url)
        made = make_log_ins(database, log_ins) if log_ins else grant(database) if roles else ()
    invocation.screen.answer({"revision": revision, "roles": list(made)}, revision)


def show_config(invocation: Invocation) -> None:
    """Show every setting and where it came from.

    Examples:
      modelyard config show
      modelyard config show --json
    """
    from modelyard.run.settings import explain  # noqa: PLC0415 - loads the settings' library

    sources = explain(invocation.settings(), ("data",) if invocation.data else ())
    document = [{"name": each.name, "value": each.value, "source": each.source} for each in sources]
    rows = [(each.name, each.value, each.source) for each in sources]
    invocation.screen.table(document, ("setting", "value", "source"), rows)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    command(app, "up", Reach.HERE)(up)
    command(app, "token")(token)
    command(app, "migrate", Reach.HERE)(migrate)
    config = typer.Typer()
    command(config, "show", Reach.HERE)(show_config)
    app.add_typer(config, name="config", help="Settings and their sources.")


def _announce(screen: Screen, running: "Running") -> None:
    told = {"url": running.url, "first_link": running.first_link, "data": str(running.data), "warnings": list(running.warnings)}
    told["weights_missing"] = list(running.awaited)
    for warning in running.warnings:
        screen.say(f"warning: {warning}", style="yellow")
    screen.answer(told, running.url)
    screen.say(f"  open      {running.first_link}  (works once)")
    screen.say(f"  data      {running.data}")
    here = "" if running.data == user_data_path("modelyard") else f" --data {running.data}"
    screen.say(f"  token     modelyard token{here}")
    screen.say(f"  upload    modelyard upload DIR{here}")
    for name in running.awaited:
        screen.say(f"  {name:<9} modelyard models pull {name}{here}  (its weights are not here yet)")
    screen.say("  end       Ctrl-C")
