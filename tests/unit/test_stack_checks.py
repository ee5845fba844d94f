"""What the doctor says of a local stack, by what the engine's program printed; and that docs/stack.md lists the same words."""

import json
from pathlib import Path

import pytest

from modelyard.cli import stack_checks
from modelyard.cli.check import Check
from modelyard.cli.stack_checks import (
    Part,
    check_engine,
    check_memory,
    check_parts,
    check_socket,
    check_stack,
    check_waiting,
    mib_of,
    part_of,
)

PAGE = (Path(__file__).parents[2] / "docs" / "stack.md").read_text().replace("`", "")
DENIED = (
    "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: dial: permission denied\n"
)
AWAY = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"
WELL = [Part("gateway", "running", "healthy"), Part("migrate", "exited")]


def test_a_machine_without_docker_has_no_stack() -> None:
    assert list(check_stack("/nowhere/docker")) == [Check("stack", "ok", "none: Docker is not installed")]


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (DENIED, "the Docker engine does not answer: permission denied on its socket"),
        (AWAY, f"the Docker engine does not answer: {AWAY.strip()}"),
        ("", "the Docker engine does not answer"),
    ],
)
def test_an_engine_that_cannot_be_reached_is_told_with_why(said: str, detail: str) -> None:
    check = check_engine(said)
    assert (check.state, check.detail, check.mend) == ("warn", detail, stack_checks.ENGINE_MEND)


def test_memory_is_summed_up_beside_its_limit() -> None:
    few, many = check_memory("modelyard", {"kafka": 303.4, "db": 101.2, "gateway": 18.0}), check_memory("modelyard", {"kafka": 2000.0})
    assert (few.state, few.detail) == ("ok", "423 MiB of 2000 MiB in 3 services of modelyard (kafka 303, db 101, gateway 18)")
    assert (many.state, many.mend) == ("warn", "docker stats tells who takes it")


@pytest.mark.parametrize(
    ("words", "mib"),
    [("101.5MiB / 512MiB", 101.5), ("1.5GiB / 2GiB", 1536.0), ("512KiB / 1GiB", 0.5), ("0B / 0B", 0.0), ("-- / --", 0.0)],
)
def test_the_memory_of_a_container_is_read_as_it_is_written(words: str, mib: float) -> None:
    assert mib_of(words) == mib


def test_services_that_do_not_run_as_they_should_are_named() -> None:
    assert list(check_parts(WELL)) == [Check("stack", "ok", "every service is healthy")]
    assert [each.detail for each in check_parts([*WELL, Part("auth", "running", "starting")])] == ["auth starting"]
    ill = [*WELL, Part("kafka", "exited", "unhealthy", 137), Part("db", "running", "unhealthy"), Part("migrate", "exited", "", 1)]
    assert [(each.state, each.detail) for each in check_parts(ill)] == [
        ("fail", "kafka is exited with 137"),
        ("fail", "db is unhealthy"),
        ("fail", "migrate is exited with 1"),
    ]


def test_whoever_is_in_another_group_than_the_socket_is_named(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    right = str(socket.stat().st_gid)
    assert list(check_socket([Part("runner", "running", groups=(right,), sockets=(str(socket),))])) == []
    (check,) = check_socket([Part("builder", "running", groups=("4711",), sockets=(str(socket),))])
    assert (check.state, check.mend) == ("fail", stack_checks.GROUP_MEND)
    assert check.detail == "permission denied on docker.sock: builder is in another group than the socket"


@pytest.mark.parametrize("name", stack_checks.AWAY)
@pytest.mark.parametrize("health", [{"status": "starting", "waits_for": ["{}"]}, {"status": "degraded", "dependencies": {"{}": "down"}}])
def test_what_services_wait_for_is_named(name: str, health: dict[str, object]) -> None:
    told = json.loads(json.dumps(health).replace("{}", name))
    (check,) = check_waiting({"auth": told, "upload": {"status": "healthy", "dependencies": {name: "up"}}})
    assert (check.name, check.state) == (name, "fail")
    assert check.detail == f'waits_for: ["{name}"]: auth'


def test_a_container_is_read_as_the_engine_tells_of_it() -> None:
    told = {
        "Config": {"Labels": {"com.docker.compose.service": "runner"}},
        "State": {"Status": "running", "Health": {"Status": "healthy"}, "ExitCode": 0},
        "HostConfig": {"GroupAdd": ["998"]},
        "Mounts": [{"Source": "/run/docker.sock", "Destination": "/var/run/docker.sock"}, {"Source": "/x", "Destination": "/y"}],
    }
    assert part_of(told) == Part("runner", "running", "healthy", 0, ("998",), ("/run/docker.sock",))


def test_the_page_lists_the_same_words_beside_the_same_mends() -> None:
    words = [stack_checks.ENGINE_AWAY, stack_checks.ENGINE_MEND, stack_checks.GROUP_MEND, *stack_checks.AWAY.values()]
    words += ["permission denied on its socket", "permission denied on docker.sock", "docker stats tells who takes it"]
    words += [f'waits_for: ["{name}"]' for name in stack_checks.AWAY]
    assert [each for each in words if each not in PAGE] == []
