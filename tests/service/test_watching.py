"""One request from outside: its ids in every answer, log line and event that goes back to it, and what is counted of it."""

import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select
from stage import DEADLINE_S, ORIGIN, Stage, app_zip

from modelyard.domain.causes import new_trace, parse_traceparent
from modelyard.run.process import Process
from modelyard.run.service import Service
from modelyard.store.tables import OutboxRow
from modelyard.web.access import Action, Asgi, Guarded, Receive, Scope, Send
from modelyard.web.app import create_app
from modelyard.web.metrics_page import metrics

ROLES = ("upload", "builder", "inference", "runner", "relay")
ID = re.compile(r"[0-9a-f-]{36}")


@contextmanager
def served(stage: Stage, app: Asgi, folder: Path) -> Iterator[tuple[httpx2.Client, httpx2.Client]]:
    """The application on loopback and on a Unix socket of the data folder: a client of each."""
    inside = socket.socket(socket.AF_UNIX)
    inside.bind(str(folder / "up.sock"))
    outside = socket.create_server(("127.0.0.1", 0))
    process = Process(stage.kernel, [], app, outside, inside)
    answers = threading.Event()
    thread = threading.Thread(target=process.run, args=(answers.set,), name="server")
    thread.start()
    told = {"authorization": f"Bearer {stage.auth.key.text}"}
    try:
        assert answers.wait(DEADLINE_S)
        url = f"http://127.0.0.1:{outside.getsockname()[1]}"
        socket_ = httpx2.HTTPTransport(uds=str(folder / "up.sock"))
        with (
            httpx2.Client(base_url=url, headers=told, timeout=60) as tcp,
            httpx2.Client(base_url=ORIGIN, transport=socket_, headers=told, timeout=60) as unix,
        ):
            yield tcp, unix
    finally:
        process.stop()
        thread.join()


@pytest.fixture
def watched(stage: Stage, tmp_path: Path) -> Iterator[tuple[httpx2.Client, httpx2.Client]]:
    """The stage's services with `/metrics` beside them."""
    app = create_app([*stage.services, metrics(stage.kernel, ROLES)], stage.credentials)
    with served(stage, app, tmp_path) as clients:
        yield clients


