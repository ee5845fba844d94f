"""The AsyncAPI 3.0 document of every event: channels, operations, messages with their schemas, and an example of each."""

from typing import Any

from modelyard.domain.causes import REQUEST_ID, TRACEPARENT
from modelyard.domain.events import (
    EVENTS,
    Event,
    ModelBuildFailed,
    ModelCrashed,
    ModelDeleted,
    ModelFrozen,
    ModelReleased,
    ModelStarted,
    ModelStopped,
    ModelUploaded,
)

ASYNCAPI = "3.0.0"
KAFKA_BINDING = "0.5.0"
JSON = "application/json"

_MODEL = "019a2b3c-0000-7000-8000-000000000001"
_UPLOAD = "019a2b3c-0000-7000-8000-000000000002"
_VERSION: dict[str, Any] = {"upload_id": _UPLOAD, "username": "testuser", "model_name": "test-model", "version": 1, "model_id": _MODEL}

EXAMPLES: tuple[Event, ...] = (
    ModelUploaded(**_VERSION, description="Sorts fruit.", sha256="ab" * 32, runtime="process", build_s=4.2),
    ModelBuildFailed(
        **_VERSION, build_id="019a2b3c-0000-7000-8000-000000000003", reason="install_failed", mend="Correct requirements.txt, line 3."
    ),
    ModelDeleted(**_VERSION, last=True),
    ModelReleased(**_VERSION),
    ModelStarted(**_VERSION, instance="i-test-model-1", start_s=0.8),
    ModelFrozen(**_VERSION, instance="i-test-model-1"),
    ModelStopped(**_VERSION, instance="i-test-model-1", reason="idle"),
    ModelCrashed(**_VERSION, instance="i-test-model-1", reason="oom_killed", retry_after_s=4),
)
"""One of each kind."""


def document(version: str, partitions: int) -> dict[str, Any]:
    """The document, ready to be written as JSON.

    Args:
        version: Of Modelyard.
        partitions: Of each topic.

    Source: AsyncAPI 3.0.0; Kafka bindings 0.5.0; CloudEvents 1.0, Kafka protocol binding in binary mode.
    """
    topics = sorted({event.topic for event in EVENTS})
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "Modelyard events",
            "version": version,
            "description": "What happens to models. At least once, in order per model; consumers know an event by `ce_id`. "
            "Fields are only ever added.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON,
        "channels": {topic: _channel_object(topic, partitions) for topic in topics},
        "operations": {f"publish-{topic}": _operation(topic) for topic in topics},
        "components": {
            "messages": {example.__class__.__name__: _message(example) for example in EXAMPLES},
            "schemas": {event.__name__: event.model_json_schema(mode="serialization") for event in EVENTS},
        },
    }


def value_of(event: Event) -> dict[str, Any]:
    """The value on the wire, before it is encoded."""
    return {"event": event.wire_name, "data": event.model_dump(mode="json")}


def _of(topic: str) -> list[type[Event]]:
    return [event for event in EVENTS if event.topic == topic]


def _channel_object(topic: str, partitions: int) -> dict[str, Any]:
    return {
        "address": topic,
        "description": "One record an event; its key is the model's id.",
        "messages": {event.__name__: {"$ref": f"#/components/messages/{event.__name__}"} for event in _of(topic)},
        "bindings": {"kafka": {"topic": topic, "partitions": partitions, "bindingVersion": KAFKA_BINDING}},
    }


def _operation(topic: str) -> dict[str, Any]:
    channel = f"#/channels/{topic}"
    return {
        "action": "send",
        "channel": {"$ref": channel},
        "summary": "Modelyard tells what has happened.",
        "messages": [{"$ref": f"{channel}/messages/{event.__name__}"} for event in _of(topic)],
    }


def _message(example: Event) -> dict[str, Any]:
    event = type(example)
    return {
        "name": event.wire_name,
        "title": event.__name__,
        "summary": (event.__doc__ or "").strip(),
        "contentType": JSON,
        "headers": _headers(event.wire_name),
        "payload": {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {"type": "string", "const": event.wire_name},
                "data": {"$ref": f"#/components/schemas/{event.__name__}"},
            },
        },
        "bindings": {"kafka": {"key": {"type": "string", "format": "uuid"}, "bindingVersion": KAFKA_BINDING}},
        "examples": [{"name": event.__name__, "headers": _example_headers(example), "payload": value_of(example)}],
    }


def _headers(wire_name: str) -> dict[str, Any]:
    text = {"type": "string"}
    always: dict[str, Any] = {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {"type": "string", "format": "uuid"},
        "ce_type": {"type": "string", "const": wire_name},
        "ce_source": text,
        "ce_subject": {"type": "string", "format": "uuid", "description": "The model's id, as the record's key."},
        "ce_owner": {"type": "string", "description": "The username whose model it is."},
        "ce_time": {"type": "string", "format": "date-time"},
        "content-type": {"type": "string", "const": JSON},
    }
    caused: dict[str, Any] = {
        REQUEST_ID: {"type": "string", "description": "The request that it goes back to, where there was one."},
        TRACEPARENT: {"type": "string", "description": "W3C Trace Context, where a request or a build is at its beginning."},
    }
    return {"type": "object", "required": list(always), "properties": always | caused}


def _example_headers(example: Event) -> dict[str, str]:
    return {
        "ce_specversion": "1.0",
        "ce_id": "019a2b3c-0000-7000-8000-000000000004",
        "ce_type": example.wire_name,
        "ce_source": "modelyard",
        "ce_subject": example.key,
        "ce_owner": example.owner,
        "ce_time": "2026-01-02T03:04:05.678Z",
        "content-type": JSON,
        REQUEST_ID: "019a2b3c-0000-7000-8000-000000000005",
        TRACEPARENT: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
