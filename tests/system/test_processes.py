"""The guide's journey through six processes of their own, on real parts; and what is kept when each of them ends or is killed."""

import json
import random
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from several import DOWN_S, ROLES, UP_S, Several
from test_journey import guide_zip
from yard import ANSWER_S, flask_app, marked, until

if TYPE_CHECKING:
    from parts.kafka import Kafka
    from parts.postgres import Postgres

pytestmark = [pytest.mark.postgres, pytest.mark.kafka, pytest.mark.sandbox]

FIELDS = ["upload_id", "username", "model_name", "description", "docker_image", "docker_container_id", "status"]


def records(bootstrap: str) -> list[tuple[bytes, dict[str, bytes]]]:
    """Everything on the guide's topic, read as anybody may who knows the topic's name and nothing of us."""
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415 - installed where Kafka is

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "ten-lines", "enable.auto.commit": False})
    partitions = consumer.list_topics("model-events", timeout=60).topics["model-events"].partitions
    found = []
    for number in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition("model-events", number), timeout=60)
        consumer.assign([TopicPartition("model-events", number, 0)])
        while end and consumer.position([TopicPartition("model-events", number)])[0].offset < end and (seen := consumer.poll(30)):
            found.append((seen.value(), dict(seen.headers() or [])))
    consumer.close()
    return found


@pytest.fixture(scope="module")
def several(postgres_server: "Postgres", kafka_broker: "Kafka") -> Iterator[Several]:
    """All roles, started in an order drawn by lot; each test finds all of them healthy."""
    folder = Path(tempfile.mkdtemp(prefix="my-several-", dir="/tmp"))
    url = postgres_server.fresh()
    yard = Several(folder / "data", url, kafka_broker.bootstrap)
    try:
        yard.start_all(random.sample(ROLES, len(ROLES)))
        yield yard
        assert set(yard.end().values()) <= {0}, yard.logs()
        assert marked(str(yard.data)) == []
    finally:
        yard.destroy()
        postgres_server.drop(url)
        shutil.rmtree(folder)


def test_the_guides_journey_through_the_gateway(several: Several, kafka_broker: "Kafka") -> None:
    taken = several.ready("testuser", "test-model", guide_zip())
    listed = several.http.get("/models/testuser").json()["models"]
    assert [(each["id"], each["status"]) for each in listed] == [(taken["id"], "ready")]
    answer = several.predict("testuser", "test-model")
    assert (answer.status_code, answer.json()) == (200, {"prediction": "Processed: hello", "model": "test-model"})
    assert "Listening at" in several.http.get("/models/testuser/test-model/logs").text
    assert "found" in several.http.get(taken["log_url"]).text

    found = until(
        lambda: [each for each in records(kafka_broker.bootstrap) if taken["id"].encode() in each[0] and b"model.uploaded" in each[0]],
        "the guide's message is on the topic",
    )
    value, headers = found[0]
    told = json.loads(value)
    assert (list(told), list(told["data"])[: len(FIELDS)]) == (["event", "data"], FIELDS)
    guide = {"upload_id": taken["id"], "username": "testuser", "model_name": "test-model", "description": "", "status": "ready"}
    without_engine = {"docker_image": None, "docker_container_id": None}
    begin = json.dumps(
        {"event": "model.uploaded", "data": {name: {**guide, **without_engine}[name] for name in FIELDS}}, separators=(",", ":")
    )
    assert value.startswith(begin.removesuffix("}}").encode()), value
    assert (headers["ce_type"], headers["ce_specversion"]) == (b"model.uploaded", b"1.0")

    gone = several.http.delete(f"/models/{taken['id']}?purge=true")
    assert (gone.status_code, gone.json()["status"]) == (200, "deleted"), gone.text
    assert several.predict("testuser", "test-model").status_code == 404


def test_an_account_signs_in_uploads_and_calls_with_a_key_and_a_token(several: Several) -> None:
    made = several.http.post("/auth/users", json={"username": "ada", "role": "member", "password": "a long enough passphrase"})
    assert made.status_code == 201, made.text
    form = {"grant_type": "password", "username": "ada", "password": "a long enough passphrase"}
    granted = httpx2.post(f"{several.url}/auth/token", data=form, timeout=60)
    assert granted.status_code == 200, granted.text
    bearer = {"authorization": f"Bearer {granted.json()['access_token']}"}
    with httpx2.Client(base_url=several.url, headers=bearer, timeout=ANSWER_S) as ada:
        key = ada.post("/auth/keys", json={"name": "calls", "scopes": ["predict"]}).json()["key"]
        files = {"file": ("a.zip", flask_app("ada"), "application/zip")}
        sent = ada.post("/upload", data={"username": "ada", "model_name": "app"}, files=files, headers={"prefer": "wait=300"})
        assert (sent.status_code, sent.json()["status"]) == (202, "ready"), sent.text
        assert ada.post("/m/ada/app/predict", json={"input": "x"}).json()["name"] == "ada"
    by_key = httpx2.post(f"{several.url}/m/ada/app/predict", json={}, headers={"authorization": f"Bearer {key}"}, timeout=60)
    assert by_key.json()["name"] == "ada"
    assert httpx2.post(f"{several.url}/m/ada/app/predict", json={}, timeout=60).status_code == 401


