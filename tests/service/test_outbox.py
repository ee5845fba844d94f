"""Events on their way: out of the outbox, over the bus, into the inbox, and what the consumer makes of them."""

import random
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session
from stage import Stage, app_zip

from inference_service.consumers import SUBSCRIPTION, ModelConsumer
from modelyard.bus.bus import LARGEST_BYTES, Delivered, Handler, Record, Subscription, UnpublishedError
from modelyard.bus.local import LocalBus
from modelyard.domain.errors import TooLarge
from modelyard.domain.events import ModelDeleted, ModelUploaded
from modelyard.domain.plan import Plan
from modelyard.domain.states import VersionState
from modelyard.store import catalog, doorbell, outbox
from modelyard.store.outbox_relay import BATCH, KEEP_INBOX_S, KEEP_OUTBOX_S, OutboxRelay
from modelyard.store.tables import BusRecordRow, DeadLetterRow, InboxRow, InstanceRow, ModelRow, OutboxRow, VersionRow


class TroubledBus:
    """A bus over the real one that fails after it has published, or acknowledges only some."""

    def __init__(self, bus: LocalBus) -> None:
        self._bus = bus
        self.dies_after = False
        self.refuses: set[str] = set()

    def publish(self, records: Sequence[Record]) -> None:
        refused = [each.event_id for each in records if each.key in self.refuses]
        self._bus.publish([each for each in records if each.key not in self.refuses])
        if self.dies_after:
            raise ConnectionError("the process ends here")
        if refused:
            raise UnpublishedError(refused)

    def deliver(self, subscription: Subscription, handler: Handler) -> bool:
        return self._bus.deliver(subscription, handler)


def deleted(key: str, number: int) -> ModelDeleted:
    return ModelDeleted(model_id=key, upload_id=f"{key}-{number}", username="ada", model_name="fruit", version=number, last=False)


def append(stage: Stage, *events: ModelDeleted) -> None:
    with stage.database.write() as session:
        for event in events:
            outbox.append(session, event, stage.kernel.clock())


def on_bus(stage: Stage) -> list[tuple[str, str]]:
    """The key and the id of each record, partition by partition."""
    with stage.database.read() as session:
        rows = session.scalars(select(BusRecordRow).order_by(BusRecordRow.partition, BusRecordRow.offset))
        return [(row.key, str(row.headers["ce_id"])) for row in rows]


def unpublished(stage: Stage) -> list[str]:
    with stage.database.read() as session:
        return list(session.scalars(select(OutboxRow.key).where(OutboxRow.published_at.is_(None)).order_by(OutboxRow.seq)))


def drain(stage: Stage, name: str) -> None:
    while stage.step(name):
        pass


def test_what_is_appended_is_published_once_in_the_order_of_each_key(stage: Stage, scaled: Callable[[int], int]) -> None:
    chance = random.Random(5)
    for n in range(scaled(1000)):
        append(stage, deleted(f"model-{chance.randrange(7)}", n))
    drain(stage, "relay")
    with stage.database.read() as session:
        sent = [(row.key, row.id) for row in session.scalars(select(OutboxRow).order_by(OutboxRow.seq))]
    arrived = on_bus(stage)

    assert sorted(arrived) == sorted(sent)
    for key in {key for key, _ in sent}:
        assert [each for each in arrived if each[0] == key] == [each for each in sent if each[0] == key]
    assert unpublished(stage) == []
    drain(stage, "relay")
    assert len(on_bus(stage)) == len(sent)


def test_appending_rings_the_relay_and_an_event_of_a_transaction_that_failed_is_never_sent(stage: Stage) -> None:
    seen = stage.database.bell.count(doorbell.OUTBOX)
    append(stage, deleted("m", 1))
    rung = stage.database.bell.count(doorbell.OUTBOX)
    assert rung > seen

    def fail() -> None:
        with stage.database.write() as session:
            outbox.append(session, deleted("m", 2), 0.0)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    drain(stage, "relay")
    assert len(on_bus(stage)) == stage.count(OutboxRow) == 1


def test_a_relay_that_dies_between_publishing_and_marking_sends_again_and_the_effect_is_once(stage: Stage) -> None:
    taken = stage.ready()
    bus = TroubledBus(stage.bus)
    relay = OutboxRelay(stage.database, bus, stage.kernel.clock)
    bus.dies_after = True
    for _ in range(3):
        with pytest.raises(ConnectionError):
            relay.step()
    assert len(unpublished(stage)) == 1
    bus.dies_after = False
    relay.step()

    assert unpublished(stage) == []
    assert len(on_bus(stage)) == 4
    assert len(set(on_bus(stage))) == 1
    drain(stage, "consume")
    assert (stage.count(InboxRow), wanted(stage)) == (1, {taken["id"]})


