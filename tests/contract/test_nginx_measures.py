"""What the gateway on nginx counts: under the names, labels and bounds of every other process, and of every worker."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace

import httpx2
import pytest
from door_apps import DEADLINE_S, Request, ok, says, until
from door_nginx import NginxStage
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from test_front_door_sockets import dial
from websockets.sync.server import ServerConnection

from gateway.settings import DoorSettings
from modelyard.run import metrics
from modelyard.runtime.routes import RouteState

pytestmark = pytest.mark.nginx

SETTINGS = DoorSettings(absent_s=30.0, stall_s=2.0)
PREDICTIONS, SECONDS = "modelyard_predictions_total", "modelyard_prediction_duration_seconds"


@pytest.fixture
def stage() -> Iterator[NginxStage]:
    """A door of the case's own: what other cases called might be counted a second later."""
    stage = NginxStage(SETTINGS, WORKERS="2")
    until(lambda: sum(outcomes(stage, "").values()) == stage.first_calls, "the calls by which it was waited for are counted")
    yield stage
    stage.take_down()
    stage.close()


def shown(stage: NginxStage) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All that it tells, by name and labels."""
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(stage.run / "door.sock")), timeout=DEADLINE_S) as client:
        answer = client.get("http://localhost/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def counted(stage: NginxStage, name: str = PREDICTIONS, **labels: str) -> float:
    return shown(stage).get((name, frozenset(labels.items())), 0.0)


def outcomes(stage: NginxStage, model: str) -> Mapping[str, float]:
    """How often each outcome of the model was counted."""
    found = {}
    for (name, labels), value in shown(stage).items():
        told = dict(labels)
        if name == PREDICTIONS and told["model"] == model:
            found[told["outcome"]] = value
    return found


def test_it_counts_each_outcome_of_a_call_once(stage: NginxStage) -> None:
    answers = {
        "/answered": ok(),
        "/bodiless": says(b"HTTP/1.1 204 None\r\n\r\n"),
        "/app_error": says(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno"),
        "/bad_answer": says(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", stay=False),
        "/cut": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", stay=False),
    }

    def reply(request: Request, conn: socket.socket) -> bool:
        return answers[request.target](request, conn)

    stage.deploy(reply)
    route = stage.routes.find(("ann", "iris"))
    assert route is not None
    stage.routes.apply([replace(route, model_id="model-of-outcomes")])
    began = counted(stage, f"{SECONDS}_count")
    for path in answers:
        stage.call(path)
    stage.call("/answered", method="HEAD")
    until(lambda: sum(outcomes(stage, "model-of-outcomes").values()) == len(answers) + 1, "both workers have handed in what they counted")
    assert outcomes(stage, "model-of-outcomes") == {"answered": 3, "app_error": 1, "bad_answer": 1, "cut": 1}
    assert counted(stage, f"{SECONDS}_count") - began == 4, "those that the app answered"


def test_a_call_that_reached_no_model_is_counted_without_one_and_other_requests_are_not(stage: NginxStage) -> None:
    before = outcomes(stage, "")["refused"]
    stage.call("/", prefix="/m/ann/none")
    stage.call("/", Authorization="Bearer nobody")
    stage.call("/health", prefix="")
    until(lambda: outcomes(stage, "").get("refused", 0) >= before + 2, "both are counted")
    assert outcomes(stage, "")["refused"] == before + 2


def test_calls_of_a_models_own_host_and_of_sockets_are_counted_too(stage: NginxStage) -> None:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    stage.deploy(ok())
    before = outcomes(stage, "model-1").get("answered", 0)
    assert stage.call_own("/").status == 200
    until(lambda: outcomes(stage, "model-1").get("answered", 0) == before + 1, "it is counted")
    took = counted(stage, f"{SECONDS}_count")
    stage.deploy_socket(echo)
    with dial(stage) as connection:
        connection.send("a")
        assert connection.recv() == "a"
    until(lambda: outcomes(stage, "model-1").get("answered", 0) == before + 2, "it is counted at its end")
    assert counted(stage, f"{SECONDS}_count") == took, "it is open for as long as both sides like"


def test_whoever_leaves_before_the_answer_is_told_apart(stage: NginxStage) -> None:
    def wait(_request: Request, conn: socket.socket) -> bool:
        conn.settimeout(DEADLINE_S)
        conn.recv(1)
        return False

    app = stage.deploy(wait)
    before = outcomes(stage, "model-1").get("left", 0)
    with stage.raw(b"GET /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        until(lambda: app.requests, "the app has it")
    until(lambda: outcomes(stage, "model-1").get("left", 0) == before + 1, "it is counted")


def test_a_worker_that_dies_takes_at_most_its_last_second_along(stage: NginxStage) -> None:
    stage.deploy(ok())
    before = outcomes(stage, "model-1").get("answered", 0)
    assert stage.call("/").status == 200
    until(lambda: outcomes(stage, "model-1").get("answered", 0) == before + 1, "it is counted")
    workers = stage.nginx.workers()
    os.kill(workers[0], signal.SIGKILL)
    until(lambda: len(stage.nginx.workers()) == len(workers) and workers[0] not in stage.nginx.workers(), "another takes its place")
    until(lambda: stage.call("/").status == 200, "it answers")
    assert outcomes(stage, "model-1")["answered"] >= before + 1


def test_the_first_two_hundred_models_are_counted_each_by_itself() -> None:
    stage = NginxStage(SETTINGS, WORKERS="1")
    try:
        stage.deploy(ok())
        route = stage.routes.find(("ann", "iris"))
        assert route is not None
        for number in range(metrics.MODELS + 20):
            stage.routes.apply([replace(route, model_id=f"m-{number}", state=RouteState.RUNNING)])
            assert stage.call("/").status == 200

        def is_whole() -> bool:
            return counted(stage, model=metrics.OTHER, outcome="answered") == 20

        until(is_whole, "all are counted")
        assert {counted(stage, model=f"m-{number}", outcome="answered") for number in range(metrics.MODELS)} == {1.0}
        stage.take_down()
    finally:
        stage.close()


def test_its_names_labels_and_bounds_are_those_of_the_other_door(stage: NginxStage) -> None:
    metrics.prediction_ended("model-of-names", "answered", 0.1)
    theirs = {
        (each.name, tuple(sorted(each.labels)), each.labels.get("le"))
        for family in text_string_to_metric_families(generate_latest(metrics.REGISTRY).decode())
        for each in family.samples
        if each.name.startswith(("modelyard_predictions", SECONDS)) and not each.name.endswith("_created")
    }
    stage.deploy(ok())
    assert stage.call("/").status == 200
    until(lambda: outcomes(stage, "model-1").get("answered", 0), "it is counted")
    ours = {(name, tuple(sorted(key for key, _ in labels)), _bound(dict(labels))) for name, labels in shown(stage)}
    assert {(name, labels, _number(bound)) for name, labels, bound in ours} == {
        (name, labels, _number(bound)) for name, labels, bound in theirs
    }


def _bound(labels: Mapping[str, str]) -> str | None:
    return labels.get("le")


def _number(bound: str | None) -> float | None:
    return float(bound) if bound else None