def test_a_browser_signs_in_and_enters_a_models_own_host(several: Several) -> None:
    several.ready("browser", "app", flask_app("browser"))
    link = several.http.post("/first").json()["url"]
    page = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "none", "accept": "text/html"}
    with httpx2.Client(headers=page, timeout=60) as browser:
        entered = browser.get(link)
        assert entered.status_code == 303
        cookie = {"cookie": entered.headers["set-cookie"].partition(";")[0]}
        console = browser.get(f"{several.url}/", headers=cookie)
        assert (console.status_code, console.headers["content-type"]) == (200, "text/html; charset=utf-8")
        style = re.findall(r"/static/\S+[.]css", console.text)[0]
        assert browser.get(several.url + style).status_code == 200
        opened = browser.get(f"{several.url}/open/browser/app", headers=cookie)
        assert opened.status_code == 303, opened.text
        host = httpx2.URL(opened.headers["location"])
        assert host.host.endswith(".apps.localhost")
        own = {"host": f"{host.host}:{host.port}"}
        ticket = f"{several.url}{host.raw_path.decode()}"
        let_in = browser.get(ticket, headers=own)
        assert (let_in.status_code, let_in.headers["location"]) == (303, "/"), let_in.text
        of_app = {**own, "cookie": let_in.headers["set-cookie"].partition(";")[0]}
        assert browser.get(f"{several.url}/health", headers=of_app).json() == {"status": "healthy"}
        assert browser.get(ticket, headers=own).status_code == 401


def test_what_is_internal_stays_inside(several: Several) -> None:
    for path in ("/metrics", "/.inside/enter", "/%6detrics"):
        assert several.http.get(path).status_code == 404
        assert several.http.post(path, json={}).status_code in {404, 405}
    for role in ("auth", "upload"):
        for part in several.of(role):
            url = next(line for line in part.said.read_text().splitlines() if line.startswith("http://"))
            for path in ("/metrics", "/.inside/enter"):
                answer = httpx2.post(url + path, json={}, headers={"authorization": several.http.headers["authorization"]}, timeout=60)
                assert answer.status_code in {404, 405}
    for role in ROLES:
        for part in several.of(role):
            with several.inside(part) as inside:
                assert inside.get("/health").json()["status"] == "healthy"
                assert "process_cpu_seconds_total" in inside.get("/metrics").text
            assert several.socket(part).stat().st_mode & 0o777 == 0o600


