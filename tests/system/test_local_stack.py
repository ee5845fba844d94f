"""The local stack as `make up` starts it: the guide's journey through nginx, containers, Postgres and Kafka, and what a restart of any of it changes."""

import ast
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from docker import APIClient
from docker.utils import kwargs_from_env
from history.clients import upload as upload_of
from local_stack import ANSWER_S, AUTH, BUILT_S, FRONT, ROOT, SERVICES, UPLOAD, Service, Stack, running
from parts.registered import register
from stack_commands import by_command_line
from stack_kills import stack_ground
from stack_pages import by_browser
from stack_traffic import traffic
from test_journey import guide_zip
from yard import until

from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell

pytestmark = [pytest.mark.docker, pytest.mark.slow]

FIELDS = ["upload_id", "username", "model_name", "description", "docker_image", "docker_container_id", "status"]
ENGINE = "/var/run/docker.sock"
NOT_READY = 5
GUIDE = guide_zip()
ROUTES, CROWD = 1000, "zz"
"""So many models that nobody calls; their owner comes last in lists, whose first page is looked at."""
VERSIONS = 5
"""Uploads of one model, where services are killed."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def owner(stack: Stack) -> str:
    """An administrator's token."""
    return stack.owner()


@pytest.fixture(scope="module")
def jwt(stack: Stack, owner: str) -> str:
    """The access token of a user who has logged in at the guide's port of auth."""
    with stack.http(FRONT, owner) as http:
        made = http.post("/auth/users", json={"username": "testuser", "password": "four quiet herons wade"})
        assert made.status_code in {200, 201}, made.text
    form = {"username": "testuser", "password": "four quiet herons wade", "grant_type": "password"}
    answer = httpx2.post(f"{AUTH}/auth/token", data=form, timeout=ANSWER_S)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def upload(http: httpx2.Client, name: str, packed: bytes = GUIDE) -> dict[str, object]:
    answer = http.post(
        "/upload",
        data={"username": "testuser", "model_name": name, "description": "A test"},
        files={"file": (f"{name}.zip", packed, "application/zip")},
        headers={"prefer": f"wait={BUILT_S}"},
    )
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def predict(http: httpx2.Client, name: str) -> httpx2.Response:
    return http.post(f"/m/testuser/{name}/predict", json={"input": "hello"})


def answers(http: httpx2.Client) -> bool:
    """Whether the guide's model does."""
    try:
        return predict(http, "test-model").status_code == 200
    except httpx2.TransportError:
        return False


