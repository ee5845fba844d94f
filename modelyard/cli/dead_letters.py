"""Commands on dead letters, on the machine with the data folder: events dlq list, events dlq retry."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli import bus_events
from modelyard.cli.command import Reach, command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation

if TYPE_CHECKING:
    from modelyard.bus.inspection import DeadLetter, DeadLetters


def list_dead(invocation: Invocation) -> None:
    """List the events that a consumer gave up after three failures.

    Examples:
      modelyard events dlq list
      modelyard events dlq list --json
    """
    with _letters(invocation) as letters:
        found = letters.all()
    columns = ("id", "group", "event", "key", "attempts", "at", "error")
    invocation.screen.table([_document(each) for each in found], columns, [_cells(each) for each in found])


def retry_dead(
    invocation: Invocation,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which, by their ids.", show_default=False)] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every one.")] = False,
) -> None:
    """Publish events again that a consumer gave up.

    Examples:
      modelyard events dlq retry 019a2b3c-0000-7000-8000-000000000001
      modelyard events dlq retry --all
    """
    if every == bool(ids):
        raise Failure(ExitCode.USAGE, "which_ones", "Name the ids, or say --all.", "modelyard events dlq list")
    with _letters(invocation) as letters:
        there = [each.id for each in letters.all()]
        missing = [each for each in ids or () if each not in there]
        if missing:
            raise Failure(ExitCode.NOT_FOUND, "no_such_letter", f"There is no dead letter {missing[0]}.", "modelyard events dlq list")
        sent = letters.send_again(there if every else ids or [])
    invocation.screen.answer([_document(each) for each in sent], f"{len(sent)} events will be published again")
    bus_events.say_who_publishes(invocation)


def commands() -> typer.Typer:
    """These commands as a group."""
    group = typer.Typer()
    command(group, "list", Reach.HERE)(list_dead)
    command(group, "retry", Reach.HERE)(retry_dead)
    return group


@contextmanager
def _letters(invocation: Invocation) -> Iterator["DeadLetters"]:
    from modelyard.bus.inspection import DeadLetters  # noqa: PLC0415 - loads the database's library

    with bus_events.here(invocation.settings()) as database:
        yield DeadLetters(database, time.time)


def _document(letter: "DeadLetter") -> dict[str, Any]:
    return {
        "id": letter.id,
        "group": letter.group,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": letter.key,
        "event": letter.headers.get("ce_type"),
        "event_id": letter.headers.get("ce_id"),
        "attempts": letter.attempts,
        "error": letter.error,
        "at": bus_events.rfc3339(letter.at),
    }


def _cells(letter: "DeadLetter") -> tuple[str, ...]:
    kind = letter.headers.get("ce_type", "-")
    return (letter.id, letter.group, kind, letter.key, str(letter.attempts), bus_events.rfc3339(letter.at), letter.error)
