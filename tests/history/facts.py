"""What a judgement is made of: what callers were told, what was done to the processes, and what is there afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request of an upload.

    Args:
        model: `owner/name`.
        at: Seconds since the history began.
        status: 0 where no answer came.
        told: The version that a 202 names; else what the answer, or its absence, says.
        state: Of the version, as a 202 tells it.
    """

    key: str
    model: str
    sha256: str
    at: float
    status: int
    told: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was ended without a warning.

    Args:
        at: Seconds since the history began.
    """

    at: float
    role: str
    pid: int


@dataclass(frozen=True, slots=True)
class History:
    """What callers saw, and what was done to the processes meanwhile.

    Args:
        answers: Of calls that were answered well: the model, and the key of the upload that the answer names.
    """

    attempts: tuple[Attempt, ...]
    kills: tuple[Kill, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """A version's row."""

    id: str
    model_id: str
    model: str
    number: int
    sha256: str
    state: str
    reference: str | None


@dataclass(frozen=True, slots=True)
class Build:
    """A build's row."""

    id: str
    version_id: str
    state: str


@dataclass(frozen=True, slots=True)
class Written:
    """An event's row in the outbox."""

    seq: int
    id: str
    key: str
    type: str
    version_id: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A record on the topic."""

    partition: int
    offset: int
    event_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is there, at rest.

    Args:
        acts: Of each version, how often the audit trail says that it was uploaded.
        effects: Of each event, how often the counting consumer had its effect.
        wanted: The versions that may run, by the desired state; `running`: those that do, by the actual one.
        processes: The versions of which a sandbox runs.
        given_up: The events that a consumer gave up.
        left: Paths and processes that belong to nothing that may be there now.
        flaw: What is wrong with the audit trail's chain; empty where nothing is.
    """

    versions: tuple[Version, ...]
    builds: tuple[Build, ...]
    events: tuple[Written, ...]
    records: tuple[Sent, ...]
    acts: Mapping[str, int]
    effects: Mapping[str, int]
    wanted: frozenset[str]
    running: frozenset[str]
    processes: frozenset[str]
    blobs: frozenset[str]
    apps: frozenset[str]
    environments: frozenset[str]
    given_up: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    flaw: str = ""
