"""The inbox: an event is new once to each group, and known for as long as it may come again."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from modelyard.bus.local import LocalBus
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.inbox import first_time
from modelyard.store.migrations import migrate
from modelyard.store.outbox_relay import KEEP_INBOX_S, OutboxRelay


def asked(database: Database) -> Callable[[str, str, float], bool]:
    def ask(group: str, event_id: str, now: float) -> bool:
        with database.write() as session:
            return first_time(session, group, event_id, now)

    return ask


def test_an_event_is_new_once_to_each_group_and_a_replay_keeps_it_known(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "yard.db")
    migrate(url)
    with closing(Database(url, Doorbell())) as database:
        ask, replayed_at = asked(database), KEEP_INBOX_S - 60.0

        def prune(now: float) -> None:
            OutboxRelay(database, LocalBus(database, float), lambda: now).prune()

        assert [ask("readers", "1", 0.0), ask("writers", "1", 0.0), ask("readers", "2", 0.0)] == [True, True, True]
        prune(replayed_at)
        assert not ask("readers", "1", replayed_at)
        prune(replayed_at + 120.0)
        assert not ask("readers", "1", replayed_at + 120.0), "it is on its topic again, and may be read again"
        assert ask("readers", "2", replayed_at + 120.0), "what did not come again is forgotten"
