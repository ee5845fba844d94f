"""Every row that is kept beside those of accounts, grouped by the one service that writes it."""

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.domain.states import BuildState, InstanceState, VersionState
from modelyard.store.row import ID, NAME, SEQUENCE, STATE, Json, Row

# Written by the upload service.


class ModelRow(Row):
    """A name of an owner, and what all its versions share."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner: Mapped[str] = mapped_column(NAME)
    name: Mapped[str] = mapped_column(NAME)
    created_at: Mapped[float] = mapped_column(Float)
    deleted_at: Mapped[float | None] = mapped_column(Float)
    newest: Mapped[int] = mapped_column(Integer, default=0)
    """The highest version number that was ever given out."""
    label: Mapped[str] = mapped_column(String(33), unique=True)
    """The first part of the host name on which its own pages live."""
    public: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether anybody may call it, without a credential."""
    access_changed_at: Mapped[float] = mapped_column(Float, default=0.0, index=True)
    """When it was last said who may call it: routes that were made before are made anew."""

    __table_args__ = (UniqueConstraint("owner", "name"),)


class ShareRow(Row):
    """A user who may call a model of somebody else."""

    __tablename__ = "shares"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    username: Mapped[str] = mapped_column(NAME, primary_key=True)
    created_at: Mapped[float] = mapped_column(Float)


class VersionRow(Row):
    """One upload: its bytes, its plan and how far it has come."""

    __tablename__ = "versions"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int] = mapped_column(Integer)
    description: Mapped[str] = mapped_column(Text, default="")
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    plan: Mapped[Json] = mapped_column(JSON)
    state: Mapped[VersionState] = mapped_column(STATE)
    since: Mapped[float] = mapped_column(Float)
    reason: Mapped[str | None] = mapped_column(String(60))
    message: Mapped[str | None] = mapped_column(Text)
    mend: Mapped[str | None] = mapped_column(Text)
    reference: Mapped[str | None] = mapped_column(String(120), index=True)
    """What the builder built, and what a runtime starts; written before the builder looks into its cache."""
    host: Mapped[str | None] = mapped_column(String(45))
    port: Mapped[int | None] = mapped_column(Integer)
    runtime: Mapped[str] = mapped_column(String(16))
    docker_container_id: Mapped[str | None] = mapped_column(String(64))
    """The app's container that was made with it; None where its runtime has none."""
    purge: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether its deletion takes the zip and this row too."""
    freed_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """What its deletion freed, once it is deleted."""
    created_at: Mapped[float] = mapped_column(Float)
    build_s: Mapped[float | None] = mapped_column(Float)

    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        Index("ix_versions_model_id_state", "model_id", "state"),
        # What is being deleted, and what was, is looked for every second.
        Index("ix_versions_state_purge", "state", "purge", "since"),
    )


class BuildRow(Row):
    """One attempt to make a version ready, held by a lease."""

    __tablename__ = "builds"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), index=True)
    state: Mapped[BuildState] = mapped_column(STATE, index=True)
    since: Mapped[float] = mapped_column(Float)
    step: Mapped[str] = mapped_column(String(16), default="queued")
    reason: Mapped[str | None] = mapped_column(String(60))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    fence: Mapped[int] = mapped_column(Integer, default=0)
    lease_until: Mapped[float | None] = mapped_column(Float)
    steps: Mapped[Json] = mapped_column(JSON, default=dict)
    """Seconds that each finished step took, by its name."""
    created_at: Mapped[float] = mapped_column(Float)
    cause: Mapped[Json | None] = mapped_column(JSON)
    """The request that asked for it, as an event's headers say it; None where nobody did."""


class BuildLogRow(Row):
    """One line of a build's log."""

    __tablename__ = "build_log"

    build_id: Mapped[str] = mapped_column(ForeignKey("builds.id"), primary_key=True)
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[float] = mapped_column(Float)
    text: Mapped[str] = mapped_column(Text)


# Written by the inference service.


class InstanceRow(Row):
    """The running copy of one version, and whether it is wanted."""

    __tablename__ = "instances"

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    model_id: Mapped[str] = mapped_column(ID, index=True)
    version_id: Mapped[str] = mapped_column(ID, index=True)
    number: Mapped[int] = mapped_column(Integer)
    wanted: Mapped[bool] = mapped_column(Boolean)
    """Whether this version may run at all; nobody is started for that alone."""
    state: Mapped[InstanceState] = mapped_column(STATE, index=True)
    since: Mapped[float] = mapped_column(Float)
    start: Mapped[int] = mapped_column(Integer, default=0)
    host: Mapped[str] = mapped_column(String(45), default="127.0.0.1")
    port: Mapped[int] = mapped_column(Integer, default=0)
    reason: Mapped[str | None] = mapped_column(String(16))
    detail: Mapped[str | None] = mapped_column(Text)
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    next_start_at: Mapped[float] = mapped_column(Float, default=0.0)
    retired_at: Mapped[float | None] = mapped_column(Float, index=True)
    """When a deleted version's route was gone from the door and nothing of it ran: its files may go."""


