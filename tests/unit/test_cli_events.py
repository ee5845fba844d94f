"""The commands on events, on a data folder whose server is not running."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from parts.kafka import Kafka
from sqlalchemy import select, update
from typer.testing import CliRunner, Result

from modelyard import __version__
from modelyard.bus.bus import PARTITIONS, Delivered, Record
from modelyard.bus.inspection import DeadLetters, LocalTail
from modelyard.bus.local import LocalBus
from modelyard.cli.main import app
from modelyard.domain.asyncapi import EXAMPLES, document
from modelyard.store import outbox
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.outbox_relay import OutboxRelay
from modelyard.store.tables import DeadLetterRow, OutboxRow

Run = Callable[..., Result]
COMMANDS = ("tail", "replay", "dlq list", "dlq retry", "asyncapi")
HOUR = 3600.0
NEW_YEAR = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""


class CollectingBus:
    """A bus that only notes what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def publish(self, records: Sequence[Record]) -> None:
        self.records += records

    def deliver(self, *_: object) -> bool:
        return False


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(data: Path) -> Run:
    runner = CliRunner(env={"MODELYARD_DATA": str(data), "NO_COLOR": "1", "MODELYARD_BUS": None, "MODELYARD_DATABASE_URL": None})
    return lambda *words, **more: runner.invoke(app, ["events", *words], **more)


@pytest.fixture
def database(data: Path, blank_database: Path) -> Iterator[Database]:
    data.mkdir()
    shutil.copy(blank_database, data / "modelyard.db")
    database = Database(sqlite_url(data / "modelyard.db"), Doorbell())
    yield database
    database.close()


def tell(database: Database, count: int) -> list[str]:
    """Events an hour apart from the new year on, published; their ids."""
    with database.write() as session:
        ids = [outbox.append(session, EXAMPLES[n % len(EXAMPLES)], NEW_YEAR + n * HOUR) for n in range(count)]
    OutboxRelay(database, LocalBus(database, lambda: NEW_YEAR), lambda: NEW_YEAR).step()
    return ids


def unpublished(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(OutboxRow.id).where(OutboxRow.published_at.is_(None)).order_by(OutboxRow.seq)))


def bury(database: Database, **headers: str) -> str:
    letters = DeadLetters(database, lambda: NEW_YEAR)
    before = {each.id for each in letters.all()}
    letters.bury("inference", Delivered("model-events", "key", b'{"event": "x"}', headers, 3, 14, 3), ValueError("on \x1b[31mpurpose"))
    (fresh,) = {each.id for each in letters.all()} - before
    return fresh


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_two_examples(run: Run, name: str) -> None:
    told = run(*name.split(), "-h")

    assert told.exit_code == 0
    assert told.stdout.partition("Options")[0].partition("Examples:")[2].count(f"modelyard events {name}") == 2


@pytest.mark.parametrize(
    "words", [("tail", "--bus", "--no-follow"), ("replay", "--from", "1h"), ("dlq", "list"), ("dlq", "retry", "--all")]
)
def test_a_folder_without_a_database_is_not_ready(run: Run, data: Path, words: tuple[str, ...]) -> None:
    ended = run(*words)

    assert ended.exit_code == 5
    assert ended.stderr.splitlines()[-1] == f"Try: modelyard up --data {data}"
    assert not data.exists()


def test_tail_tells_all_that_is_there_a_line_each(run: Run, database: Database) -> None:
    ids = tell(database, 3)
    lines = run("tail", "--bus", "--no-follow").stdout.splitlines()
    documents = [json.loads(line) for line in run("tail", "--bus", "--no-follow", "--json").stdout.splitlines()]

    assert [line.split()[:2] for line in lines] == [
        ["2026-01-01T00:00:00.000Z", "model.uploaded"],
        ["2026-01-01T01:00:00.000Z", "model.build_failed"],
        ["2026-01-01T02:00:00.000Z", "model.deleted"],
    ]
    assert [each["headers"]["ce_id"] for each in documents] == ids
    assert documents[0]["value"]["data"]["model_name"] == "test-model"
    assert {each["key"] for each in documents} == {EXAMPLES[0].key}


