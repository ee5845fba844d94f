"""Spans on their way to a collector: one trace from the front door through the event to the consumer, and nothing where none is set."""

import subprocess
import sys
from collections.abc import Callable

import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from parts.collector import Collector, collecting
from sqlalchemy import select
from stage import Stage, form, until

from modelyard.domain.causes import new_trace
from modelyard.domain.errors import Invalid
from modelyard.run.service import Service
from modelyard.run.settings import load_settings
from modelyard.store.tables import InboxRow, OutboxRow
from modelyard.web.access import Action, Guarded, Receive, Scope, Send
from modelyard.web.app import create_app

LOOPS = ("builds", "relay", "consume", "delete")


def told(span: Span) -> dict[str, object]:
    """The span's attributes."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stands where models answer, and does not."""
    raise RuntimeError("broken")


def delete_a_model(stage: Stage, collector: Collector) -> tuple[str, httpx2.Response]:
    """The trace of a caller who deletes a model through the front door while everything runs, and the answer."""
    place = new_trace()
    with stage.live(*LOOPS) as url:
        headers = {"authorization": f"Bearer {stage.auth.key.text}"}
        with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
            until(stage.events, "the version is built")
            answer = client.delete("/models/ada/fruit", headers={"traceparent": place.header, "prefer": "respond-async"})
            until(lambda: stage.count(InboxRow) == 2, "both events had their effect")  # of the upload, and of the deletion
    return place.trace_id, answer


def test_one_trace_goes_from_the_front_door_through_the_event_to_the_consumer(make_stage: Callable[..., Stage]) -> None:
    with collecting() as collector:
        stage = make_stage(**{"otel.endpoint": collector.url, "upload.delete_wait_s": 0})
        stage.upload()
        trace_id, answer = delete_a_model(stage, collector)

    assert answer.status_code == 202
    assert collector.paths == {"/v1/traces"}
    mine = [span for span in collector.spans if span.trace_id.hex() == trace_id]
    (request,) = (span for span in mine if span.kind == Span.SPAN_KIND_SERVER)
    (heard,) = (span for span in mine if span.kind == Span.SPAN_KIND_CONSUMER)
    assert len(mine) == 2
    assert request.name == "DELETE /models/{username}/{model_name}"
    assert told(request)["http.response.status_code"] == 202
    assert request.parent_span_id, "the caller's own span"
    assert heard.name == "process model-events"
    assert heard.parent_span_id == request.span_id
    assert told(heard)["modelyard.event.type"] == "model.deleted"
    assert request.start_time_unix_nano < request.end_time_unix_nano
    assert request.start_time_unix_nano < heard.start_time_unix_nano < heard.end_time_unix_nano
    assert all(resource["service.name"] == "modelyard" for resource in collector.resources)


def test_an_upload_its_build_and_the_consumer_of_the_event_are_one_trace(make_stage: Callable[..., Stage]) -> None:
    place = new_trace()
    with collecting() as collector:
        stage = make_stage(**{"otel.endpoint": collector.url})
        with stage.live(*LOOPS) as url, httpx2.Client(base_url=url, headers={"traceparent": place.header}, timeout=60) as client:
            answer = client.post("/upload", headers={"authorization": f"Bearer {stage.auth.key.text}"}, **form())
            until(lambda: stage.count(InboxRow) == 1, "the event had its effect")

    request, build, heard = sorted(
        (span for span in collector.spans if span.trace_id.hex() == place.trace_id), key=lambda span: span.start_time_unix_nano
    )
    assert (request.name, build.name, heard.name) == ("POST /upload", "build", "process model-events")
    assert (request.parent_span_id.hex(), build.parent_span_id, heard.parent_span_id) == (place.span_id, request.span_id, build.span_id)
    assert told(build)["modelyard.build.outcome"] == "succeeded"
    with stage.database.read() as session:
        row = session.scalars(select(OutboxRow)).one()
    assert row.headers["ce_requestid"] == answer.headers["x-request-id"]


def test_a_request_that_fails_is_told_as_failed(make_stage: Callable[..., Stage]) -> None:
    with collecting() as collector:
        stage = make_stage(**{"otel.endpoint": collector.url})
        stage.app = create_app([Service("gateway", "gateway", mounts={"/m/": Guarded(broken, Action.PREDICT)})], stage.credentials)
        with stage.live() as url, httpx2.Client(base_url=url, timeout=60) as client:
            assert client.get("/health").status_code == 200
            assert client.get("/models/ada").status_code == 401
            assert client.get("/m/ada/fruit/predict").status_code == 500

    healthy, refused, failed = collector.spans
    assert (healthy.name, healthy.status.code) == ("GET /health", Status.STATUS_CODE_UNSET)
    assert (refused.name, refused.status.code) == ("GET", Status.STATUS_CODE_UNSET)
    assert (failed.name, failed.status.code) == ("GET /m/{username}/{model_name}/{path}", Status.STATUS_CODE_ERROR)
    assert failed.status.message == "500"


@pytest.mark.slow
def test_a_collector_that_is_away_holds_up_nothing(make_stage: Callable[..., Stage]) -> None:
    with collecting() as collector:
        gone = collector.url
    stage = make_stage(**{"otel.endpoint": gone})
    with stage.live() as url:
        assert httpx2.get(f"{url}/health", timeout=60).status_code == 200


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://localhost:4317", "http://", ""])
def test_an_endpoint_that_is_none_is_refused_at_the_start(endpoint: str) -> None:
    with pytest.raises(Invalid) as refused:
        load_settings(**{"otel.endpoint": endpoint})
    assert "otel.endpoint" in refused.value.message


@pytest.mark.slow
def test_without_the_setting_nothing_of_the_sdk_is_loaded() -> None:
    # `opentelemetry.trace`, the API alone, comes with the web framework.
    look = "import sys, modelyard.embedded; print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'google'))])"
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"