def test_the_description_is_that_of_every_service(several: Several) -> None:
    told = several.http.get("/openapi.json")
    assert {"/auth/me", "/upload", "/models/{username}/{model_name}/logs"} <= set(told.json()["paths"])
    assert {"Upload", "Me"} <= set(told.json()["components"]["schemas"])
    refused = httpx2.get(f"{several.url}/openapi.json", timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (401, "no_credential")


def test_the_callers_address_and_request_id_are_the_gateways(several: Several) -> None:
    forged = {"x-modelyard-caller": "192.0.2.7", "x-request-id": "forged", "connection": "x-modelyard-caller"}
    answer = several.http.post("/auth/token", data={"grant_type": "password", "username": "nobody", "password": "wrong"}, headers=forged)
    assert answer.status_code in {400, 401}
    assert answer.headers["x-request-id"] != "forged"
    request_id = answer.headers["x-request-id"]
    (auth,) = several.of("auth")
    (gateway,) = several.of("gateway")
    for part in (auth, gateway):
        assert until(lambda part=part: request_id in part.said.read_text(), f"{part.role} logs the request by the same id")  # type: ignore[misc]
    assert "192.0.2.7" not in auth.said.read_text()


def test_two_of_each_take_thirty_uploads_at_once(several: Several, scaled: Callable[[int], int]) -> None:
    more = [several.start(role) for role in ("upload", "builder", "inference")]
    until(lambda: all(len(several.http.get("/health").json()["roles"][part.role]) == 2 for part in more), "the second ones are seen", UP_S)
    several.wait_until_healthy()
    zips = [flask_app(f"app-{number}") for number in range(scaled(120))]

    def send(number: int) -> tuple[int, str]:
        told = several.upload("crowd", f"app-{number}", zips[number], wait_s=0)
        assert told.status_code == 202, told.text
        return told.status_code, told.json()["id"]

    with ThreadPoolExecutor(30) as senders:
        taken = list(senders.map(send, 5 * list(range(len(zips)))))
    assert {status for status, _ in taken} == {202}
    assert len({upload_id for _, upload_id in taken}) == len(zips), "the same bytes are one version, whichever process took them"
    until(lambda: all(each["status"] == "ready" for each in _models(several, "crowd")), "all are built", 30 + 10 * len(zips))
    assert sorted(str(each["id"]) for each in _models(several, "crowd")) == sorted({upload_id for _, upload_id in taken})
    assert [several.predict("crowd", f"app-{number}").json()["name"] for number in (0, 1)] == ["app-0", "app-1"]
    with _changing(several, "/models/crowd/app-0/access") as statuses:
        for part in more:
            assert "serves" in part.said.read_text()
            assert part.end() == 0, part.said.read_text()[-3000:]
    assert set(statuses) == {200}, "no call is lost while one of two ends"
    several.wait_until_healthy()


def test_an_upload_ends_while_its_process_is_told_to_end(several: Several) -> None:
    (upload,) = several.of("upload")
    waits = threading.Event()

    def slowly() -> Iterator[bytes]:
        body = _multipart("drained", "app", flask_app("drained"))
        yield body[:100]
        waits.set()
        assert going.wait(60)
        yield body[100:]

    going = threading.Event()
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    with ThreadPoolExecutor(1) as background:
        sent = background.submit(several.http.post, "/upload", content=slowly(), headers=headers)
        assert waits.wait(60)
        until(lambda: any((several.data / "staging").iterdir()), "the upload has begun")
        upload.process.terminate()
        other = several.start("upload")
        going.set()
        assert sent.result(60).status_code == 202
    assert upload.process.wait(DOWN_S) == 0
    until(lambda: "serves" in other.said.read_text(), "the next one serves", UP_S)
    several.wait_until_healthy()


def test_a_service_that_is_away_is_told_with_a_pause_and_found_again(several: Several) -> None:
    (auth,) = several.of("auth")
    assert auth.end() == 0
    away = several.http.get("/auth/me")
    assert (away.status_code, away.json()["code"], away.headers["retry-after"]) == (503, "service_down", "2")
    assert several.http.get("/health").json()["roles"]["auth"] == ["down"]
    assert several.http.get("/models/testuser").status_code == 200, "the others do their work"
    killed = several.start("auth")
    several.wait_until_healthy()
    killed.kill()
    assert several.http.get("/auth/me").status_code == 503
    assert not several.socket(killed).exists()
    several.start("auth")
    several.wait_until_healthy()


def test_a_runner_that_is_killed_is_followed_by_the_one_that_stands_by(several: Several, kafka_broker: "Kafka") -> None:
    slow = b'\n@app.route("/slow")\ndef slow():\n    print("slow begins", flush=True)\n    time.sleep(60)\n    return "late"\n'
    several.ready("runner", "app", flask_app("runner", slow))
    assert several.predict("runner", "app").status_code == 200
    (leader,) = several.of("runner")
    standby = several.start("runner")
    until(lambda: sorted(several.http.get("/health").json()["roles"]["runner"]) == ["healthy", "standby"], "one stands by", UP_S)
    with ThreadPoolExecutor(1) as background:
        open_call = background.submit(several.http.get, "/m/runner/app/slow")
        until(lambda: "slow begins" in several.http.get("/models/runner/app/logs").text, "the call is on its way")
        leader.kill()
        assert open_call.result(60).status_code == 502
    assert until(lambda: _answered(several, "runner", "app"), "the next call starts it again", 60) == "runner"
    assert several.of("runner") == [standby]
    assert several.http.get("/models/runner/app").json()["state"] == "running"
    ended = [json.loads(value) for value, _ in records(kafka_broker.bootstrap) if b"runner_gone" in value]
    assert [each["event"] for each in ended if each["data"]["model_name"] == "app"][-1:] == ["model.stopped"]
    several.wait_until_healthy()


def test_a_gateway_that_is_started_again_learns_the_routes(several: Several) -> None:
    several.ready("door", "app", flask_app("door"))
    assert several.predict("door", "app").status_code == 200
    for end in ("end", "kill"):
        (gateway,) = several.of("gateway")
        getattr(gateway, end)()
        several.start("gateway")
        several.wait_until_healthy()
        assert several.predict("door", "app").json()["name"] == "door"


@contextmanager
def _changing(several: Several, path: str) -> Iterator[list[int]]:
    """Four callers that change something, which nobody may send twice, for the length of the block; the statuses of their answers."""
    statuses: list[int] = []
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            statuses.append(several.http.put(path, json={"public": False, "users": []}).status_code)

    with ThreadPoolExecutor(4) as callers:
        changes = [callers.submit(change) for _ in range(4)]
        try:
            until(lambda: len(statuses) > 20, "they change")
            yield statuses
        finally:
            over.set()
        for each in changes:
            each.result()


def _answered(several: Several, owner: str, name: str) -> str:
    answer = several.predict(owner, name)
    return str(answer.json()["name"]) if answer.status_code == 200 else ""


def _models(several: Several, owner: str) -> list[dict[str, object]]:
    return list(several.http.get(f"/models/{owner}").json()["models"])


def _multipart(owner: str, name: str, content: bytes) -> bytes:
    fields = b"".join(
        b'--edge\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (field, value.encode())
        for field, value in ((b"username", owner), (b"model_name", name))
    )
    file = b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a.zip"\r\ncontent-type: application/zip\r\n\r\n'
    return fields + file + content + b"\r\n--edge--\r\n"
