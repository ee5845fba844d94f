"""Reads what is there once everything has come to rest: the store, the topic, the folders and the processes."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from history.facts import Build, Found, Sent, Version, Written
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from modelyard.domain.events import MODEL_EVENTS
from modelyard.store import audit
from modelyard.store.database import Database, ring_after_commit
from modelyard.store.tables import AuditRow, BuildRow, DeadLetterRow, InstanceRow, ModelRow, OutboxRow, VersionRow

ANSWER_S = 10.0


class AtRest:
    """Looks at one data folder, its database and its topic from outside.

    Args:
        groups: The consumer groups that must have had everything.
    """

    def __init__(self, data: Path, database: Database, bootstrap: str, groups: Sequence[str]) -> None:
        self._data = data
        self._database = database
        self._bootstrap = bootstrap
        self._groups = groups

    def why_not(self) -> str:
        """What still goes on; empty where nothing does."""
        with self._database.read() as session:
            waiting = session.scalar(select(func.count()).select_from(OutboxRow).where(OutboxRow.published_at.is_(None)))
            moving = session.scalars(select(InstanceRow.name).where(InstanceRow.state.in_(("starting", "stopping")))).all()
        if (building := self.building()) or waiting or moving:
            return f"{building} builds, {waiting} events in the outbox, {len(moving)} instances"
        behind = {group: lag for group in self._groups if (lag := self._lag(group))}
        return f"lag {behind}" if behind else ""

    def building(self) -> int:
        """How many builds are not ended."""
        with self._database.read() as session:
            running = select(func.count()).select_from(BuildRow).where(BuildRow.state.in_(("queued", "running")))
            return session.scalar(running) or 0

    def newest(self) -> int:
        """The number of the event that was written last; 0 where none was."""
        with self._database.read() as session:
            return session.scalar(select(func.max(OutboxRow.seq))) or 0

    def sweep(self) -> None:
        """Let the processes remove what was left behind, as they do every minute."""
        with self._database.write() as session:
            ring_after_commit(session, "sweep")

    def look(self) -> Found:
        """All that is there; of one time only where nothing is written meanwhile."""
        records = tuple(self._records())
        with self._database.read() as session:
            acts = session.execute(
                select(AuditRow.object, func.count())
                .where(AuditRow.action == "upload", AuditRow.result == "done")
                .group_by(AuditRow.object)
            )
            rows = select(InstanceRow.version_id)
            flaw = audit.verify(session)
            versions = tuple(_versions(session))
            known = {each.id for each in versions}
            return Found(
                versions=versions,
                builds=tuple(Build(each.id, each.version_id, str(each.state)) for each in session.scalars(select(BuildRow))),
                events=tuple(_events(session)),
                records=records,
                acts={row[0]: row[1] for row in acts},
                given_up=frozenset(str(each["ce_id"]) for each in session.scalars(select(DeadLetterRow.headers))),
                effects=Counter(session.scalars(text("select event_id from counted"))),
                wanted=frozenset(session.scalars(rows.where(InstanceRow.wanted))),
                running=frozenset(session.scalars(rows.where(InstanceRow.state.in_(("running", "frozen"))))),
                processes=frozenset(version_id for version_id in self._running() if version_id in known),
                blobs=frozenset(self._names("blobs")),
                apps=frozenset(self._apps()),
                environments=frozenset(self._environments()),
                left=frozenset(self._left(known)),
                flaw=f"{flaw.seq}: {flaw.message}" if flaw else "",
            )

    def _names(self, folder: str) -> list[str]:
        """What lies in this folder of the data folder."""
        return sorted(path.name for path in (self._data / folder).iterdir())

    def _running(self) -> Iterator[str]:
        """The versions of which an app runs."""
        return (version_id for role, version_id in _holders() if role == "app")

    def _apps(self) -> Iterator[str]:
        """The versions whose code is there."""
        return (each for each in self._names("apps") if "." not in each)

    def _environments(self) -> Iterator[str]:
        """The references of whatever packages are there."""
        return (each for each in self._names("environments") if "." not in each)

    def _left(self, known: set[str]) -> Iterator[str]:
        """What may be nowhere once nothing is under way."""
        yield from (f"verify-{version_id} runs" for role, version_id in _holders() if role == "verify" and version_id in known)
        yield from (f"apps/{each}" for each in self._names("apps") if "." in each)
        yield from (f"environments/{each}" for each in self._names("environments") if each.endswith((".new", ".gone")))
        yield from self._left_in_folders(known)

    def _left_in_folders(self, known: set[str]) -> Iterator[str]:
        yield from (f"staging/{each}" for each in self._names("staging"))
        logs = {f"app-{version_id}" for version_id in known}
        yield from (f"output/{each}" for each in self._names("output") if each.partition(".")[0] not in logs)

    def _records(self) -> Iterator[Sent]:
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "onlooker", "enable.auto.commit": False})
        for partition, end in self._ends(consumer).items():
            consumer.assign([TopicPartition(MODEL_EVENTS, partition, 0)])
            offset = -1
            while offset + 1 < end:
                seen = consumer.poll(ANSWER_S)
                assert seen is not None, f"partition {partition} ends at {offset + 1}, not at {end}"
                offset = seen.offset()
                headers = dict(seen.headers() or [])
                yield Sent(partition, offset, headers["ce_id"].decode(), seen.key().decode())
        consumer.close()

    def _lag(self, group: str) -> int:
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": group, "enable.auto.commit": False})
        ends = self._ends(consumer)
        places = consumer.committed([TopicPartition(MODEL_EVENTS, partition) for partition in ends], timeout=ANSWER_S)
        consumer.close()
        return sum(ends[each.partition] - max(0, each.offset) for each in places)

    @staticmethod
    def _ends(consumer: Consumer) -> dict[int, int]:
        partitions = consumer.list_topics(MODEL_EVENTS, timeout=ANSWER_S).topics[MODEL_EVENTS].partitions
        return {each: consumer.get_watermark_offsets(TopicPartition(MODEL_EVENTS, each), timeout=ANSWER_S)[1] for each in partitions}


def _versions(session: Session) -> Iterator[Version]:
    for model, version in session.execute(select(ModelRow, VersionRow).join(VersionRow, VersionRow.model_id == ModelRow.id)):
        name = f"{model.owner}/{model.name}"
        yield Version(version.id, model.id, name, version.number, version.sha256, str(version.state), version.reference)


def _events(session: Session) -> Iterator[Written]:
    for row in session.scalars(select(OutboxRow).order_by(OutboxRow.seq)):
        told = json.loads(row.value)
        yield Written(row.seq, row.id, row.key, told["event"], told["data"]["upload_id"])


def _holders() -> Iterator[tuple[str, str]]:
    """What every sandbox of this machine is for, and of which version."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if found := _HOLDER.search(words):
                yield found[1].decode(), found[2].decode()


_HOLDER = re.compile(rb"holder[.]py\0[0-9]+\0(app|verify)-([0-9a-z-]+)")
