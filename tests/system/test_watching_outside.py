"""One call of a model from the front door to the app, as the answer, the app, the log and the metrics tell of it."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yard import Yard, flask_app, until

from modelyard.run.unix_socket import process_mark

pytestmark = pytest.mark.sandbox

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TELLS = b"""
@app.route("/told")
def told():
    return jsonify(dict(request.headers))
"""


@pytest.fixture
def watched(tmp_path: Path, flags: tuple[str, ...]) -> Iterator[Yard]:
    """A server that logs the calls of models too."""
    with Yard(tmp_path / "data", *flags, variables={"MODELYARD_LOG_LEVEL": "debug"}) as yard:
        yield yard


def counted(yard: Yard) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What `/metrics` says on the Unix socket of the data folder."""
    assert yard.process is not None
    path = yard.data / "run" / f"up-{process_mark(yard.process.pid)}.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=60) as client:
        families = text_string_to_metric_families(client.get("/metrics").raise_for_status().text)
        return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def test_one_call_has_one_id_and_one_trace_and_is_counted_once(watched: Yard) -> None:
    watched.ready("ada", "teller", flask_app("teller", TELLS))
    told = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1", "x-request-id": "of-the-caller"}
    answer = watched.http.get("/m/ada/teller/told", headers=told)
    seen = {name.lower(): value for name, value in answer.json().items()}
    request_id = answer.headers["x-request-id"]

    assert request_id != "of-the-caller"
    assert seen["x-request-id"] == request_id
    assert seen["traceparent"].startswith(f"00-{TRACE}-")
    assert SPAN not in seen["traceparent"]
    assert seen["tracestate"] == "vendor=1"
    (line,) = until(lambda: [line for line in watched.log().splitlines() if "/m/ada/teller/told" in line], "the call is in the log")
    assert request_id in line
    assert TRACE in line

    found = counted(watched)
    model_id = watched.http.get("/events").json()["events"][0]["data"]["model_id"]
    assert found["modelyard_predictions_total", frozenset({("model", model_id), ("outcome", "answered")})] == 1
    assert found["modelyard_runtime_instances", frozenset({("state", "running")})] == 1
    assert found["modelyard_builds_total", frozenset({("outcome", "succeeded")})] == 1
    assert watched.http.get("/metrics").status_code == 404
    assert "ada" not in {value for _, labels in found for _, value in labels}


def test_the_socket_goes_with_its_server(watched: Yard) -> None:
    assert list((watched.data / "run").glob("up-*.sock"))
    assert watched.end() == 0
    assert not list((watched.data / "run").glob("up-*.sock"))
