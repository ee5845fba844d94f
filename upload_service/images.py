"""The images of one yard: an environment for each lock, shared, and on top of it the code of each version.

Each is one layer on the image below, loaded into the engine as a configuration of ours and that layer alone; where an engine refuses such
a load, it builds the same layer by a Dockerfile that is the same for every upload.
"""

import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import structlog

from modelyard.domain.plan import Plan
from modelyard.runtime import engine_names
from upload_service import image_recipes
from upload_service.archive import read_archive
from upload_service.base_image import BaseImage
from upload_service.builders import BuildError, Log, Source
from upload_service.engine import BuildEngine, EngineRefusedError, Json
from upload_service.image_load import configuration, load_stream
from upload_service.image_recipes import SERVER
from upload_service.layers import Layer, add, code_layer, copied_layer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Below:
    """What an image is made on: its id, its layers, and what it runs on."""

    id: str
    diff_ids: tuple[str, ...]
    platform: tuple[str, str]


class Images:
    """Makes, names, lists and removes images; a tag of ours stands for each.

    Args:
        spool: A folder on the disk for layers on their way.
        loads: Whether to try to load layers; else the engine builds them.
    """

    def __init__(self, engine: BuildEngine, yard: str, spool: Path, *, loads: bool) -> None:
        self._engine = engine
        self._yard = yard
        self._spool = spool
        self._loads = loads

    def environment(self, reference: str) -> Json | None:
        """The environment's image, where it is there."""
        return self._engine.image(engine_names.environment_image(self._yard, reference))

    def add_environment(self, reference: str, base: BaseImage, stream: Iterable[bytes], server: str, told: Log) -> int:
        """Make an environment's image from what a container sends of its folder; returns the bytes of its files.

        Args:
            server: The folder of the server's own packages below the environment, or empty.
        """
        files, folders = image_recipes.environment_files(), image_recipes.OPEN_FOLDERS
        root = image_recipes.ENVIRONMENT_ROOT
        with copied_layer(stream, root, lambda target: target in base.interpreters, files, folders, self._spool) as layer:
            labels = image_recipes.environment_labels(base, server, layer.content_bytes)
            tag = engine_names.environment_image(self._yard, reference)
            self._add(_Below(base.id, base.diff_ids, base.platform), layer, labels, [tag], "packages", told)
            return layer.content_bytes

    def add_code(self, source: Source, base: BaseImage, reference: str, plan: Plan, told: Log) -> int:
        """Make a version's image; returns the bytes of its files.

        Raises:
            BuildError: `environment_gone`.
        """
        below = self.environment(reference)
        if below is None:
            raise BuildError("environment_gone", "The image of the app's packages is gone.", "Upload again.")
        files = {image_recipes.START: image_recipes.start_file(plan, below["Config"]["Labels"][SERVER])}
        with read_archive(source.archive) as archive, code_layer(archive, image_recipes.CODE_ROOT, files, self._spool) as layer:
            labels = image_recipes.code_labels(source, base, reference, layer.content_bytes)
            tags = [engine_names.code_image(self._yard, source.version_id), engine_names.public_image(source.label, source.number)]
            self._add(_Below(below["Id"], tuple(below["RootFS"]["Layers"]), base.platform), layer, labels, tags, "code", told)
            return layer.content_bytes

    def serve(self, label: str, version_id: str | None) -> bool:
        """Let people's name of what serves lead to this version, and tell whether it did not before; None takes the name away."""
        name = engine_names.public_image(label)
        if version_id is None:
            self._untag_public(name)
            return False
        tag = engine_names.code_image(self._yard, version_id)
        image = self._engine.image(tag)
        if image is None or name in image["RepoTags"]:
            return False
        self._engine.tag(tag, name)
        return True

    def remove_environment(self, reference: str) -> int:
        """Remove an environment's image and return the bytes freed; unknown: 0."""
        return self._remove(engine_names.environment_image(self._yard, reference))

    def remove_code(self, version_id: str) -> int:
        """Remove a version's image, with people's names of it, and return the bytes freed; unknown: 0."""
        return self._remove(engine_names.code_image(self._yard, version_id))

    def environments(self) -> list[str]:
        """The references of the environments."""
        return self._listed(engine_names.ENVIRONMENT_IMAGES)

    def codes(self) -> list[str]:
        """The ids of the versions that have an image."""
        return self._listed(engine_names.CODE_IMAGES)

    def usage(self) -> dict[str, int]:
        """The bytes of this yard's layers by what they hold; a layer of several images is counted once."""
        return {"code": self._bytes(engine_names.CODE_IMAGES), "packages": self._bytes(engine_names.ENVIRONMENT_IMAGES)}

    def _bytes(self, kind: str) -> int:
        found = (self._engine.image(tag) for tag in self._engine.images(f"{kind}/{self._yard}:*"))
        layers = {tuple(image["RootFS"]["Layers"]): image_recipes.content_bytes(image) for image in found if image is not None}
        return sum(layers.values())

    def _listed(self, kind: str) -> list[str]:
        return [tag.rpartition(":")[2] for tag in self._engine.images(f"{kind}/{self._yard}:*")]

    def _remove(self, tag: str) -> int:
        found = self._engine.image(tag)
        if found is None:
            return 0
        self._engine.untag(tag)
        left = [each for each in found["RepoTags"] if each != tag]
        if not any(each.startswith((engine_names.CODE_IMAGES, engine_names.ENVIRONMENT_IMAGES)) for each in left):
            for each in left:  # people's names of an image that no version has any more
                self._engine.untag(each)
        layers = found["RootFS"]["Layers"]
        if any(each["RootFS"]["Layers"][: len(layers)] == layers for each in self._ours()):
            return 0
        return image_recipes.content_bytes(found)

    def _ours(self) -> list[Json]:
        """Every image of every yard of this engine that was made here."""
        tags = [tag for kind in (engine_names.CODE_IMAGES, engine_names.ENVIRONMENT_IMAGES) for tag in self._engine.images(f"{kind}/*:*")]
        return [image for tag in tags if (image := self._engine.image(tag)) is not None]

    def _untag_public(self, name: str) -> None:
        found = self._engine.image(name)
        own = engine_names.code_image(self._yard, "")
        if found is not None and any(tag.startswith(own) for tag in found["RepoTags"]):  # else another yard of this engine has taken it
            self._engine.untag(name)

    def _add(self, below: _Below, layer: Layer, labels: Mapping[str, str], tags: Sequence[str], line: str, told: Log) -> None:
        told.check()
        before = self._engine.image(tags[0])
        self._make(below, layer, labels, tags, line, told)
        if before is not None and (left := self._engine.image(before["Id"])) is not None and not left["RepoTags"]:
            self._engine.untag(before["Id"])

    def _make(self, below: _Below, layer: Layer, labels: Mapping[str, str], tags: Sequence[str], line: str, told: Log) -> None:
        if self._loads:
            history = [*(f"below {number}" for number in range(len(below.diff_ids))), line]
            config = configuration(image_recipes.recipe(), labels, below.platform, [*below.diff_ids, layer.diff_id], history)
            try:
                self._engine.load(load_stream(config, layer, len(below.diff_ids), tags))
            except EngineRefusedError as error:
                _check_room(error)
                log.warning("the engine refuses a layer alone, and builds it", why=str(error))
            else:
                return
        try:
            self._build(below, layer, labels, tags, told)
        except EngineRefusedError as error:
            _check_room(error)
            raise
        self._loads = False  # it was asked once, and what it was asked for is possible: nothing else was in the way

    def _build(self, below: _Below, layer: Layer, labels: Mapping[str, str], tags: Sequence[str], told: Log) -> None:
        first, *others = tags
        with cast("IO[bytes]", tempfile.TemporaryFile(dir=self._spool)) as context:
            with tarfile.open(fileobj=context, mode="w", format=tarfile.PAX_FORMAT) as tar:
                text = image_recipes.dockerfile()
                add(tar, "Dockerfile", len(text), [text])
                add(tar, "layer.tar", layer.size_bytes, layer.chunks())
            context.seek(0)
            with closing(self._engine.build(context, first, {"BELOW": below.id}, labels)) as lines:
                for printed in lines:
                    told(printed)
        for tag in others:
            self._engine.tag(first, tag)


def _check_room(error: EngineRefusedError) -> None:
    if "no space left on device" in str(error).lower():
        raise BuildError(
            "disk_full", "The engine's disk is full.", "Delete models that are not needed, or run `modelyard gc --caches`."
        ) from error
