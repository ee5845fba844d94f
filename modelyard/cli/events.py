"""Commands on events: list them, watch them, and the document that describes them."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard import __version__
from modelyard.cli import bus_events, dead_letters
from modelyard.cli.command import Reach, command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.screen import harmless

if TYPE_CHECKING:
    from modelyard.client import Event

LINES = 10

After = Annotated[str | None, typer.Option(metavar="CURSOR", help="Only what came after this event, as --json shows it.")]


def list_events(invocation: Invocation, after: After = None) -> None:
    """List what happened to your models, the oldest first.

    Examples:
      modelyard events list
      modelyard events list --json --after MTc2MzczMDAwMC4wIDc
    """
    with invocation.connect() as client:
        events = client.events(after)
    invocation.screen.table([_document(each) for each in events], ("time", "event", "model", "details"), [_row(each) for each in events])


def tail(
    invocation: Invocation,
    after: After = None,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, help="How many of the last events come first.", show_default=str(LINES))
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Begin with the oldest event that is kept.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until Ctrl-C, or end with what is there.")] = True,
    bus: Annotated[
        bool, typer.Option("--bus", help="Read the bus itself, on this machine: everybody's events, and how they travel.")
    ] = False,
) -> None:
    """Print events as they happen, one a line; under --json one document a line.

    The server tells of your models; the bus begins with the next event, without --follow with the oldest.

    Examples:
      modelyard events tail --json | jq .event
      modelyard events tail --bus --no-follow
    """
    if every and lines is not None:
        raise Failure(ExitCode.USAGE, "all_or_some", "--all and --lines contradict each other.", "Say one of them.")
    if not bus:
        _tail(invocation, after, None if every else LINES if lines is None else lines, follow=follow)
        return
    if after is not None or lines is not None:
        raise Failure(ExitCode.USAGE, "no_cursor", "The bus knows neither cursors nor lines.", "Leave out --after and --lines, or --bus.")
    bus_events.tail(invocation, from_start=every or not follow, follow=follow)


def show_asyncapi(invocation: Invocation) -> None:
    """Print the AsyncAPI document of all events.

    Examples:
      modelyard events asyncapi
      modelyard events asyncapi > asyncapi.json
    """
    from modelyard.bus.bus import PARTITIONS  # noqa: PLC0415 - `--help` need not load the models of events
    from modelyard.domain.asyncapi import document  # noqa: PLC0415 - as the line before

    told = document(__version__, PARTITIONS)
    invocation.screen.answer(told, json.dumps(told, ensure_ascii=False, indent=2))


def register(app: typer.Typer) -> None:
    """Add these commands to the program, with those of an operator."""
    events = typer.Typer()
    command(events, "list")(list_events)
    command(events, "tail")(tail)
    command(events, "replay", Reach.HERE)(bus_events.replay)
    events.add_typer(dead_letters.commands(), name="dlq", help="Events that a consumer gave up.")
    command(events, "asyncapi", Reach.HERE)(show_asyncapi)
    app.add_typer(events, name="events", help="What happened to models: watch it, tell it again.")


def _tail(invocation: Invocation, after: str | None, lines: int | None, *, follow: bool) -> None:
    with invocation.connect() as client:
        before = client.events(after)
        for event in before if lines is None else before[len(before) - min(lines, len(before)) :]:
            _print(event, as_json=invocation.as_json)
        if not follow:
            return
        for event in client.follow_events(before[-1].cursor if before else after):
            _print(event, as_json=invocation.as_json)


def _print(event: "Event", *, as_json: bool) -> None:
    typer.echo(json.dumps(_document(event), ensure_ascii=False) if as_json else harmless("  ".join(_row(event))))


def _document(event: "Event") -> dict[str, Any]:
    return event.model_dump(mode="json")


def _row(event: "Event") -> tuple[str, str, str, str]:
    data = event.data
    details = [f"{name}={data[name]}" for name in ("version", "reason", "status") if data.get(name) is not None]
    return event.time, event.event, f"{data.get('username', '')}/{data.get('model_name', '')}", " ".join(details)
