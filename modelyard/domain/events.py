"""Every event that Modelyard tells the world: past tense, with its topic, wire name and key.

The value on the wire is `{"event": <wire name>, "data": {...}}`; fields are only ever added.
"""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

MODEL_EVENTS = "model-events"


class Event(BaseModel):
    """What happened to a model; the key is the model's id, so one model's events keep their order."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    topic: ClassVar[str] = MODEL_EVENTS
    wire_name: ClassVar[str]
    key_field: ClassVar[str] = "model_id"
    """Stands last in each event: the fields before it keep their places on the wire."""
    owner_field: ClassVar[str] = "username"

    @property
    def key(self) -> str:
        """The id whose order matters."""
        return str(getattr(self, self.key_field))

    @property
    def owner(self) -> str:
        """Whose model it tells of."""
        return str(getattr(self, self.owner_field))


class ModelUploaded(Event):
    """A version passed its checks, its build and its verification, and can be called."""

    wire_name: ClassVar[str] = "model.uploaded"

    upload_id: str
    username: str
    model_name: str
    description: str
    docker_image: str | None = None
    docker_container_id: str | None = None
    status: Literal["ready"] = "ready"
    version: int
    sha256: str
    runtime: str
    build_s: float
    model_id: str


class ModelBuildFailed(Event):
    """A build ended without a version that can be called."""

    wire_name: ClassVar[str] = "model.build_failed"

    upload_id: str
    username: str
    model_name: str
    version: int
    build_id: str
    reason: str
    mend: str
    model_id: str


class ModelDeleted(Event):
    """A version was deleted; `last` tells that the model went with it."""

    wire_name: ClassVar[str] = "model.deleted"

    upload_id: str
    username: str
    model_name: str
    version: int
    last: bool
    model_id: str


class ModelReleased(Event):
    """Another version serves the model's calls."""

    wire_name: ClassVar[str] = "model.released"

    upload_id: str
    username: str
    model_name: str
    version: int
    model_id: str


class ModelStarted(Event):
    """An instance answers calls."""

    wire_name: ClassVar[str] = "model.started"

    upload_id: str
    username: str
    model_name: str
    version: int
    instance: str
    start_s: float
    model_id: str


class ModelFrozen(Event):
    """An idle instance uses no processor until the next call."""

    wire_name: ClassVar[str] = "model.frozen"

    upload_id: str
    username: str
    model_name: str
    version: int
    instance: str
    model_id: str


class ModelStopped(Event):
    """An instance was ended by the platform."""

    wire_name: ClassVar[str] = "model.stopped"

    upload_id: str
    username: str
    model_name: str
    version: int
    instance: str
    reason: str
    model_id: str


class ModelCrashed(Event):
    """An instance ended by itself, or never became ready."""

    wire_name: ClassVar[str] = "model.crashed"

    upload_id: str
    username: str
    model_name: str
    version: int
    instance: str
    reason: str
    retry_after_s: int
    model_id: str


EVENTS: tuple[type[Event], ...] = (
    ModelUploaded,
    ModelBuildFailed,
    ModelDeleted,
    ModelReleased,
    ModelStarted,
    ModelFrozen,
    ModelStopped,
    ModelCrashed,
)