def test_tail_follows_what_comes_and_leaves_out_what_was(database: Database) -> None:
    tell(database, 2)
    tail = LocalTail(database, ["model-events"], from_start=False)
    assert (tail.caught_up(), tail.read(0.0)) == (True, [])
    teller = threading.Timer(0.1, tell, (database, 1))
    teller.start()
    found = tail.read(20.0)
    teller.join()

    assert len(found) == 1
    assert tail.read(0.0) == []


def test_tail_shows_no_control_characters_and_takes_a_value_that_is_no_json(run: Run, database: Database) -> None:
    LocalBus(database, lambda: 0.0).publish([Record("model-events", "k", b"\x1b[31m\xff", {})])

    assert run("tail", "--bus", "--no-follow").stdout == "-  -  k  [31m�\n"
    assert json.loads(run("tail", "--bus", "--no-follow", "--json").stdout)["value"] == "\x1b[31m�"


@pytest.mark.parametrize("words", [("--bus", "--after", "c1"), ("--bus", "-n", "3"), ("--all", "-n", "3")])
def test_a_tail_that_is_asked_for_what_it_cannot_tell_is_a_wrong_call(run: Run, database: Database, words: tuple[str, ...]) -> None:
    ended = run("tail", "--no-follow", *words)

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith("Try: ")


@pytest.mark.kafka
def test_tail_on_kafka_reads_what_is_on_the_topic(run: Run, database: Database, kafka_broker: Kafka) -> None:
    from modelyard.bus.kafka import KafkaBus  # noqa: PLC0415 - its library is there only where Kafka is

    there = {"MODELYARD_BUS": "kafka", "MODELYARD_KAFKA__BOOTSTRAP": kafka_broker.bootstrap}
    ids = tell(database, 3)
    with database.write() as session:
        session.execute(update(OutboxRow).values(published_at=None))
    bus = KafkaBus(kafka_broker.bootstrap, database, float)
    OutboxRelay(database, bus, lambda: NEW_YEAR).step()
    bus.close()
    told = run("tail", "--bus", "--no-follow", "--json", env=there)
    found = [json.loads(line)["headers"]["ce_id"] for line in told.stdout.splitlines()]

    # The broker is everybody's: others may have told of their models as well.
    assert (told.exit_code, [each for each in found if each in ids]) == (0, ids)


@pytest.mark.kafka
def test_tail_says_that_kafka_is_away(run: Run, database: Database) -> None:
    ended = run("tail", "--bus", env={"MODELYARD_BUS": "kafka", "MODELYARD_KAFKA__BOOTSTRAP": "127.0.0.1:1"})

    assert ended.exit_code == 5
    assert "kafka.bootstrap" in ended.stderr


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (("--from", "2026-01-01T00:00:00Z"), slice(0, 5)),
        (("--from", "2026-01-01T01:00:00Z"), slice(1, 5)),
        (("--from", "2026-01-01T02:00:00+01:00", "--to", "2026-01-01T03:00:00Z"), slice(1, 3)),
        (("--from", "2026-01-01T01:00:01"), slice(2, 5)),
        (("--from", "36500d"), slice(0, 5)),
        (("--from", "1s"), slice(0, 0)),
    ],
)
def test_replay_lets_the_relay_publish_the_events_of_a_time_again_in_their_order(
    run: Run, database: Database, words: tuple[str, ...], chosen: slice
) -> None:
    ids = tell(database, 5)
    assert unpublished(database) == []
    ended = run("replay", *words, "--json")
    expected = ids[chosen]

    assert (ended.exit_code, json.loads(ended.stdout)["events"]) == (0, len(expected))
    assert unpublished(database) == expected
    bus = CollectingBus()
    OutboxRelay(database, bus, lambda: NEW_YEAR).step()
    assert [each.event_id for each in bus.records] == expected


