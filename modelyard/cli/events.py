"""Commands on events: events list, events tail."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.command import command
from modelyard.cli.invocation import Invocation
from modelyard.cli.screen import harmless

if TYPE_CHECKING:
    from modelyard.client import Event

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
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last events come first.")] = 10,
) -> None:
    """Print events as they happen, until Ctrl-C; under --json one document a line.

    Examples:
      modelyard events tail
      modelyard events tail --json | jq .event
    """
    with invocation.connect() as client:
        before = client.events(after)
        for event in before[len(before) - min(lines, len(before)) :]:
            _print(event, as_json=invocation.as_json)
        for event in client.follow_events(before[-1].cursor if before else after):
            _print(event, as_json=invocation.as_json)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    events = typer.Typer()
    command(events, "list")(list_events)
    command(events, "tail")(tail)
    app.add_typer(events, name="events", help="What happened to your models.")


def _print(event: "Event", *, as_json: bool) -> None:
    typer.echo(json.dumps(_document(event), ensure_ascii=False) if as_json else harmless("  ".join(_row(event))))


def _document(event: "Event") -> dict[str, Any]:
    return event.model_dump(mode="json")


def _row(event: "Event") -> tuple[str, str, str, str]:
    data = event.data
    details = [f"{name}={data[name]}" for name in ("version", "reason", "status") if data.get(name) is not None]
    return event.time, event.event, f"{data.get('username', '')}/{data.get('model_name', '')}", " ".join(details)
