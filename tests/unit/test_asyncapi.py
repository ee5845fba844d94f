"""The AsyncAPI document against AsyncAPI's own schema, every example and every sent event against theirs, and the promised value."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, FormatChecker
from sqlalchemy import select

from modelyard.bus.bus import PARTITIONS
from modelyard.domain import causes
from modelyard.domain.asyncapi import EXAMPLES, document, value_of
from modelyard.domain.causes import Cause, new_trace
from modelyard.domain.events import EVENTS, Event, ModelUploaded
from modelyard.store import outbox
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.tables import OutboxRow

SPECIFICATION = Path(__file__).parents[1] / "asyncapi" / "3.0.0.json"
DOCUMENT = document("1.2.3", PARTITIONS)
FORMATS = FormatChecker()
OWN = pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.wire_name)


@FORMATS.checks("date-time", ValueError)
def is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@pytest.fixture(scope="module")
def specification() -> Draft7Validator:
    schema = json.loads(SPECIFICATION.read_text())
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema, format_checker=FORMATS)


def resolved(ref: str) -> Any:
    """What the reference leads to within the document, following one that it meets (RFC 6901)."""
    here: Any = DOCUMENT
    for part in ref.removeprefix("#/").split("/"):
        here = here[part.replace("~1", "/").replace("~0", "~")]
        if set(here) == {"$ref"}:
            here = resolved(here["$ref"])
    return here


def message_of(event: type[Event]) -> dict[str, Any]:
    (found,) = (each for each in DOCUMENT["components"]["messages"].values() if each["name"] == event.wire_name)
    return dict(found)


def wrong(value: Any, event: type[Event], part: str = "payload") -> list[str]:
    """Where the value breaks the schema of the event's message."""
    schema = {"$ref": f"#/components/messages/{event.__name__}/{part}", "components": DOCUMENT["components"]}
    return [f"{each.json_path}: {each.message}" for each in Draft7Validator(schema, format_checker=FORMATS).iter_errors(value)]


def test_the_document_keeps_the_specification_s_own_schema(specification: Draft7Validator) -> None:
    assert [f"{each.json_path}: {each.message}" for each in specification.iter_errors(DOCUMENT)] == []


@pytest.mark.parametrize(
    "harm",
    [
        lambda found: found.pop("info"),
        lambda found: found["operations"]["publish-model-events"].update(action="shout"),
        lambda found: found["channels"]["model-events"]["bindings"]["kafka"].update(partitions="6"),
        lambda found: found["components"]["messages"]["ModelUploaded"].update(colour="red"),
    ],
    ids=["no info", "action", "binding", "unknown member"],
)
def test_a_document_that_is_harmed_does_not_keep_it(specification: Draft7Validator, harm: Callable[[Any], object]) -> None:
    harmed = copy.deepcopy(DOCUMENT)
    harm(harmed)

    assert not specification.is_valid(harmed)


def test_every_schema_of_an_event_is_a_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)


def test_every_reference_leads_somewhere_and_an_operation_s_messages_are_those_of_its_channel() -> None:
    refs = re.findall(r'"\$ref": "([^"]+)"', json.dumps(DOCUMENT))
    assert refs
    assert all(resolved(ref) for ref in refs)
    for operation in DOCUMENT["operations"].values():
        channel = operation["channel"]["$ref"]
        assert channel.startswith("#/channels/"), "an operation's channel is one of the document's root"
        assert {each["$ref"] for each in operation["messages"]} == {f"{channel}/messages/{name}" for name in resolved(channel)["messages"]}


def test_every_event_is_a_message_on_the_channel_of_its_topic() -> None:
    assert [type(example) for example in EXAMPLES] == list(EVENTS)
    for event in EVENTS:
        (channel,) = (each for each in DOCUMENT["channels"].values() if each["address"] == event.topic)
        assert event.__name__ in channel["messages"]
        assert channel["bindings"]["kafka"]["partitions"] == PARTITIONS
        assert message_of(event)["title"] == event.__name__
        assert message_of(event)["summary"]
        assert message_of(event)["headers"]["type"] == "object", "says the specification, and its schema does not"


