"""`DockerBuilder` on the machine's engine: a yard of the test's own, of which nothing is left."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from builder_grounds import Ground, fill
from parts import package_index
from parts.docker_world import DockerWorld

from modelyard.run.settings import BuildSettings
from modelyard.runtime.engine_names import CODE_IMAGES, ENVIRONMENT_IMAGES, TOOL_IMAGES, YARD, label
from modelyard.runtime.runtime import Role
from upload_service.builders import Builder
from upload_service.docker_builder import DockerBuilder
from upload_service.docker_engine import DockerEngine
from upload_service.registry import Registry


@contextmanager
def docker_ground(
    folder: Path, *, loads: bool = True, registry: str = "", base: str = "index", password: str = "", **settings: Any
) -> Iterator[Ground]:
    """A builder; packages are fetched over the machine's own network, where the index is."""
    with ExitStack() as held:
        index = held.enter_context(package_index.serving(base, password))
        fill(index)
        world, engine = DockerWorld(), DockerEngine()
        held.callback(engine.close)
        held.callback(world.close)
        held.callback(clear, engine, world.yard)
        runtime = world.runtime(folder / "output", fetch=Registry(engine, registry).fetch if registry else None)
        held.callback(runtime.close)
        told = BuildSettings(**{"index_url": index.url, "ca_bundle": None, "network": "host", "step_timeout_s": 120, **settings})

        def fresh() -> Builder:
            own = DockerEngine()
            kept = Registry(own, registry) if registry else None
            folders = {"folder": folder / "builds", "cache": folder / "uv-cache"}
            made = DockerBuilder(own, runtime, told, world.yard, **folders, loads=loads, registry=kept)
            held.callback(made.close)
            return made

        def left() -> list[str]:
            mine = [label(YARD, world.yard), label("modelyard.role", "build")]
            found = [*engine.containers(mine), *engine.volumes(mine), *engine.networks(mine)]
            booted = [each.name for each in runtime.actual() if each.role is Role.VERIFY]
            return [*booted, *(str(each.get("Name") or each["Id"]) for each in found)]

        yield Ground(fresh(), runtime, index, folder, fresh, left, label=f"ada/fruit-{world.yard}")


def clear(engine: DockerEngine, yard: str) -> None:
    """Remove a yard's images and volumes; its containers are gone. An image of the same bytes may be another yard's too."""
    mine = [tag for kind in (CODE_IMAGES, ENVIRONMENT_IMAGES, TOOL_IMAGES) for tag in engine.images(f"{kind}/{yard}:*")]
    for tag in [*engine.images(f"ml-models/ada/fruit-{yard}:*"), *mine]:
        engine.untag(tag)
    for each in engine.containers([label(YARD, yard)]):
        engine.remove(each["Id"])
    for each in engine.volumes([label(YARD, yard)]):
        engine.remove_volume(each["Name"])
