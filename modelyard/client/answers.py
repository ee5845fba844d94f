"""What the server answers, as typed values."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Answer(BaseModel):
    """What the server said; members that this client does not know yet are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class ModelRow(Answer):
    """One model, by its newest upload; times are RFC 3339 UTC."""

    id: str
    username: str
    model_name: str
    version: int
    status: str
    description: str = ""
    docker_image: str | None = None
    docker_container_id: str | None = None
    created_at: str | None = None
    url: str = ""
    build_id: str | None = None
    log_url: str | None = None


class Upload(ModelRow):
    """An upload as it was taken; where its build has failed, `reason` is a stable code and `message` says it in words."""

    duplicate: bool | None = None
    reason: str | None = None
    message: str | None = None
    mend: str | None = None


class Version(Answer):
    """One immutable upload of a model."""

    id: str
    version: int
    status: str


class Access(Answer):
    """Who may call a model beside its owner and administrators: anybody where it is public, else these users."""

    public: bool = False
    users: tuple[str, ...] = ()


class Model(ModelRow):
    """One model with all its versions; `found` is what was detected in its zip."""

    versions: tuple[Version, ...] = ()
    serving: JsonValue = None
    state: str | None = None
    found: JsonValue = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    access: Access = Access()


class Step(Answer):
    """One step of a build; `seconds` is None until it has ended."""

    name: str
    seconds: float | None = None


class Build(Answer):
    """One attempt to make a version ready; `status` is queued, running, succeeded, failed or cancelled."""

    id: str
    status: str
    reason: str | None = None
    message: str | None = None
    mend: str | None = None
    steps: tuple[Step, ...] = ()


class LogLine(Answer):
    """A line of a build's log: its number from 1, its time (RFC 3339 UTC) and its text."""

    n: int
    at: str
    text: str


class Event(Answer):
    """What happened to a model; `cursor` says where to go on behind it, `id` tells it from its repetitions."""

    cursor: str
    id: str
    time: str
    event: str
    data: dict[str, JsonValue] = Field(default_factory=dict)


class Deleted(Answer):
    """What a deletion freed and kept, in bytes; `status` is `deleting` where it still goes on."""

    username: str
    model_name: str
    status: str
    id: str | None = None
    bytes_freed: int = 0
    bytes_kept: int = 0


class Health(Answer):
    """Whether the server is well."""

    status: str
    service: str = ""
