"""The recorded life of instances: every step of it with its event, in one transaction."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from inference_service import repository
from modelyard.domain.errors import NotReady
from modelyard.domain.events import ModelCrashed, ModelFrozen, ModelStarted, ModelStopped
from modelyard.domain.ids import instance_name
from modelyard.domain.states import ExitReason, InstanceState
from modelyard.store import doorbell, outbox
from modelyard.store.catalog import ServingVersion, VersionFact
from modelyard.store.database import Database, ring_after_commit
from modelyard.store.tables import InstanceRow

BACK_OFF_MOST_S = 300
LOOPING_AFTER = 5
"""Crashes in a row after which the reason is `crash_looping`."""
STEADY_S = 60.0
"""An instance that ran for so long begins its back-off anew when it crashes."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where a running instance answers.

    Args:
        socket: Its inlet's, where it has one.
    """

    start: int
    host: str
    port: int
    socket: str = ""


def back_off_s(crashes: int) -> int:
    """Seconds before the next start: 1, 2, 4 .. 300."""
    return min(1 << min(max(0, crashes - 1), 16), BACK_OFF_MOST_S)


class Instances:
    """Writes instance rows and their events.

    Args:
        clock: Seconds since 1970.
        inlet: The socket that leads into an instance, by its name, see `Runtime.inlet`.
    """

    def __init__(self, database: Database, clock: Callable[[], float], inlet: Callable[[str], str] = lambda _name: "") -> None:
        self._database = database
        self._clock = clock
        self._inlet = inlet

    def begin(self, version: ServingVersion) -> InstanceState:
        """Note that the version is being started, unless it runs or is frozen; returns the state that it is then in.

        Raises:
            NotReady: `model_failed`, its back-off is not over.
        """
        now = self._clock()
        with self._database.write() as session:
            row = repository.take(session, version, now)
            row.wanted = True
            if row.state in {InstanceState.RUNNING, InstanceState.FROZEN}:
                return InstanceState(row.state)
            if row.state == InstanceState.FAILED and row.next_start_at > now:
                raise failed(row.reason or "", row.detail or "", row.next_start_at - now)
            if row.state not in {InstanceState.STOPPED, InstanceState.FAILED}:
                # What a runner that is gone had begun: this one holds the model now.
                repository.move(row, InstanceState.STOPPED, now, ExitReason.RUNNER_GONE)
            repository.move(row, InstanceState.STARTING, now)
            return InstanceState.STARTING

    def started(self, version: ServingVersion, running: Running, start_s: float) -> None:
        """It answers calls."""
        now = self._clock()
        with self._database.write() as session:
            row = repository.take(session, version, now)
            repository.move(row, InstanceState.RUNNING, now)
            row.start, row.host, row.port = running.start, running.host, running.port
            event = ModelStarted(
                model_id=version.model_id,
                username=version.owner,
                model_name=version.name,
                upload_id=version.version_id,
                version=version.number,
                instance=row.name,
                start_s=round(start_s, 3),
            )
            self._tell(session, event)

    def where(self, version: ServingVersion) -> Running:
        """Where it answers, as it was last started."""
        with self._database.read() as session:
            return self.where_in(session, version)

    def where_in(self, session: Session, version: ServingVersion) -> Running:
        """As `where`, in this view of the rows."""
        return self.as_started(session.get_one(InstanceRow, instance_name(version.version_id)))

    def as_started(self, row: InstanceRow) -> Running:
        """Where the row says that it answers."""
        return Running(row.start, row.host, row.port, self._inlet(row.name))

    def crashed(self, fact: VersionFact, reason: ExitReason, detail: str) -> int:
        """It ended by itself, or never became ready; returns the seconds before it may be started again."""
        now = self._clock()
        with self._database.write() as session:
            row = repository.take(session, fact, now)
            steady = row.state == InstanceState.RUNNING and now - row.since >= STEADY_S
            row.crashes = 1 if steady else row.crashes + 1
            wait_s = back_off_s(row.crashes)
            row.next_start_at = now + wait_s
            told = ExitReason.CRASH_LOOPING if row.crashes >= LOOPING_AFTER and reason is ExitReason.CRASHED else reason
            repository.move(row, InstanceState.FAILED, now, told, detail)
            event = ModelCrashed(
                model_id=fact.model_id,
                username=fact.owner,
                model_name=fact.name,
                upload_id=fact.version_id,
                version=fact.number,
                instance=row.name,
                reason=told,
                retry_after_s=wait_s,
            )
            self._tell(session, event)
            return wait_s

    def stopped(self, fact: VersionFact, reason: ExitReason) -> None:
        """The platform ended it, or it ended with its runner; stopped already: nothing changes."""
        now = self._clock()
        with self._database.write() as session:
            row = repository.take(session, fact, now)
            if row.state in {InstanceState.STOPPED, InstanceState.FAILED}:
                return
            repository.move(row, InstanceState.STOPPED, now, reason)
            if reason is ExitReason.IDLE:
                row.crashes = 0
            event = ModelStopped(
                model_id=fact.model_id,
                username=fact.owner,
                model_name=fact.name,
                upload_id=fact.version_id,
                version=fact.number,
                instance=row.name,
                reason=reason,
            )
            self._tell(session, event)

    def frozen(self, fact: VersionFact) -> None:
        """It uses no processor until it is called."""
        now = self._clock()
        with self._database.write() as session:
            row = repository.take(session, fact, now)
            repository.move(row, InstanceState.FROZEN, now)
            event = ModelFrozen(
                model_id=fact.model_id,
                username=fact.owner,
                model_name=fact.name,
                upload_id=fact.version_id,
                version=fact.number,
                instance=row.name,
            )
            self._tell(session, event)

    def thawed(self, fact: VersionFact) -> None:
        """It goes on; nobody is told, as nobody could see it."""
        # A call waits for this; a power cut that undoes it ends the instance as well.
        with self._database.write(must_last=False) as session:
            repository.move(repository.take(session, fact, self._clock()), InstanceState.RUNNING, self._clock())

    def retire(self, fact: VersionFact) -> None:
        """Nothing of a deleted version runs, and no route leads to it."""
        with self._database.write() as session:
            row = repository.take(session, fact, self._clock())
            row.wanted, row.retired_at = False, self._clock()
            ring_after_commit(session, doorbell.INSTANCES, doorbell.model_channel(fact.model_id))

    def _tell(self, session: Session, event: ModelStarted | ModelCrashed | ModelStopped | ModelFrozen) -> None:
        outbox.append(session, event, self._clock())
        ring_after_commit(session, doorbell.model_channel(event.model_id))


def failed(reason: str, detail: str, wait_s: float) -> NotReady:
    """The answer to a call while the back-off runs."""
    seconds = max(1, int(wait_s + 0.999))
    return NotReady(
        "model_failed",
        f"The model ended by itself ({reason}{': ' + detail if detail else ''}).",
        "See its output, mend the app and upload it again; it is tried again after the pause.",
        extra={"state": "failed", "phase": "back_off", "reason": reason},
        retry_after_s=seconds,
    )
