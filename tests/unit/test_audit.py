"""The audit trail's chain: whatever was changed, removed, added or moved afterwards is found."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from modelyard.store import audit
from modelyard.store.audit import Actor
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import migrate
from modelyard.store.tables import AuditHeadRow, AuditRow

ROWS = 40
FIELDS = ("at", "actor", "credential", "action", "object", "result", "address", "request_id", "chain")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a trail."""
    path = tmp_path_factory.mktemp("trail") / "trail.db"
    migrate(sqlite_url(path))
    database = Database(sqlite_url(path), Doorbell())
    for n in range(ROWS):
        with database.write() as session:
            actor = Actor(f"user-{n % 3}", f"key:{n % 5}", f"10.0.0.{n % 7}", f"request-{n}")
            audit.append(session, actor, ("upload", "delete", "log_in")[n % 3], f"model:{n}", 1_000_000.0 + n, ("done", "refused")[n % 2])
    database.close()
    return path


@pytest.fixture
def trail(written: Path, tmp_path: Path) -> Database:
    """A copy of it, to be tampered with."""
    shutil.copy(written, tmp_path / "trail.db")
    return Database(sqlite_url(tmp_path / "trail.db"), Doorbell())


def flaw(database: Database) -> audit.Flaw | None:
    with database.read() as session:
        return audit.verify(session)


def change(session: Session, dice: random.Random) -> int:
    """Give one field of one row another value."""
    seq, field = dice.randint(1, ROWS), dice.choice(FIELDS)
    row = session.get_one(AuditRow, seq)
    was = getattr(row, field)
    wanted = was + dice.choice((-1.0, 0.001, 3600.0)) if field == "at" else dice.choice((f"{was}x", was[:-1], was.upper() + "!", "x"))
    session.execute(update(AuditRow).where(AuditRow.seq == seq).values({field: wanted}))
    return seq


def remove(session: Session, dice: random.Random) -> int:
    """Remove one row, the last one as well as any other."""
    seq = dice.randint(1, ROWS)
    session.execute(delete(AuditRow).where(AuditRow.seq == seq))
    return seq


def swap(session: Session, dice: random.Random) -> int:
    """Let two rows change their places."""
    one, other = sorted(dice.sample(range(1, ROWS + 1), 2))
    for seq, wanted in ((one, -1), (other, one), (-1, other)):
        session.execute(update(AuditRow).where(AuditRow.seq == seq).values(seq=wanted))
    return one


def cut(session: Session, dice: random.Random) -> int:
    """Remove the end of the trail, or its beginning."""
    at = dice.randint(2, ROWS)
    from_end = dice.random() < 0.5
    session.execute(delete(AuditRow).where(AuditRow.seq >= at if from_end else AuditRow.seq < at))
    return at


def forge(session: Session, dice: random.Random) -> int:
    """Add a row that chains to the last one, or stands where one was removed, as well as one can without the head."""
    seq = dice.choice((ROWS + 1, dice.randint(1, ROWS)))
    session.execute(delete(AuditRow).where(AuditRow.seq == seq))
    before = session.get(AuditRow, seq - 1)
    row = AuditRow(seq=seq, at=1.0, actor="mallory", credential="", action="nothing", object="", result="done", address="", request_id="")
    row.chain = audit.link(before.chain if before else audit.NOTHING, row)
    session.add(row)
    return seq


def test_a_trail_that_nobody_touched_is_whole(trail: Database) -> None:
    assert flaw(trail) is None


def test_every_edit_removal_and_reordering_is_found(trail: Database, scaled: Callable[[int], int]) -> None:
    dice = random.Random(43)
    hidden = []
    for n in range(scaled(1000)):
        tamper = dice.choice((change, remove, swap, cut, forge))
        with Session(trail.engine) as session:
            where = tamper(session, dice)
            session.flush()
            session.expire_all()
            found = audit.verify(session)
            session.rollback()
        if found is None:
            hidden.append((n, tamper.__name__, where))
    assert hidden == []
    assert flaw(trail) is None


def test_the_first_row_that_is_wrong_is_named(trail: Database) -> None:
    with trail.write() as session:
        session.execute(update(AuditRow).where(AuditRow.seq.in_((12, 30))).values(actor="mallory"))
    found = flaw(trail)

    assert found is not None
    assert found.seq == 12


def test_a_trail_that_is_emptied_with_its_rows_is_found_by_its_head(trail: Database) -> None:
    with trail.write() as session:
        session.execute(delete(AuditRow))

    assert flaw(trail) == audit.Flaw(ROWS, "the end of the trail is missing")


def test_an_act_that_is_undone_leaves_no_row_and_no_gap(trail: Database) -> None:
    def undone() -> None:
        with trail.write() as session:
            audit.append(session, Actor("ada"), "upload", "model:x", 2.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    with trail.write() as session:
        audit.append(session, Actor("ada"), "upload", "model:y", 3.0)
        audit.append(session, Actor("ada"), "delete", "model:y", 3.0)

    assert flaw(trail) is None
    with trail.read() as session:
        assert list(session.scalars(select(AuditRow.seq).where(AuditRow.actor == "ada"))) == [ROWS + 1, ROWS + 2]


def test_many_who_append_at_once_make_one_chain(trail: Database) -> None:
    def act(n: int) -> None:
        with trail.write() as session:
            audit.append(session, Actor(f"user-{n}"), "log_in", f"session:{n}", float(n))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(64)))

    assert flaw(trail) is None
    with trail.read() as session:
        assert session.get_one(AuditHeadRow, audit.HEAD).seq == ROWS + 64


def test_rows_from_before_there_was_a_chain_are_left_as_they_are(trail: Database, tmp_path: Path) -> None:
    trail.close()
    with sqlite3.connect(tmp_path / "trail.db") as raw:
        raw.execute(
            "INSERT INTO audit (seq, at, actor, credential, action, object, result, address, request_id, chain) VALUES (0, 1, 'old', '', 'upload', 'x', 'done', '', 'r', '')"
        )

    assert flaw(trail) is None


def test_what_callers_send_is_cut_to_the_columns(trail: Database) -> None:
    with trail.write() as session:
        audit.append(session, Actor("n" * 500, "c" * 500, "a" * 500, "r" * 500), "upload", "o" * 500, 1.0)

    assert flaw(trail) is None
    with trail.read() as session:
        row = session.get_one(AuditRow, ROWS + 1)
        assert [len(text) for text in (row.actor, row.credential, row.object, row.address, row.request_id)] == [80, 80, 120, 45, 80]
