"""What callers see of images and containers: people's name of what serves, and of what does not; nothing before it is ready."""

from collections.abc import Callable
from typing import Any

import pytest
from stage import Stage, app_zip

from upload_service.builders import BuildCancelledError, Log


@pytest.fixture
def docker(make_stage: Callable[..., Stage]) -> Stage:
    """A stage whose versions are images."""
    return make_stage(runtime="docker")


def shown(stage: Stage, version_id: str) -> tuple[Any, Any]:
    told = stage.http.get("/models/ada/fruit").json()
    (found,) = [each for each in told["versions"] if each["id"] == version_id]
    return found["docker_image"], found["docker_container_id"]


def test_the_row_and_the_event_name_image_and_container(docker: Stage) -> None:
    taken = docker.upload().json()
    assert (taken["docker_image"], taken["docker_container_id"], taken["runtime"]) == (None, None, "docker")
    assert docker.step("builds")

    named = {"docker_image": "ml-models/ada/fruit:latest", "docker_container_id": f"container-of-{taken['id']}"}
    (row,) = docker.http.get("/models/ada").json()["models"]
    assert {name: row[name] for name in named} == named
    (told,) = docker.events()
    assert {name: told["data"][name] for name in named} == named
    assert docker.builder.serving == {"ada/fruit": taken["id"]}


def test_latest_is_the_version_that_serves_and_the_others_have_their_numbers(docker: Stage) -> None:
    first = docker.ready(content=app_zip("one"))
    second = docker.ready(content=app_zip("two"))
    waiting = docker.upload(content=app_zip("three")).json()

    assert shown(docker, first["id"])[0] == "ml-models/ada/fruit:v1"
    assert shown(docker, second["id"])[0] == "ml-models/ada/fruit:latest"
    assert shown(docker, waiting["id"]) == (None, None)
    told = docker.http.get("/models/ada/fruit").json()
    assert (told["serving"], told["docker_image"]) == (2, None)


def test_a_slower_build_of_an_older_version_does_not_take_the_name(docker: Stage) -> None:
    older, newer = docker.upload(content=app_zip("one")).json(), docker.upload(content=app_zip("two")).json()
    first = True

    def give_way(_: Log) -> None:
        nonlocal first
        if first:
            first = False
            docker.step("builds")  # the newer one is built meanwhile

    docker.builder.acts["install"] = give_way
    assert docker.step("builds")

    assert docker.builder.serving == {"ada/fruit": newer["id"]}
    assert (shown(docker, older["id"])[0], shown(docker, newer["id"])[0]) == ("ml-models/ada/fruit:v1", "ml-models/ada/fruit:latest")
    assert [each["data"]["docker_image"] for each in docker.events()] == ["ml-models/ada/fruit:latest", "ml-models/ada/fruit:v1"]


def test_a_build_that_ends_while_its_pair_is_made_is_not_ready(docker: Stage) -> None:
    taken = docker.upload().json()

    def end(_: Log) -> None:
        raise BuildCancelledError

    docker.builder.acts["settle"] = end
    docker.step("builds")

    assert docker.version(taken["id"]).state == "received"
    assert docker.events() == []
    assert docker.builder.serving == {}


def test_under_the_process_runtime_there_is_neither(stage: Stage) -> None:
    stage.ready()
    (row,) = stage.http.get("/models/ada").json()["models"]
    assert (row["docker_image"], row["docker_container_id"], row["runtime"]) == (None, None, "process")


def test_a_name_that_a_dead_builder_did_not_give_is_given_by_the_next(docker: Stage) -> None:
    docker.ready(content=app_zip("one"))
    second = docker.ready(content=app_zip("two"))
    docker.upload(content=app_zip("three"))
    docker.builder.serving.clear()

    docker.step("sweep")
    assert docker.builder.serving == {"ada/fruit": second["id"]}
    docker.builder.serving.clear()
    docker.step("sweep")
    assert docker.builder.serving == {}, "once is enough"
