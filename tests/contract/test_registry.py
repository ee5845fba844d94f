"""A registry beside the engine: what is built goes there, and what an engine has lost comes from there, the same to the byte."""

from collections.abc import Iterator

import pytest
from builder_grounds import APP, Ground, Lines, plan
from docker_builder_ground import docker_ground
from parts import engine as parts_engine
from parts import registry
from test_docker_builder import made, yard

from modelyard.runtime.engine import EngineRefusedError
from modelyard.runtime.engine_names import code_image
from modelyard.runtime.runtime import InstanceSpec, Role, StartError
from upload_service.builders import BuildError
from upload_service.docker_engine import DockerEngine
from upload_service.registry import Registry

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry.running(tmp_path_factory.mktemp("registry") / "one") as name:
        yield f"{name}/of/ours"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, host: str) -> Iterator[Ground]:
    with docker_ground(tmp_path_factory.mktemp("docker"), registry=host) as found:
        yield found


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    found = DockerEngine()
    yield found
    found.close()


def test_what_an_engine_has_lost_is_fetched_before_a_start(ground: Ground, engine: DockerEngine, host: str) -> None:
    told = plan("greeting==1.0")
    reference = made(ground, told)
    tag = code_image(yard(ground), "v1")
    before = engine.image(tag)
    assert before
    assert not [name for name in before["RepoTags"] if name.startswith(host)], "nothing of the push is left here"
    ground.builder.remove_code("v1")
    ground.builder.remove(reference)
    assert engine.image(tag) is None

    ground.runtime.create(InstanceSpec("again", Role.APP, "v1", reference, told, ground.label))
    try:
        after = engine.image(tag)
        assert after
        assert after["Id"] == before["Id"]
        assert ground.runtime.start("again")
    finally:
        ground.runtime.remove("again")


def test_people_s_names_are_there_too(ground: Ground, engine: DockerEngine, host: str) -> None:
    made(ground, plan("greeting==1.0"), "v2", 2)
    ground.builder.serve(ground.label, "v2")
    found = engine.image(code_image(yard(ground), "v2"))
    assert found
    for name in ("v2", "latest"):
        there = f"{host}/ml-models/{ground.label}:{name}"
        engine.pull(there)
        try:
            assert (engine.image(there) or {})["Id"] == found["Id"]
        finally:
            engine.untag(there)


def test_what_nobody_has_is_no_start(ground: Ground) -> None:
    spec = InstanceSpec("never", Role.APP, "never-built", "0" * 40, plan(), ground.label)
    with pytest.raises(StartError, match="cannot be fetched"):
        ground.runtime.create(spec)
    ground.runtime.remove("never")


def test_a_registry_that_is_away_fails_the_build_and_is_named(ground: Ground, engine: DockerEngine) -> None:
    (port,) = parts_engine.free_ports(1)
    made(ground, plan("greeting==1.0"), "v3", 3, APP)
    away = Registry(engine, f"127.0.0.1:{port}")
    with pytest.raises(BuildError) as refused:
        away.push(code_image(yard(ground), "v3"), Lines())
    assert refused.value.code == "push_failed"
    with pytest.raises(EngineRefusedError):
        away.fetch(code_image(yard(ground), "v3"))
    found = engine.image(code_image(yard(ground), "v3"))
    assert found
    assert not [name for name in found["RepoTags"] if name.startswith("127.0.0.1")]
