"""Model events become desired state: which version is wanted, nothing more."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from inference_service import repository
from modelyard.bus.bus import Delivered, Subscription
from modelyard.domain.events import MODEL_EVENTS, ModelDeleted, ModelReleased, ModelUploaded
from modelyard.domain.ids import ModelId
from modelyard.run.hearing import heard
from modelyard.store import catalog, doorbell, inbox, outbox
from modelyard.store.database import Database, lock_key, ring_after_commit

SUBSCRIPTION = Subscription("inference", (MODEL_EVENTS,))
_HEARD = frozenset({ModelUploaded.wire_name, ModelDeleted.wire_name})


class ModelConsumer:
    """Takes model events; the row is read again, so a late, doubled or forged event changes nothing that is not so.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def take(self, record: Delivered) -> None:
        """Commit the event's effect, once."""
        with heard(SUBSCRIPTION.group, record):
            if record.headers["ce_type"] in _HEARD:
                self._take(record)

    def _take(self, record: Delivered) -> None:
        subject = ModelId(record.key)
        now = self._clock()
        with self._database.write() as session:
            # While partitions change hands two processes may hear of one model at once: each reads what serves after the other.
            lock_key(session, f"wanted {subject}")
            if inbox.first_time(session, SUBSCRIPTION.group, record.event_id, now):
                self._want(session, subject, now)
                ring_after_commit(session, doorbell.INSTANCES)

    def _want(self, session: Session, model_id: ModelId, now: float) -> None:
        serving = catalog.serving_by_id(session, model_id)
        rows = repository.of_model(session, model_id)
        before = {row.version_id for row in rows if row.wanted}
        for row in rows:
            row.wanted = serving is not None and row.version_id == serving.version_id
        if serving is None:
            return
        repository.take(session, serving, now).wanted = True
        if before and serving.version_id not in before:
            released = ModelReleased(
                model_id=serving.model_id,
                username=serving.owner,
                model_name=serving.name,
                upload_id=serving.version_id,
                version=serving.number,
            )
            outbox.append(session, released, now)
