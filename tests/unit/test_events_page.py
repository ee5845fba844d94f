"""The page for those who build on events says what is so."""

import json
import re
from pathlib import Path

from modelyard.bus.bus import ATTEMPTS, PARTITIONS, dead_letter_topic
from modelyard.domain.asyncapi import EXAMPLES, document, value_of
from modelyard.domain.events import EVENTS, MODEL_EVENTS
from modelyard.store import outbox
from modelyard.store.outbox_relay import KEEP_INBOX_S, KEEP_OUTBOX_S

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
DAY_S = 86400


def blocks(language: str) -> list[str]:
    """The blocks of code in this language."""
    return re.findall(rf"```{language}\n(.*?)\n```", PAGE, re.DOTALL)


def test_every_event_has_its_section_with_the_example_of_the_document() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == [event.wire_name for event in EVENTS]
    assert [json.loads(block) for block in blocks("json")] == [value_of(example) for example in EXAMPLES]
    assert [block.encode() for block in blocks("json")] == [outbox.encode(example) for example in EXAMPLES]


def test_every_header_of_the_document_is_in_the_table_with_its_example() -> None:
    messages = document("1.2.3", PARTITIONS)["components"]["messages"]
    shown = messages["ModelUploaded"]["examples"][0]["headers"]

    assert dict(re.findall(r"^\| `([a-z_-]+)` \| `(.*?)` \|", PAGE, re.MULTILINE)) == shown


def test_its_numbers_and_names_are_those_in_force() -> None:
    assert f"`{MODEL_EVENTS}`, {PARTITIONS} partitions" in PAGE
    assert f"Keep ids for {KEEP_INBOX_S // DAY_S} days" in PAGE
    assert f"outbox for {KEEP_OUTBOX_S // DAY_S} days" in PAGE
    assert f"`{dead_letter_topic(MODEL_EVENTS, 'GROUP')}`" in PAGE
    assert ATTEMPTS == 3
    assert "fails three times" in PAGE


def test_the_consumer_has_ten_lines() -> None:
    (consumer,) = blocks("python")

    assert len([line for line in consumer.splitlines() if line]) == 10
    assert "modelyard" not in consumer