def test_records_that_are_not_acknowledged_stay_and_the_others_are_marked(stage: Stage) -> None:
    append(stage, deleted("fine", 1), deleted("stuck", 1), deleted("fine", 2), deleted("stuck", 2))
    bus = TroubledBus(stage.bus)
    bus.refuses = {"stuck"}
    relay = OutboxRelay(stage.database, bus, stage.kernel.clock)
    with pytest.raises(UnpublishedError):
        relay.step()

    assert unpublished(stage) == ["stuck", "stuck"]
    bus.refuses = set()
    relay.step()
    assert sorted(key for key, _ in on_bus(stage)) == ["fine", "fine", "stuck", "stuck"]
    assert unpublished(stage) == []


def test_a_batch_is_bounded_and_the_rest_follows_at_once(stage: Stage) -> None:
    append(stage, *(deleted("m", n) for n in range(BATCH + 1)))

    assert stage.step("relay") is True
    assert len(unpublished(stage)) == 1
    assert stage.step("relay") is False
    assert unpublished(stage) == []
    assert stage.step("relay") is False


def test_what_is_old_is_forgotten_and_what_is_not_published_never(stage: Stage) -> None:
    append(stage, deleted("published", 1), deleted("waiting", 1))
    with stage.database.write() as session:
        session.execute(update(OutboxRow).where(OutboxRow.key == "published").values(published_at=stage.kernel.clock()))
        session.add(InboxRow(consumer="inference", event_id="e", at=stage.kernel.clock()))
    relay = OutboxRelay(stage.database, stage.bus, stage.kernel.clock)
    for ahead_s, left in ((KEEP_OUTBOX_S - 60, (2, 1)), (KEEP_OUTBOX_S + 60, (1, 1)), (KEEP_INBOX_S + 60, (1, 0))):
        stage.ahead_s = ahead_s
        relay.prune()
        assert (stage.count(OutboxRow), stage.count(InboxRow)) == left
    assert unpublished(stage) == ["waiting"]


def test_a_restart_goes_on_where_it_was(make_stage: Callable[..., Stage]) -> None:
    before = make_stage()
    before.ready("fruit")
    drain(before, "relay")
    drain(before, "consume")
    before.ready("pears")
    after = make_stage()
    drain(after, "relay")
    drain(after, "consume")

    assert (after.count(InboxRow), len(wanted(after)), len(on_bus(after))) == (2, 2, 2)


def wanted(stage: Stage) -> set[str]:
    with stage.database.read() as session:
        return set(session.scalars(select(InstanceRow.version_id).where(InstanceRow.wanted)))


def serving(stage: Stage) -> set[str]:
    with stage.database.read() as session:
        names = session.execute(select(ModelRow.owner, ModelRow.name)).all()
        return {each.version_id for owner, name in names if (each := catalog.serving_by_name(session, owner, name))}


def test_a_newer_version_takes_over_and_the_world_is_told(stage: Stage) -> None:
    stage.ready()
    drain(stage, "relay")
    drain(stage, "consume")
    assert [each["event"] for each in stage.events()] == ["model.uploaded"]
    second = stage.ready(content=app_zip("other"))
    drain(stage, "relay")
    drain(stage, "consume")

    assert wanted(stage) == serving(stage) == {second["id"]}
    told = stage.events()[-1]
    assert (told["event"], told["data"]["upload_id"], told["data"]["version"]) == ("model.released", second["id"], 2)


def test_an_event_that_no_bus_takes_is_refused_with_all_that_it_tells_of(stage: Stage) -> None:
    large = deleted("m", 1).model_copy(update={"model_name": "x" * LARGEST_BYTES})
    with pytest.raises(TooLarge) as refused:
        append(stage, deleted("m", 0), large)

    assert (refused.value.code, bool(refused.value.mend)) == ("event_too_large", True)
    assert stage.events() == []


