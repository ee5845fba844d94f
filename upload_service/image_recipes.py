"""What our images are beside their files: the same words in every image of a kind, whatever was uploaded."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from modelyard.domain.plan import Plan
from modelyard.runtime.arguments import SANDBOX_UID
from modelyard.runtime.command import Layout, variables, words
from modelyard.runtime.server_config import files
from upload_service import image_launcher
from upload_service.base_image import BaseImage
from upload_service.builders import Source
from upload_service.engine import Json
from upload_service.image_load import Recipe

ENVIRONMENT, CODE = "environment", "code"
"""What `modelyard.image` says of an image."""
KIND, SERVER, BYTES, SHA256 = "modelyard.image", "modelyard.server", "modelyard.layer_bytes", "modelyard.sha256"
ENVIRONMENT_ROOT, CODE_ROOT = "env", "srv/app"
ANYWHERE = "0.0.0.0"  # noqa: S104 - a container has a network of its own
LAUNCHER = "/usr/lib/modelyard/launcher"
START = "srv/start.json"
OPEN_FOLDERS = ("app",)

_OF_ONE_PLAN = re.compile(r"PORT|MODELYARD_\w+|\w+_(?:NUM|MAXIMUM)_THREADS")


def recipe() -> Recipe:
    """Of every image that an app runs in, and of those below them."""
    told = {name: value for name, value in variables(_any_plan(), 0, "").items() if not _OF_ONE_PLAN.fullmatch(name)}
    return Recipe((Layout().python, "-I", "-S", LAUNCHER), f"{SANDBOX_UID}:{SANDBOX_UID}", Layout().app, told)


def dockerfile() -> bytes:
    """The same image by an engine's own build: one text for every upload; what differs is below it, in its layer, and in its labels."""
    made = recipe()
    lines = [
        "ARG BELOW",
        "FROM ${BELOW}",
        "ADD layer.tar /",
        f"ENV {' '.join(f'{name}={json.dumps(value)}' for name, value in sorted(made.variables.items()))}",
        f"WORKDIR {made.folder}",
        f"USER {made.user}",
        f"STOPSIGNAL {made.stop_signal}",
        f"ENTRYPOINT {json.dumps(list(made.entrypoint))}",
        "CMD []",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def environment_files() -> dict[str, bytes]:
    """The files of ours that lie beside an environment."""
    etc = {
        "etc/passwd": f"root:x:0:0::/root:/bin/sh\napp:x:{SANDBOX_UID}:{SANDBOX_UID}::{Layout().scratch}:/bin/sh\n",
        "etc/group": f"root:x:0:\napp:x:{SANDBOX_UID}:\n",
    }
    etc |= {f"{Layout().configuration[1:]}/{name}": text for name, text in files(ANYWHERE).items()}
    return {LAUNCHER[1:]: Path(image_launcher.__file__).read_bytes()} | {name: text.encode() for name, text in etc.items()}


def environment_labels(base: BaseImage, server: str, content_bytes: int) -> dict[str, str]:
    """The labels of an environment.

    Args:
        server: The folder of the server's own packages below the environment, or empty.
    """
    return {KIND: ENVIRONMENT, SERVER: server, BYTES: str(content_bytes), **_base_labels(base)}


def code_labels(source: Source, base: BaseImage, reference: str, content_bytes: int) -> dict[str, str]:
    """The labels of a version's image."""
    return {
        KIND: CODE,
        BYTES: str(content_bytes),
        SHA256: source.sha256,
        "modelyard.environment": reference,
        "org.opencontainers.image.title": source.label,
        "org.opencontainers.image.version": str(source.number),
        "org.opencontainers.image.description": source.description,
        **_base_labels(base),
    }


def content_bytes(image: Json) -> int:
    """The bytes of the files in the last layer of an image of ours."""
    return int(image["Config"]["Labels"][BYTES])


def start_file(plan: Plan, server: str) -> bytes:
    """What the launcher reads: the words of the command, the folder below the code, and variables that the image does not set."""
    layout = Layout(server=server, host=ANYWHERE)
    told = variables(plan, plan.port, "", layout)
    for name in ("MODELYARD_VERSION", "MODELYARD_WEIGHTS"):  # what only a runtime knows, or mounts
        told.pop(name, None)
    start = {"words": list(words(plan, plan.port, layout)), "folder": plan.folder, "variables": told}
    return json.dumps(start, sort_keys=True).encode()


def _base_labels(base: BaseImage) -> Mapping[str, str]:
    return {"org.opencontainers.image.base.name": base.name, "org.opencontainers.image.base.digest": base.id}


def _any_plan() -> Plan:
    return Plan(server="command", command=("python",))
