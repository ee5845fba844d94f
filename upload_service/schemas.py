"""The bodies that the upload service answers."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from modelyard.domain.ids import RULE, is_name

MOST_USERS = 1000
"""With whom one model is shared."""


class _Body(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class Upload(_Body):
    """One version of a model, as uploads and listings show it.

    `docker_image` and `docker_container_id` are null under the process runtime, as `runtime` says.
    """

    id: str
    username: str
    model_name: str
    description: str
    version: int
    status: str
    docker_image: str | None = None
    docker_container_id: str | None = None
    runtime: str
    sha256: str
    created_at: datetime
    since: datetime
    url: str
    build_id: str | None = None
    log_url: str | None = None
    reason: str | None = None
    message: str | None = None
    mend: str | None = None
    duplicate: bool | None = None


class Models(_Body):
    """Models by owner and name, the newest upload of each."""

    models: list[Upload]


def _username(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"a username is {RULE}")
    return text


class Access(_Body):
    """Who may call a model beside its owner and administrators: anybody, even without a credential, where it is public; else these users."""

    model_config = ConfigDict(extra="forbid")

    public: bool
    users: list[Annotated[str, AfterValidator(_username)]] = Field(max_length=MOST_USERS)


class Model(Upload):
    """A model with its versions, what serves it, and who may call it."""

    versions: list[Upload]
    serving: int | None
    state: str
    found: str
    settings: dict[str, object]
    access: Access


class Step(_Body):
    """One step of a build, and the seconds it took once it has ended."""

    name: str
    seconds: float | None


class Build(_Body):
    """How far a build has come."""

    id: str
    upload_id: str
    username: str
    model_name: str
    version: int
    status: str
    step: str
    attempts: int
    since: datetime
    reason: str | None = None
    message: str | None = None
    mend: str | None = None
    steps: list[Step]
    log_url: str
    url: str


class Deleted(_Body):
    """What a deletion freed and what it keeps for a later undelete, in bytes."""

    id: str
    username: str
    model_name: str
    status: Literal["deleted", "deleting"]
    bytes_freed: int
    bytes_kept: int


class LogLine(_Body):
    """One line of a build's log; `n` counts from 1 without gaps."""

    n: int
    at: datetime
    text: str


class Told(_Body):
    """An event as it was published; `cursor` is where a reader goes on behind it."""

    cursor: str
    id: str
    time: datetime
    event: str
    data: dict[str, object]


class Events(_Body):
    """Events in the order in which they were published."""

    events: list[Told]