def test_a_forged_event_and_one_of_another_kind_change_nothing(stage: Stage) -> None:
    taken = stage.ready()
    drain(stage, "relay")
    drain(stage, "consume")
    consumer = ModelConsumer(stage.database, stage.kernel.clock)
    model_id = stage.version(taken["id"]).model_id
    for number, kind in enumerate(("model.deleted", "model.uploaded", "model.crashed", "made.up")):
        for key in (model_id, "nobody"):
            consumer.take(Delivered("model-events", key, b"not even json", {"ce_id": f"forged-{number}-{key}", "ce_type": kind}, 0, 0, 0))

    assert wanted(stage) == {taken["id"]}
    assert [each["event"] for each in stage.events()] == ["model.uploaded"]


def test_a_record_without_an_id_becomes_a_dead_letter_and_those_behind_it_arrive(stage: Stage) -> None:
    stage.bus.publish([Record("model-events", "m", b"{}", {"ce_type": "model.uploaded"})])
    taken = stage.ready()
    drain(stage, "relay")
    for _ in range(5):
        drain(stage, "consume")
        stage.ahead_s += 1

    assert (stage.count(DeadLetterRow), wanted(stage)) == (1, {taken["id"]})


HISTORIES = ((1,), (1, -1), (1, 2), (1, 2, -2), (1, -1, 2), (1, 2, -1, -2), (1, 2, -2, 3), (1, 2, 3, -3, 4, -2))
"""What models live through: the version of that number becomes ready; below zero: is deleted."""


def happen(session: Session, model_id: str, change: int) -> None:
    version_id = f"{model_id}-{abs(change)}"
    if change < 0:
        gone = update(VersionRow).where(VersionRow.id == version_id).values(state=VersionState.DELETING)
        session.execute(gone, execution_options={"synchronize_session": False})  # else it looks through all that was added
        return
    row = VersionRow(id=version_id, model_id=model_id, number=change, sha256="0" * 64, size_bytes=1, runtime="process", since=0.0)
    row.plan, row.state, row.created_at = Plan(server="uvicorn", target="app:app").model_dump(mode="json"), VersionState.READY, 0.0
    session.add(row)


def telling(model_id: str, change: int) -> Delivered:
    kind = ModelUploaded if change > 0 else ModelDeleted
    return Delivered("model-events", model_id, b"", {"ce_id": f"{model_id} {change}", "ce_type": kind.wire_name}, 0, 0, 0)


def need_no_disk(stage: Stage) -> None:
    """Let its commits wait for no disk: whether they outlast a power cut is not asked here, and there are tens of thousands."""
    if stage.database.is_sqlite:
        stage.database.engine.dispose()
        event.listen(stage.database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))


@pytest.mark.slow
def test_in_whatever_order_and_however_often_events_come_the_end_is_the_same(stage: Stage, scaled: Callable[[int], int]) -> None:
    """Each model hears of its history in an order of its own: doubled at random, partly while it still goes on, among all others."""
    chance, consumer = random.Random(10), ModelConsumer(stage.database, stage.kernel.clock)
    need_no_disk(stage)
    models = {f"model-{n}": HISTORIES[n % len(HISTORIES)] for n in range(scaled(10_000))}
    with stage.database.write() as session:
        session.add_all(ModelRow(id=each, owner="ada", name=each, label=each, created_at=0.0) for each in models)

    for moment in range(max(map(len, HISTORIES))):
        with stage.database.write() as session:
            for model_id, history in models.items():
                if moment < len(history):
                    happen(session, model_id, history[moment])
        early = [telling(each, chance.choice(history[: moment + 1])) for each, history in models.items() if chance.random() < 0.1]
        for record in early:
            consumer.take(record)
    rest = [telling(each, change) for each, history in models.items() for change in history for _ in range(chance.choice((1, 1, 1, 2)))]
    chance.shuffle(rest)
    for record in rest:
        consumer.take(record)

    with stage.database.read() as session:
        ends: dict[str, set[int]] = {each: set() for each in models}
        for model_id, number in session.execute(select(InstanceRow.model_id, InstanceRow.number).where(InstanceRow.wanted)):
            ends[model_id].add(number)
        heard = session.scalars(select(InboxRow.event_id).where(InboxRow.consumer == SUBSCRIPTION.group)).all()
    assert {each: end for each, end in ends.items() if end != newest_left(models[each])} == {}
    assert sorted(heard) == sorted(f"{each} {change}" for each, history in models.items() for change in history)


def newest_left(history: Sequence[int]) -> set[int]:
    """The number of the version that must be wanted at the end, where one is left."""
    return set(sorted({each for each in history if each > 0} - {-each for each in history if each < 0})[-1:])
