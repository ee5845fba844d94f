"""Claims builds by lease: one holder at a time, and a zombie's write changes no row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from modelyard.domain.causes import Cause, cause_of
from modelyard.domain.events import ModelBuildFailed, ModelUploaded
from modelyard.domain.plan import Plan
from modelyard.domain.states import BUILD_STEPS, BuildState, VersionState, step
from modelyard.store import catalog, doorbell, outbox
from modelyard.store.database import Database, lock_key, ring_after_commit
from modelyard.store.tables import BuildRow, ModelRow, VersionRow
from upload_service import repository
from upload_service.builders import Boot, BuildCancelledError, BuildError, Built

ATTEMPTS = 3
OPEN = (BuildState.QUEUED, BuildState.RUNNING)
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class ClaimedBuild:
    """A build that this process holds, with what it needs to do it."""

    id: str
    version_id: str
    fence: int
    sha256: str
    label: str
    plan: Plan
    claimed_at: float
    number: int
    description: str
    cause: Cause | None = None


class Claims:
    """Claims, renews and ends builds; every write names the fence that it holds.

    Args:
        clock: Seconds since 1970, for what people read; leases follow the database's own.
    """

    def __init__(self, database: Database, lease_s: float, clock: Callable[[], float]) -> None:
        self._database = database
        self._lease_s = lease_s
        self._clock = clock

    def claim(self) -> ClaimedBuild | None:
        """The oldest build that nobody holds; one that lost its third lease is ended instead, and the doorbell rung for the next."""
        if not self._is_any_open():
            return None
        now = self._database.now()
        with self._database.write() as session:
            free = or_(BuildRow.state == BuildState.QUEUED, (BuildRow.state == BuildState.RUNNING) & (BuildRow.lease_until < now))
            waiting = select(BuildRow).where(free).order_by(BuildRow.created_at, BuildRow.id).with_for_update(skip_locked=True).limit(1)
            build = session.scalars(waiting).first()
            if build is None:
                return None
            model, version = _version_of(session, build)
            if version.state in repository.GONE:
                self._end(session, build, BuildState.CANCELLED, "deleted")
                ring_after_commit(session, doorbell.BUILDS)
                return None
            if build.attempts >= ATTEMPTS:
                error = BuildError(
                    "builder_lost", "The builder was lost three times.", "Upload again; if it happens again, see the server's log."
                )
                self._fail(session, model, version, build, error)
                ring_after_commit(session, doorbell.BUILDS)
                return None
            build.state = step(BUILD_STEPS, BuildState(build.state), BuildState.RUNNING)
            build.since, build.step = self._clock(), "claimed"
            build.attempts, build.fence, build.lease_until = build.attempts + 1, build.fence + 1, now + self._lease_s
            if version.state != VersionState.BUILDING:
                repository.move(version, VersionState.BUILDING, self._clock())
            ring_after_commit(session, doorbell.build_channel(build.id))
            return ClaimedBuild(
                build.id,
                version.id,
                build.fence,
                version.sha256,
                f"{model.owner}/{model.name}",
                Plan.model_validate(version.plan),
                build.created_at,
                version.number,
                version.description,
                cause_of(cast("dict[str, str]", build.cause or {})),
            )

    def _is_any_open(self) -> bool:
        """Whether there is a build that somebody may have to take, as nearly every look finds none."""
        with self._database.read() as session:
            open_ = set(session.scalars(select(BuildRow.state).where(BuildRow.state.in_(OPEN)).distinct()))
        if BuildState.RUNNING in open_:
            # The end of its lease rings for nobody.
            self._database.bell.ring_in(doorbell.BUILDS, LOOK_AGAIN_S)
        return bool(open_)

    def renew(self, build: ClaimedBuild) -> bool:
        """Hold the lease for longer; False: it is lost, or the version was deleted."""
        now = self._database.now()
        with self._database.write() as session:
            row = self._mine(session, build)
            if row is None or session.get_one(VersionRow, row.version_id).state != VersionState.BUILDING:
                return False
            row.lease_until = now + self._lease_s
            return True

    def enter(self, build: ClaimedBuild, name: str, steps: dict[str, float]) -> None:
        """Note the step that begins, and the seconds of those that ended.

        Raises:
            BuildCancelledError: The lease is lost.
        """
        with self._database.write() as session:
            row = self._need(session, build)
            row.step, row.steps = name, dict(steps)
            ring_after_commit(session, doorbell.build_channel(build.id))

    def refer(self, build: ClaimedBuild, reference: str) -> None:
        """Write the reference to what will be built, so that nobody removes it meanwhile."""
        with self._database.write() as session:
            row = self._need(session, build)
            # Whoever removes what was built counts its references under the same lock.
            lock_key(session, reference)
            session.get_one(VersionRow, row.version_id).reference = reference

    def succeed(self, build: ClaimedBuild, built: Built, boot: Boot, container_id: str | None, steps: dict[str, float]) -> bool:
        """`ready` and `model.uploaded`, in one transaction; returns whether the version serves now.

        Raises:
            BuildCancelledError: The lease is lost, or the version was deleted.
        """
        now = self._clock()
        with self._database.write() as session:
            row = self._need(session, build)
            model, version = _version_of(session, row)
            if version.state != VersionState.BUILDING:
                raise BuildCancelledError
            row.steps = dict(steps)
            self._end(session, row, BuildState.SUCCEEDED)
            repository.move(version, VersionState.READY, now)
            version.reference, version.host, version.port = built.reference, boot.host, boot.port
            version.docker_container_id = container_id
            version.build_s = round(now - build.claimed_at, 3)
            session.flush()
            serves = catalog.serving_version_id(session, model.id) == version.id
            uploaded = ModelUploaded(
                model_id=model.id,
                upload_id=version.id,
                username=model.owner,
                model_name=model.name,
                description=version.description,
                docker_image=repository.docker_image(model, version, serves=serves),
                docker_container_id=container_id,
                version=version.number,
                sha256=version.sha256,
                runtime=version.runtime,
                build_s=version.build_s,
            )
            outbox.append(session, uploaded, now)
            ring_after_commit(session, doorbell.model_channel(model.id))
            return serves

    def fail(self, build: ClaimedBuild, error: BuildError, steps: dict[str, float]) -> None:
        """`failed` and `model.build_failed`, in one transaction; a lost lease changes nothing."""
        with self._database.write() as session:
            row = self._mine(session, build)
            if row is None:
                return
            row.steps = dict(steps)
            model, version = _version_of(session, row)
            if version.state == VersionState.BUILDING:
                self._fail(session, model, version, row, error)

    def give_back(self, build: ClaimedBuild) -> None:
        """Let another builder have it, or end it where its version was deleted; the attempt does not count."""
        with self._database.write() as session:
            row = self._mine(session, build)
            if row is None:
                return
            _, version = _version_of(session, row)
            if version.state != VersionState.BUILDING:
                self._end(session, row, BuildState.CANCELLED, "deleted")
                return
            row.state = step(BUILD_STEPS, BuildState(row.state), BuildState.QUEUED)
            row.since, row.step, row.lease_until, row.attempts = self._clock(), "queued", None, row.attempts - 1
            repository.move(version, VersionState.RECEIVED, self._clock())
            ring_after_commit(session, doorbell.BUILDS)

    def expire_all(self) -> None:
        """End every lease at once: the caller holds the data folder's lock, so no other builder can be alive."""
        with self._database.write() as session:
            session.execute(update(BuildRow).where(BuildRow.state == BuildState.RUNNING).values(lease_until=0.0))
            ring_after_commit(session, doorbell.BUILDS)

    def _fail(self, session: Session, model: ModelRow, version: VersionRow, build: BuildRow, error: BuildError) -> None:
        now = self._clock()
        self._end(session, build, BuildState.FAILED, error.code)
        repository.move(version, VersionState.FAILED, now, reason=error.code, message=str(error), mend=error.mend)
        failed = ModelBuildFailed(
            model_id=model.id,
            username=model.owner,
            model_name=model.name,
            upload_id=version.id,
            version=version.number,
            build_id=build.id,
            reason=error.code,
            mend=error.mend,
        )
        outbox.append(session, failed, now)

    def _end(self, session: Session, build: BuildRow, state: BuildState, reason: str | None = None) -> None:
        build.state = step(BUILD_STEPS, BuildState(build.state), state)
        build.since, build.reason, build.lease_until = self._clock(), reason, None
        ring_after_commit(session, doorbell.build_channel(build.id), doorbell.INSTANCES)

    def _need(self, session: Session, build: ClaimedBuild) -> BuildRow:
        row = self._mine(session, build)
        if row is None:
            raise BuildCancelledError
        return row

    def _mine(self, session: Session, build: ClaimedBuild) -> BuildRow | None:
        # Held until the end of the transaction: nobody takes the build over between this look and the write.
        row = session.get(BuildRow, build.id, with_for_update=True)
        return row if row is not None and row.fence == build.fence and row.state == BuildState.RUNNING else None


def _version_of(session: Session, build: BuildRow) -> tuple[ModelRow, VersionRow]:
    found = repository.lock_version(session, build.version_id, None)
    if found is None:
        raise BuildCancelledError
    return found
