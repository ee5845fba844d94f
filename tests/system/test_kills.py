"""Each process killed at random under uploads: nothing is lost, doubled or left behind; and whoever judges that finds planted bugs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from history.checker import Kind
from history.clients import upload
from kill_ground import kill_ground
from yard import marked

if TYPE_CHECKING:
    from parts.postgres import Postgres

pytestmark = [pytest.mark.postgres, pytest.mark.kafka, pytest.mark.sandbox, pytest.mark.slow]

VERSIONS = 5
"""Uploads of one model."""
KILLS = 2
"""Within so many a planted bug is found; a third one of the same record would be its last."""


@pytest.mark.parametrize(
    ("bug", "counting_bug", "kind"),
    [("outside", "", Kind.UNTOLD), ("early", "", Kind.UNSENT), ("", "forgetful", Kind.EFFECT_DOUBLED)],
    ids=["event outside the transaction", "relay marks before it publishes", "no inbox"],
)
def test_a_planted_bug_is_found(postgres_server: "Postgres", bug: str, counting_bug: str, kind: Kind) -> None:
    with kill_ground(postgres_server, bug, counting_bug) as ground:
        ground.killed_where_planted([upload(number, 2) for number in range(3)], KILLS)
        faults = ground.judged()
        print(ground.figures())
        assert 1 <= len(ground.killer.kills) <= KILLS
        assert kind in {each.kind for each in faults}, ground.told(faults)
        # Whoever never heard of a version did not do what follows from it; nothing else is laid to the bug's charge.
        assert {each.kind for each in faults} <= {kind, Kind.NO_EFFECT, Kind.UNSERVED}, ground.told(faults)


def test_nothing_is_lost_doubled_or_left_behind_while_each_process_is_killed_at_random(
    postgres_server: "Postgres", scaled: Callable[[int], int]
) -> None:
    count = scaled(1000)
    with kill_ground(postgres_server) as ground:
        ground.under_random_kills([upload(number, max(1, count // VERSIONS)) for number in range(count)])
        faults = ground.judged()
        print(ground.figures())
        assert faults == [], ground.told(faults)
        assert set(ground.several.end().values()) <= {0}, ground.several.logs()
        assert marked(str(ground.several.data)) == []