# Written by every service, through the kernel's modules alone.


class OutboxRow(Row):
    """An event that was committed with its change, and waits to be published."""

    __tablename__ = "outbox"

    seq: Mapped[int] = mapped_column(SEQUENCE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(ID, unique=True)
    topic: Mapped[str] = mapped_column(String(120))
    key: Mapped[str] = mapped_column(String(120))
    value: Mapped[bytes] = mapped_column(LargeBinary)
    headers: Mapped[Json] = mapped_column(JSON)
    created_at: Mapped[float] = mapped_column(Float)
    published_at: Mapped[float | None] = mapped_column(Float)

    # Without the keyword SQLite may give a deleted row's number again, and `seq` must only ever grow.
    __table_args__ = (Index("ix_outbox_unpublished", "published_at", "seq"), {"sqlite_autoincrement": True})


class InboxRow(Row):
    """An event whose effect on one consumer group is committed."""

    __tablename__ = "inbox"

    consumer: Mapped[str] = mapped_column(String(60), primary_key=True)
    event_id: Mapped[str] = mapped_column(String(120), primary_key=True)
    at: Mapped[float] = mapped_column(Float, index=True)


class IdempotencyRow(Row):
    """One `Idempotency-Key` of one caller on one route: in flight, or with the answer it got."""

    __tablename__ = "idempotency"

    caller: Mapped[str] = mapped_column(String(80), primary_key=True)
    route: Mapped[str] = mapped_column(String(60), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    fence: Mapped[int] = mapped_column(Integer)
    lease_until: Mapped[float] = mapped_column(Float)
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    answer: Mapped[Json | None] = mapped_column(JSON)
    at: Mapped[float] = mapped_column(Float, index=True)


class AuditRow(Row):
    """Who did what to which object; written in the transaction of the act."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(SEQUENCE, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Float)
    actor: Mapped[str] = mapped_column(String(80))
    credential: Mapped[str] = mapped_column(String(80), default="")
    """`key:ID` or `session:ID`; empty where nobody had signed in."""
    action: Mapped[str] = mapped_column(String(40))
    object: Mapped[str] = mapped_column(String(120), index=True)
    result: Mapped[str] = mapped_column(String(40), default="done")
    address: Mapped[str] = mapped_column(String(45), default="")
    request_id: Mapped[str] = mapped_column(String(80))
    chain: Mapped[str] = mapped_column(String(64), default="")
    """SHA-256 over the row before it and this one; empty in rows from before there was a chain."""

    __table_args__ = ({"sqlite_autoincrement": True},)


class AuditHeadRow(Row):
    """The end of the audit trail's chain: one row, held by whoever appends."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(SEQUENCE)
    chain: Mapped[str] = mapped_column(String(64))


# The local bus.


class BusRecordRow(Row):
    """One record of a topic's partition; its offset counts from 0."""

    __tablename__ = "bus_records"

    topic: Mapped[str] = mapped_column(String(120), primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column(SEQUENCE, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(String(120))
    value: Mapped[bytes] = mapped_column(LargeBinary)
    headers: Mapped[Json] = mapped_column(JSON)
    at: Mapped[float] = mapped_column(Float, index=True)


class BusOffsetRow(Row):
    """The next offset that a consumer group will read of a partition, and how often it has tried."""

    __tablename__ = "bus_offsets"

    consumer: Mapped[str] = mapped_column(String(60), primary_key=True)
    topic: Mapped[str] = mapped_column(String(120), primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column(SEQUENCE, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)


class DeadLetterRow(Row):
    """A record that a consumer group could not take, with the last error."""

    __tablename__ = "dead_letters"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    consumer: Mapped[str] = mapped_column(String(60), index=True)
    topic: Mapped[str] = mapped_column(String(120))
    partition: Mapped[int] = mapped_column(Integer)
    offset: Mapped[int] = mapped_column(SEQUENCE)
    key: Mapped[str] = mapped_column(String(120))
    value: Mapped[bytes] = mapped_column(LargeBinary)
    headers: Mapped[Json] = mapped_column(JSON)
    error: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer)
    at: Mapped[float] = mapped_column(Float)
