"""The settings of the container engine."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class RegistrySettings(BaseModel):
    """A private registry that keeps the images of models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(default="", pattern=r"^([a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9._-]+)*)?$")
    """Host, port and path before all names, such as `registry.example.com:5000/models`; no registry where it is not set."""


class DockerSettings(BaseModel):
    """Where the engine is and what it is to use, for `runtime = "docker"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = ""
    """Such as `unix:///var/run/docker.sock`; what DOCKER_HOST says where it is not set."""
    inlet_image: str = Field(default="modelyard/inlet:1", min_length=1)
    """The image of the ways into apps."""
    sockets_volume: str = Field(default="modelyard-sockets", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")
    """The volume that holds their sockets."""
    sockets_at: Path | None = None
    """Where this process and the front door see that volume, if not where the engine's machine has it: in containers that mount it."""
    data_at: Path | None = None
    """Where the engine's machine has the data folder, if not where this process has it: in a container that mounts it."""
    warm_inlets: int = Field(default=32, ge=0)
    """How many of the models that were used last keep their inlet started while they do not run: about 2 MB each."""