def samples(unix: httpx2.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Everything that `/metrics` tells, by name and labels."""
    answer = unix.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(found: Mapping[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The records of the log since the last look."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def sent(stage: Stage, name: str) -> list[dict[str, Any]]:
    """The headers of the events of this name, in their order."""
    with stage.database.read() as session:
        rows = session.scalars(select(OutboxRow).order_by(OutboxRow.seq))
        return [dict(row.headers) for row in rows if row.headers["ce_type"] == name]


def test_metrics_are_there_on_the_internal_listener_and_on_no_other(stage: Stage, watched: tuple[httpx2.Client, httpx2.Client]) -> None:
    tcp, unix = watched
    url = tcp.base_url

    assert unix.get("/metrics").status_code == 200
    assert unix.head("/metrics").content == b""
    assert unix.get("/metrics/more").status_code == 404
    assert unix.post("/metrics").status_code == 404
    assert unix.get("/metrics", headers={"x-modelyard-caller": "192.0.2.7"}).status_code == 404, "passed on by the front door"
    assert tcp.get("/metrics").json() == tcp.get("/no-such-page").json()
    assert httpx2.get(f"{url}/metrics", timeout=60).status_code == httpx2.get(f"{url}/no-such-page", timeout=60).status_code == 401


def test_a_request_is_counted_once_by_the_template_of_its_route(stage: Stage, watched: tuple[httpx2.Client, httpx2.Client]) -> None:
    tcp, unix = watched
    before = samples(unix)
    for n in range(3):
        assert tcp.get(f"/builds/no-such-build-{n}").status_code == 404
    assert tcp.get("/m/ada/fruit/secret-path").status_code == 200
    tcp.request("PROPFIND", "/no/such/page")
    after = samples(unix)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    count = "http_server_request_duration_seconds_count"
    of = {"http_request_method": "GET", "http_response_status_code": "404", "http_route": "/builds/{build_id}"}
    assert grown(count, **of) == 3
    assert grown(count, **{**of, "http_route": "/m/{username}/{model_name}/{path}", "http_response_status_code": "200"}) == 1
    assert grown(count, http_request_method="_OTHER", http_route="", http_response_status_code="404") == 1
    assert grown("modelyard_predictions_total", model="", outcome="answered") == 1
    assert not [
        name for name, labels in after if any(part in str(labels) for part in ("no-such-build", "secret-path", "PROPFIND", "'ada'"))
    ]


def test_what_waits_is_told_beside_what_was_counted(stage: Stage, watched: tuple[httpx2.Client, httpx2.Client]) -> None:
    _, unix = watched
    before = samples(unix)
    assert stage.upload().status_code == 202
    queued = samples(unix)
    assert stage.step("builds")
    built = samples(unix)
    stage.step("relay")
    stage.step("consume")
    taken = samples(unix)

    assert value(queued, "modelyard_queue_depth") == 1
    assert value(built, "modelyard_queue_depth") == 0
    assert value(built, "modelyard_builds_total", outcome="succeeded") - value(before, "modelyard_builds_total", outcome="succeeded") == 1
    assert value(built, "modelyard_outbox_unpublished") == 1
    assert value(built, "modelyard_outbox_age_seconds") > 0
    assert (value(taken, "modelyard_outbox_unpublished"), value(taken, "modelyard_outbox_age_seconds")) == (0, 0)
    tried = {"group": "inference", "outcome": "taken"}
    assert value(taken, "modelyard_event_attempts_total", **tried) - value(built, "modelyard_event_attempts_total", **tried) == 1
    assert value(taken, "modelyard_runtime_instances", state="stopped") == 1
    assert value(taken, "modelyard_database_up") == 1
    assert value(taken, "process_resident_memory_bytes") > 0
    (info,) = (dict(labels) for name, labels in taken if name == "modelyard_build_info")
    assert info["version"]


def test_a_record_that_no_consumer_can_take_is_counted_as_a_dead_letter(stage: Stage, watched: tuple[httpx2.Client, httpx2.Client]) -> None:
    _, unix = watched
    before = samples(unix)
    with stage.database.write() as session:
        headers = {"ce_id": "poison", "ce_time": "2026-01-02T03:04:05.678Z"}
        session.add(OutboxRow(id="p", topic="model-events", key="k", value=b"{}", headers=headers, created_at=0.0, published_at=None))
    stage.step("relay")
    for _ in range(3):
        stage.step("consume")
        stage.ahead_s += 10
    after = samples(unix)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, group="inference", **labels) - value(before, name, group="inference", **labels)

    assert grown("modelyard_event_attempts_total", outcome="failed") == 3
    assert grown("modelyard_dead_letters_total") == 1


def test_a_request_id_is_ours_at_the_front_door_and_kept_behind_it(watched: tuple[httpx2.Client, httpx2.Client]) -> None:
    tcp, unix = watched
    told = {"x-request-id": "of-the-front-door"}

    assert ID.fullmatch(tcp.get("/health", headers=told).headers["x-request-id"])
    assert unix.get("/health", headers=told).headers["x-request-id"] == "of-the-front-door"
    assert ID.fullmatch(unix.get("/health", headers={"x-request-id": "no id at all"}).headers["x-request-id"])
    assert ID.fullmatch(unix.get("/health").headers["x-request-id"])


def test_a_trace_goes_on_where_it_can_be_read_and_begins_anew_where_not(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    place = new_trace()
    stage.http.get("/health", headers={"traceparent": place.header})
    stage.http.get("/health", headers={"traceparent": "00-not-a-trace-01"})
    stage.http.get("/health", headers=[("traceparent", place.header), ("traceparent", place.header)])
    first, second, third = [line for line in lines(capsys) if line["event"] == "request"]

    assert first["trace_id"] == place.trace_id
    assert place.trace_id not in {second["trace_id"], third["trace_id"]}
    assert all(re.fullmatch("[0-9a-f]{32}", line["trace_id"]) for line in (first, second, third))
    assert len({line["request_id"] for line in (first, second, third)}) == 3


@pytest.mark.parametrize(("traceparent", "passed"), [(f"00-{'a' * 32}-{'b' * 16}-01", True), ("nonsense", False), (None, False)])
def test_the_state_of_a_trace_goes_on_only_with_its_trace(stage: Stage, traceparent: str | None, *, passed: bool) -> None:
    seen: list[Scope] = []

    async def look(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    stage.app = create_app([Service("gateway", "gateway", mounts={"/m/": Guarded(look, Action.PREDICT)})], stage.credentials)
    told = {"tracestate": "vendor=1", **({} if traceparent is None else {"traceparent": traceparent})}
    assert stage.client(stage.auth.key.text).get("/m/ada/fruit/", headers=told).status_code == 204

    assert ((b"tracestate", b"vendor=1") in seen[0]["headers"]) is passed


def test_an_event_goes_back_to_the_request_that_caused_it(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.ready()
    place = new_trace()
    stage.http.headers["traceparent"] = place.header
    lines(capsys)
    answer = stage.delete("/models/ada/fruit")
    (headers,) = sent(stage, "model.deleted")
    found = parse_traceparent(headers["traceparent"])

    assert answer.status_code == 200
    assert headers["ce_requestid"] == answer.headers["x-request-id"]
    assert found is not None
    assert found.trace_id == place.trace_id
    assert found.span_id != place.span_id
    (line,) = [line for line in lines(capsys) if line["event"] == "request"]
    assert (line["request_id"], line["trace_id"]) == (headers["ce_requestid"], place.trace_id)


def test_what_a_consumer_writes_goes_back_to_where_its_event_does(stage: Stage) -> None:
    for n in range(2):
        stage.ready(content=app_zip(f"fruit-{n}"))
        stage.step("relay")
        stage.step("consume")
    uploaded = parse_traceparent(sent(stage, "model.uploaded")[1]["traceparent"])
    (headers,) = sent(stage, "model.released")
    released = parse_traceparent(headers["traceparent"])

    assert uploaded is not None
    assert released is not None
    assert released.trace_id == uploaded.trace_id
    assert released.span_id != uploaded.span_id