@pytest.mark.parametrize("word", ["yesterday", "12", "h", "-1h", "2026-13-01"])
def test_replay_from_what_is_no_time_is_a_wrong_call(run: Run, database: Database, word: str) -> None:
    ended = run("replay", f"--from={word}")

    assert ended.exit_code == 2
    assert ended.stderr.splitlines()[-1].startswith("Try: ")


def test_dead_letters_are_listed_with_their_error(run: Run, database: Database) -> None:
    assert json.loads(run("dlq", "list", "--json").stdout) == []
    letter = bury(database, ce_id="event-1", ce_type="model.uploaded")
    (told,) = json.loads(run("dlq", "list", "--json").stdout)
    plain = run("dlq", "list").stdout

    assert told == {
        "id": letter,
        "group": "inference",
        "topic": "model-events",
        "partition": 3,
        "offset": 14,
        "key": "key",
        "event": "model.uploaded",
        "event_id": "event-1",
        "attempts": 3,
        "error": "ValueError('on \\x1b[31mpurpose')",
        "at": "2026-01-01T00:00:00Z",
    }
    assert plain.splitlines()[0].split() == ["ID", "GROUP", "EVENT", "KEY", "ATTEMPTS", "AT", "ERROR"]
    assert "\x1b" not in plain


def test_a_dead_letter_that_the_outbox_still_has_is_published_again_from_there(run: Run, database: Database) -> None:
    event_id, other = tell(database, 2)
    letter = bury(database, ce_id=event_id, ce_type="model.uploaded")
    ended = run("dlq", "retry", letter, "--json")

    assert [each["event_id"] for each in json.loads(ended.stdout)] == [event_id]
    assert unpublished(database) == [event_id]
    assert other not in unpublished(database)
    assert DeadLetters(database, float).all() == []


@pytest.mark.parametrize("event_id", ["", "made-up", "x" * 300])
def test_a_dead_letter_that_the_outbox_does_not_know_is_published_with_an_id_that_the_relay_can_mark(
    run: Run, database: Database, event_id: str
) -> None:
    letter = bury(database, ce_id=event_id) if event_id else bury(database)
    assert run("dlq", "retry", "--all").exit_code == 0
    bus = CollectingBus()
    OutboxRelay(database, bus, lambda: NEW_YEAR).step()

    (sent,) = bus.records
    assert (sent.topic, sent.key, sent.value) == ("model-events", "key", b'{"event": "x"}')
    assert sent.event_id == (event_id if event_id == "made-up" else letter)
    with database.read() as session:
        assert session.scalars(select(OutboxRow.id)).all() == [sent.event_id]
        assert session.scalars(select(DeadLetterRow)).all() == []


def test_the_same_event_given_up_by_two_groups_is_published_once(run: Run, database: Database) -> None:
    (event_id,) = tell(database, 1)
    letters = DeadLetters(database, float)
    for group in ("inference", "image", "image"):
        letters.bury(group, Delivered("model-events", "k", b"{}", {"ce_id": event_id}, 0, 0, 3), ValueError())
    ended = run("dlq", "retry", "--all", "--json")

    assert [each["group"] for each in json.loads(ended.stdout)].count("image") == 1
    assert unpublished(database) == [event_id]


@pytest.mark.parametrize(("words", "exit_code"), [((), 2), (("some-id", "--all"), 2), (("no-such-id",), 3)])
def test_retry_of_none_of_all_and_some_or_of_what_is_not_there_fails(
    run: Run, database: Database, words: tuple[str, ...], exit_code: int
) -> None:
    letter = bury(database, ce_id="1")
    ended = run("dlq", "retry", *words)

    assert ended.exit_code == exit_code
    assert ended.stderr.splitlines()[-1] == "Try: modelyard events dlq list"
    assert [each.id for each in DeadLetters(database, float).all()] == [letter]


def test_asyncapi_prints_the_document(run: Run) -> None:
    assert json.loads(run("asyncapi").stdout) == json.loads(run("asyncapi", "--json").stdout) == document(__version__, PARTITIONS)