@OWN
def test_every_example_keeps_its_own_schema_and_no_other_event_s(example: Event) -> None:
    (shown,) = message_of(type(example))["examples"]

    assert wrong(shown["payload"], type(example)) == []
    assert wrong(shown["headers"], type(example), "headers") == []
    assert shown["payload"] == value_of(example)
    assert set(shown["payload"]["data"]) == set(type(example).model_fields)
    assert all(wrong(shown["payload"], event) for event in EVENTS if event is not type(example))


def test_a_field_that_is_missing_or_of_another_type_is_against_the_schema() -> None:
    good = value_of(EXAMPLES[0])
    for broken, where in (
        (
            good | {"data": {name: value for name, value in good["data"].items() if name != "upload_id"}},
            "$.data: 'upload_id' is a required",
        ),
        (good | {"data": good["data"] | {"version": "1"}}, "$.data.version: '1' is not of type 'integer'"),
        (good | {"data": good["data"] | {"status": "half"}}, "$.data.status: 'ready' was expected"),
        (good | {"data": good["data"] | {"docker_image": 3}}, "$.data.docker_image: 3 is not valid under any"),
        ({"event": "model.uploaded"}, "$: 'data' is a required"),
    ):
        (found,) = wrong(broken, ModelUploaded)
        assert found.startswith(where)


@pytest.fixture
def yard(tmp_path: Path, blank_database: Path) -> Path:
    """A database of this test's own."""
    return shutil.copy(blank_database, tmp_path / "yard.db")


def sent(example: Event, path: Path, cause: Cause | None) -> OutboxRow:
    """The event as the outbox of this file has it after a change that goes back to this cause."""
    database = Database(sqlite_url(path), Doorbell())
    before = causes.enter(cause)
    with database.write() as session:
        outbox.append(session, example, 1_767_323_045.678)
    causes.leave(before)
    with database.read() as session:
        row = session.scalars(select(OutboxRow)).one()
    database.close()
    return row


@OWN
def test_what_the_outbox_really_sends_keeps_the_schemas(example: Event, yard: Path) -> None:
    row = sent(example, yard, None)
    message = message_of(type(example))

    assert wrong(json.loads(row.value), type(example)) == []
    assert wrong(row.headers, type(example), "headers") == []
    assert set(row.headers) == set(message["headers"]["required"])
    assert FORMATS.conforms(row.key, message["bindings"]["kafka"]["key"]["format"])


def test_what_goes_back_to_a_request_says_so_and_has_all_headers_of_the_schema(yard: Path) -> None:
    cause = Cause("req-1", new_trace())
    row = sent(EXAMPLES[0], yard, cause)

    assert wrong(row.headers, ModelUploaded, "headers") == []
    assert set(row.headers) == set(message_of(ModelUploaded)["headers"]["properties"])
    assert row.headers["traceparent"] == cause.trace.header
    assert row.headers["ce_requestid"] == "req-1"


def test_the_value_of_model_uploaded_is_the_guide_s_byte_for_byte() -> None:
    # As the guide prints it, with what Modelyard adds behind its last field.
    guide = (
        '{"event":"model.uploaded","data":{"upload_id":"019a2b3c-0000-7000-8000-000000000002","username":"testuser",'
        '"model_name":"test-model","description":"Sorts fruit.","docker_image":"ml-models/testuser/test-model:latest",'
        '"docker_container_id":"0123456789ab","status":"ready"'
    )
    example = EXAMPLES[0]
    assert isinstance(example, ModelUploaded)
    value = outbox.encode(
        example.model_copy(update={"docker_image": "ml-models/testuser/test-model:latest", "docker_container_id": "0123456789ab"})
    )

    assert value.startswith(guide.encode())
    assert (
        value[len(guide) :]
        == (
            f',"version":1,"sha256":"{"ab" * 32}","runtime":"process","build_s":4.2,"model_id":"019a2b3c-0000-7000-8000-000000000001"}}}}'
        ).encode()
    )