def test_nothing_is_lost_doubled_or_left_behind_while_each_service_is_killed_at_random(stack: Stack, scaled: Callable[[int], int]) -> None:
    # The first of the file: it judges all that there is.
    count = scaled(300)
    with stack_ground(stack) as ground:
        ground.under_random_kills([upload_of(number, max(1, count // VERSIONS)) for number in range(count)])
        faults = ground.judged()
        print(ground.figures())
        assert faults == [], ground.told(faults)


def test_the_guides_journey_and_what_a_stranger_reads_on_kafka(stack: Stack, jwt: str) -> None:
    with stack.http(UPLOAD, jwt) as direct:
        taken = upload(direct, "test-model")
    assert (taken["status"], taken["runtime"]) == ("ready", "docker"), taken
    assert taken["docker_image"] == "ml-models/testuser/test-model:latest"
    container = str(taken["docker_container_id"])
    assert stack.run("docker", "inspect", "--format", "{{.State.Status}}", container).strip() == "created"

    with stack.http(FRONT, jwt) as http:
        assert [each["id"] for each in http.get("/models/testuser").json()["models"]] == [taken["id"]]
        answer = predict(http, "test-model")
        assert (answer.status_code, answer.json()) == (200, {"prediction": "Processed: hello", "model": "test-model"})
        assert stack.run("docker", "inspect", "--format", "{{.State.Status}}", container).strip() == "running"
        assert httpx2.post(f"{FRONT}/m/testuser/test-model/predict", json={"input": "hello"}, timeout=ANSWER_S).status_code == 401

    # The page's program, as it stands there, for the guide's own address.
    (consumer,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "events.md").read_text(), re.DOTALL)
    with subprocess.Popen([sys.executable, "-c", consumer], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        deadline = threading.Timer(120, reader.kill)
        deadline.start()
        told = next((line for line in reader.stdout if "model.uploaded" in line and str(taken["id"]) in line), "nothing in time")
        deadline.cancel()
        reader.kill()
    said = ast.literal_eval(told)
    assert list(said["data"])[:7] == FIELDS
    assert {name: said["data"][name] for name in FIELDS} == {
        "upload_id": taken["id"],
        "username": "testuser",
        "model_name": "test-model",
        "description": "A test",
        "docker_image": "ml-models/testuser/test-model:latest",
        "docker_container_id": container,
        "status": "ready",
    }


def test_versions_take_over_under_load_and_no_call_fails(stack: Stack, jwt: str, scaled: Callable[[int], int]) -> None:
    count, path = scaled(200), "/m/testuser/switching/"
    with stack.http(FRONT, jwt) as http:
        upload(http, "switching", upload_of(0, 1).content)
        assert http.get(path).text == "key-00000"
        with traffic(path, jwt) as callers:
            for number in range(1, count + 1):
                one = upload_of(number, 1)
                taken = upload(http, "switching", one.content)
                assert taken["status"] == "ready", taken
                until(lambda key=one.key: all(caller.came[-1:] == [key] for caller in callers), "the new version answers all")  # type: ignore[misc]
    print(f"{count} switches under {sum(len(caller.came) for caller in callers)} calls")
    assert [caller.failed for caller in callers] == [[]] * len(callers)
    # No answer of an older version after one of a newer one.
    assert all(caller.came == sorted(caller.came) for caller in callers)


def test_a_gateway_that_was_killed_knows_a_thousand_routes_again(stack: Stack, jwt: str) -> None:
    access = "/models/testuser/test-model/access"
    with (
        stack.http(FRONT, jwt) as http,
        closing(APIClient(**kwargs_from_env(), version="auto")) as engine,
        closing(Database(stack.database_url(), Doorbell())) as database,
    ):
        register(database, CROWD, ROUTES)
        # Routes are written in the order in which access was changed: this one last.
        http.put(access, json={"public": True, "users": []}).raise_for_status()
        until(
            lambda: httpx2.post(f"{FRONT}/m/testuser/test-model/predict", json={"input": "hello"}, timeout=ANSWER_S).status_code == 200,
            "all routes are written",
        )
        http.put(access, json={"public": False, "users": []}).raise_for_status()
        Service(engine, stack, "gateway").kill()
        began = time.monotonic()
        until(lambda: answers(http), "calls are answered again")
        print(f"a killed gateway answered again after {time.monotonic() - began:.2f} s")
    told = [json.loads(line) for line in stack.compose("logs", "--no-log-prefix", "runner").splitlines() if "knows all routes" in line]
    # It takes them all or none: whoever answers one call knows each of them.
    assert told[-1]["routes"] > ROUTES


def test_no_field_of_a_callers_says_where_they_call_from(stack: Stack) -> None:
    there = "203.0.113.9"
    forged = {"x-forwarded-for": there, "x-real-ip": there, "forwarded": f"for={there}", "x-modelyard-caller": there}
    form = {"username": "nobody", "password": "no password of anybody", "grant_type": "password"}
    assert httpx2.post(f"{FRONT}/auth/token", data=form, headers=forged, timeout=ANSWER_S).status_code == 401
    newest = "select address from audit where action = 'log_in' order by seq desc limit 1"
    told = stack.inside("db", "psql", "-U", "modelyard", "-At", "-c", newest).strip()
    assert ip_address(told).is_private
    assert told != there


@pytest.mark.browser
def test_the_guides_journey_by_browser(stack: Stack, tmp_path: Path) -> None:
    by_browser(stack.modelyard("token", "--link").strip(), stack.in_shell, tmp_path)


def test_the_command_line_does_at_the_stack_what_it_does_at_one_process(stack: Stack, tmp_path: Path) -> None:
    by_command_line(stack, tmp_path)


def test_the_doctor_says_what_the_stack_takes_at_rest_and_that_all_is_well(stack: Stack) -> None:
    told = json.loads(stack.modelyard("doctor", "--json"))
    checks = {each["name"]: each for each in told["checks"]}
    print(checks["stack memory"]["detail"])
    assert (told["ok"], checks["stack memory"]["state"], checks["stack"]["detail"]) == (True, "ok", "every service is healthy")
    assert re.fullmatch(rf"\d+ MiB of 2000 MiB in 8 services of {stack.name} \(.*\)", checks["stack memory"]["detail"])


def test_the_doctor_says_the_page_s_words_of_what_is_away(stack: Stack) -> None:
    stack.compose("stop", "kafka", "db")
    said = ""

    def says_both() -> bool:
        nonlocal said
        said = stack.modelyard("doctor", "--json", fails_with=NOT_READY)
        return all(f'waits_for: [\\"{name}\\"]' in said for name in ("kafka", "database"))

    until(says_both, "both are told of")
    assert all(f"{service} is exited with" in said for service in ("kafka", "db"))
    stack.compose("start", "db", "kafka")
    with stack.http(FRONT, stack.owner()) as http:
        stack.wait_until_healthy(http)


@pytest.mark.parametrize("service", [name for name in SERVICES if name not in {"builder", "runner"}])
def test_the_engine_is_out_of_reach_of_whoever_takes_requests(stack: Stack, service: str) -> None:
    assert stack.compose("exec", "-T", service, "sh", "-c", f"if [ -e {ENGINE} ]; then echo there; fi") == ""


@pytest.mark.parametrize("service", SERVICES)
def test_a_restart_of_any_service_and_the_journey_goes_on(stack: Stack, owner: str, service: str) -> None:
    stack.compose("restart", service)
    journey_goes_on(stack, owner, f"after-{service}")


def test_all_are_restarted_one_behind_the_other_in_some_order_and_the_journey_goes_on(stack: Stack, owner: str) -> None:
    order = random.sample(SERVICES, len(SERVICES))
    print("restarted in this order:", *order)
    for service in order:
        stack.compose("restart", service)
    journey_goes_on(stack, owner, "after-all")


def journey_goes_on(stack: Stack, owner: str, name: str) -> None:
    """Upload, build, call and delete a model, once everything says that it is healthy."""
    with stack.http(FRONT, owner) as http:
        until(lambda: answers(http), "calls are answered again")
        until(lambda: http.get("/health").json().get("status") == "healthy", "all of it is healthy")
        taken = upload(http, name)
        assert taken["status"] == "ready", taken
        assert predict(http, name).json() == {"prediction": "Processed: hello", "model": "test-model"}
        gone = http.delete(f"/models/testuser/{name}", params={"purge": "true"})
        assert gone.status_code in {200, 202}, gone.text
        until(lambda: http.get(f"/models/testuser/{name}").status_code == 404, "it is gone")
        until(lambda: stack.run("docker", "images", "--quiet", f"ml-models/testuser/{name}") == "", "and so is its image")
