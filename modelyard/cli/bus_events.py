"""What an operator does with the bus, on the machine with the data folder: read it, and publish a time's events again."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.screen import Screen, harmless

if TYPE_CHECKING:
    from modelyard.bus.bus import Delivered
    from modelyard.bus.inspection import Tail
    from modelyard.run.settings import Settings
    from modelyard.store.database import Database

_WAIT_S = 0.5
_AGO = re.compile(r"(\d+)([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def tail(invocation: Invocation, *, from_start: bool, follow: bool) -> None:
    """Tell what is on the bus, one record a line.

    Args:
        from_start: Begin with the oldest record that is kept, not with the next one.
        follow: Go on until Ctrl-C.
    """
    settings = invocation.settings()
    with here(settings) as database, closing(_tail(settings, database, from_start=from_start)) as found:
        while follow or not found.caught_up():
            for record in found.read(_WAIT_S):
                typer.echo(_line(invocation.screen, record))


def replay(
    invocation: Invocation,
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="The first moment: 2026-01-02T03:04:05Z, or 90m, 12h, 7d ago.")],
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="The moment after the last.", show_default="now")] = None,
) -> None:
    """Publish the events of a time again, in their order, as after a topic was lost.

    Consumers know what they have had. Events are kept for 7 days.

    Examples:
      modelyard events replay --from 12h
      modelyard events replay --from 2026-01-02T03:04:05Z --to 2026-01-02T04:00:00Z
    """
    from modelyard.store.outbox_relay import rewind  # noqa: PLC0415 - loads the database's library

    now = time.time()
    first, last = _moment(since, now), _moment(until, now) if until else now
    with here(invocation.settings()) as database:
        count = rewind(database, first, last)
    told = {"events": count, "from": rfc3339(first), "to": rfc3339(last)}
    invocation.screen.answer(told, f"{count} events will be published again")
    say_who_publishes(invocation)


@contextmanager
def here(settings: "Settings") -> Iterator["Database"]:
    """The database of this machine's Modelyard, whether it runs or not.

    Raises:
        Failure: `no_database`.
    """
    from modelyard.store.database import Database, sqlite_url  # noqa: PLC0415 - loads the database's library
    from modelyard.store.doorbell import Doorbell  # noqa: PLC0415 - as the line before

    file = settings.data / "modelyard.db"
    if settings.database_url is None and not file.is_file():
        raise Failure(
            ExitCode.NOT_READY, "no_database", f"There is no database in {settings.data} yet.", f"modelyard up --data {settings.data}"
        )
    with closing(Database(settings.database_url or sqlite_url(file), Doorbell())) as database:
        yield database


def say_who_publishes(invocation: Invocation) -> None:
    """Tell that the command itself publishes nothing."""
    invocation.screen.say("  by the server that runs on this database, or by the next that starts")


def rfc3339(at: float) -> str:
    """The time as people and programs read it, to the second.

    Args:
        at: Seconds since 1970.
    """
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _tail(settings: "Settings", database: "Database", *, from_start: bool) -> "Tail":
    from modelyard.domain.events import EVENTS  # noqa: PLC0415 - `--help` need not load the models of events

    topics = sorted({event.topic for event in EVENTS})
    if settings.bus == "kafka":
        from modelyard.bus.kafka_tail import KafkaTail  # noqa: PLC0415 - its library is there only where Kafka is

        return KafkaTail(settings.kafka.bootstrap, topics, from_start=from_start)
    from modelyard.bus.inspection import LocalTail  # noqa: PLC0415 - loads the database's library

    return LocalTail(database, topics, from_start=from_start)


def _line(screen: Screen, record: "Delivered") -> str:
    value = record.value.decode(errors="replace")
    if not screen.as_json:
        return harmless(f"{record.headers.get('ce_time', '-')}  {record.headers.get('ce_type', '-')}  {record.key}  {value}")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "key": record.key}
    return json.dumps({**place, "headers": dict(record.headers), "value": parsed}, ensure_ascii=False)


def _moment(text: str, now: float) -> float:
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS_S[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Failure(ExitCode.USAGE, "no_time", f"{text!r} is no time.", "Write 2026-01-02T03:04:05Z, or 90m, 12h, 7d ago.") from error
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
