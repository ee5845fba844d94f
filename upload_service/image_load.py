"""Images that we write ourselves: their configuration, and the stream by which an engine takes them without the layers that it has.

The format is that of `docker save` (version 1.2 of the image specification): `manifest.json` names a configuration and one tar for each
layer. An engine that has a layer does not open its tar, so that only the new one need be sent.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from upload_service.layers import Layer

NEW = "new/layer.tar"
MADE = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is beside its files; the same for every image of a kind but for its labels.

    Args:
        user: `uid:gid`.
        variables: The whole environment.
    """

    entrypoint: tuple[str, ...]
    user: str
    folder: str
    variables: Mapping[str, str]
    stop_signal: str = "SIGTERM"


def configuration(
    recipe: Recipe, labels: Mapping[str, str], platform: tuple[str, str], diff_ids: Sequence[str], history: Sequence[str]
) -> bytes:
    """The image's configuration: the same words give the same bytes, and so the same image.

    Args:
        platform: Operating system and architecture, as the base image names them.
        diff_ids: All layers, the base's first.
        history: A line for each layer.
    """
    config = {
        "User": recipe.user,
        "Entrypoint": list(recipe.entrypoint),
        "Cmd": None,
        "WorkingDir": recipe.folder,
        "Env": [f"{name}={value}" for name, value in sorted(recipe.variables.items())],
        "Labels": dict(sorted(labels.items())),
        "StopSignal": recipe.stop_signal,
    }
    system, architecture = platform
    whole = {
        "architecture": architecture,
        "config": config,
        "created": MADE,
        "history": [{"created": MADE, "created_by": line} for line in history],
        "os": system,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()


def load_stream(config: bytes, layer: Layer, parents: int, tags: Sequence[str]) -> Iterator[bytes]:
    """What `POST /images/load` is given: the configuration, the manifest, and the new layer alone.

    Args:
        parents: How many layers lie below; they are named and not sent.
    """
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    layers = [f"{number}/layer.tar" for number in range(parents)] + [NEW]
    manifest = json.dumps([{"Config": name, "RepoTags": list(tags), "Layers": layers}]).encode()
    yield from _small(name, config)
    yield from _small("manifest.json", manifest)
    head = tarfile.TarInfo(NEW)
    head.size = layer.size_bytes
    yield head.tobuf(tarfile.USTAR_FORMAT if layer.size_bytes < 8**11 else tarfile.GNU_FORMAT)
    yield from layer.chunks()
    yield b"\0" * (-layer.size_bytes % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _small(name: str, content: bytes) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    yield entry.tobuf(tarfile.USTAR_FORMAT)
    yield content + b"\0" * (-len(content) % tarfile.BLOCKSIZE)
