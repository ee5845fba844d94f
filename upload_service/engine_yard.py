"""All that one yard has in an engine: told, and removed with nothing of anybody else's."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from modelyard.runtime import engine_names
from modelyard.runtime.engine import EngineRefusedError, Json
from modelyard.runtime.sockets_volume import SocketsVolume
from upload_service.engine import BuildEngine

PUBLIC_IMAGES = "ml-models/*/*:*"
KINDS = ("container", "sockets", "network", "image", "volume")
"""In the order in which they can be removed: a container holds its image, and an inlet its sockets."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in the engine, by a name that people know it by."""

    kind: str
    name: str
    id: str


class EngineYard:
    """One yard's share of an engine.

    Args:
        sockets: The volume of its sockets, which other yards may use too.
        volume: That volume's name.
    """

    def __init__(self, engine: BuildEngine, yard: str, sockets: SocketsVolume, volume: str) -> None:
        self._engine = engine
        self._yard = yard
        self._sockets = sockets
        self._volume = volume

    def things(self, *, volumes: bool) -> list[Thing]:
        """What is there, in the order in which it can be removed.

        Args:
            volumes: Images and volumes too: what can only be had again by building.

        Raises:
            EngineAway: It does not answer.
        """
        mine = [engine_names.label(engine_names.YARD, self._yard)]
        found = [Thing("container", str(each["Names"][0]).lstrip("/"), str(each["Id"])) for each in self._engine.containers(mine)]
        there = self._has_volume()
        found += [Thing("sockets", name, name) for name in (self._sockets.mine() if there else ())]
        found += [Thing("network", str(each["Name"]), str(each["Id"])) for each in self._engine.networks(mine)]
        if volumes:
            found += self._images()
            found += [Thing("volume", str(each["Name"]), str(each["Name"])) for each in self._engine.volumes(mine)]
            if there and self._sockets.is_mine_alone():
                found.append(Thing("volume", self._volume, self._volume))
        return found

    def remove(self, thing: Thing) -> None:
        """Remove it; it is gone already: nothing happens.

        Raises:
            EngineAway: It does not answer.
            EngineRefusedError: Somebody else uses it.
        """
        match thing.kind:
            case "container":
                self._engine.remove(thing.id)
            case "sockets":
                self._sockets.remove_folder(thing.id)
            case "network":
                self._engine.remove_network(thing.id)
            case "image":
                self._engine.untag(thing.id)
            case "volume" if thing.id == self._volume:
                # It is others' as well: while somebody's container mounts it, it stays.
                with suppress(EngineRefusedError):
                    self._engine.remove_volume(thing.id)
            case _:
                self._engine.remove_volume(thing.id)

    def _images(self) -> Iterator[Thing]:
        """Our tags; and those that people know, where they lead to the same images."""
        ours = []
        for repository in (engine_names.CODE_IMAGES, engine_names.ENVIRONMENT_IMAGES, engine_names.TOOL_IMAGES):
            ours += self._engine.images(f"{repository}/{self._yard}:*")
        ids = {self._id(tag) for tag in ours}
        public = [tag for tag in self._engine.images(PUBLIC_IMAGES) if self._id(tag) in ids]
        # The topmost first: an image goes once nothing lies on it any more.
        yield from (Thing("image", tag, tag) for tag in (*public, *ours))

    def _id(self, tag: str) -> str:
        image: Json | None = self._engine.image(tag)
        return str(image["Id"]) if image is not None else ""

    def _has_volume(self) -> bool:
        return any(each["Name"] == self._volume for each in self._engine.volumes([]))


def remove_all(yard: EngineYard, *, volumes: bool) -> list[tuple[Thing, str]]:
    """Remove everything that is there; gives what could not be removed, and why.

    Raises:
        EngineAway: It does not answer.
    """
    failed = []
    for thing in yard.things(volumes=volumes):
        try:
            yard.remove(thing)
        except EngineRefusedError as error:
            failed.append((thing, str(error)))
    return failed
