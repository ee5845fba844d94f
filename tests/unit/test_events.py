"""Events: their wire names, their keys, and the very bytes of the one that others were promised."""

import pytest
from pydantic import ValidationError

from modelyard.domain.events import EVENTS, MODEL_EVENTS, Event, ModelDeleted, ModelUploaded
from modelyard.store.outbox import encode

UPLOADED = ModelUploaded(
    model_id="m-1",
    upload_id="v-1",
    username="ada",
    model_name="fruit",
    description='sorts "Früchte"\n',
    version=3,
    sha256="ab" * 32,
    runtime="process",
    build_s=1.5,
)


def test_the_value_of_model_uploaded_begins_with_the_fields_of_the_guide_in_their_order() -> None:
    told = encode(UPLOADED).decode()

    assert told == (
        '{"event":"model.uploaded","data":{"upload_id":"v-1","username":"ada","model_name":"fruit",'
        '"description":"sorts \\"Früchte\\"\\n","docker_image":null,"docker_container_id":null,"status":"ready",'
        f'"version":3,"sha256":"{"ab" * 32}","runtime":"process","build_s":1.5,"model_id":"m-1"}}}}'
    )


def test_every_event_class_is_listed_once_and_has_a_wire_name_of_its_own() -> None:
    assert set(EVENTS) == set(Event.__subclasses__())
    assert len({each.wire_name for each in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.wire_name)
def test_an_event_goes_to_the_topic_of_models_keyed_by_the_model(event: type[Event]) -> None:
    assert event.topic == MODEL_EVENTS
    assert event.wire_name.startswith("model.")
    assert list(event.model_fields)[-1] == "model_id"
    assert {"upload_id", "username", "model_name"} <= set(event.model_fields)


def test_the_key_is_the_model_and_an_event_does_not_change() -> None:
    event = ModelDeleted(model_id="m-9", upload_id="v", username="ada", model_name="fruit", version=1, last=True)

    assert event.key == "m-9"
    with pytest.raises(ValidationError, match="frozen"):
        event.version = 2
