"""The consumer of the page on events, run as it stands there beside a real Kafka."""

import ast
import re
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from parts.kafka import Kafka

from modelyard.bus.bus import Record
from modelyard.bus.kafka import KafkaBus
from modelyard.domain.asyncapi import EXAMPLES
from modelyard.domain.events import MODEL_EVENTS
from modelyard.store import outbox
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import migrate

pytestmark = pytest.mark.kafka

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
DEADLINE_S = 60


def consumer(bootstrap: str) -> str:
    """The page's program, for this broker and a group of its own."""
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for shown, own in (("localhost:9092", bootstrap), ("my-service", f"page-{uuid.uuid4()}")):
        assert shown in found
        found = found.replace(shown, own)
    return str(found)


def test_the_page_s_consumer_prints_what_modelyard_tells(tmp_path: Path, kafka_broker: Kafka) -> None:
    url = sqlite_url(tmp_path / "yard.db")
    migrate(url)
    database = Database(url, Doorbell())
    owner = f"reader-{uuid.uuid4().hex[:8]}"
    event = EXAMPLES[0].model_copy(update={"username": owner})
    bus = KafkaBus(kafka_broker.bootstrap, database, lambda: 0.0)
    try:
        bus.prepare([MODEL_EVENTS])
        bus.publish([Record(MODEL_EVENTS, event.key, outbox.encode(event), {"ce_id": str(uuid.uuid4())})])
        with subprocess.Popen([sys.executable, "-c", consumer(kafka_broker.bootstrap)], stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout is not None
            deadline = threading.Timer(DEADLINE_S, reader.kill)
            deadline.start()
            # The topic may hold what other tests told.
            told = next((line for line in reader.stdout if owner in line), "nothing in time")
            deadline.cancel()
            reader.kill()
    finally:
        bus.close()
        database.close()

    said = ast.literal_eval(told)
    assert (said["event"], said["data"]["username"], said["data"]["model_name"]) == ("model.uploaded", owner, "test-model")
