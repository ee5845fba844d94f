"""The audit trail: who did what, appended in the transaction of the act, each row chained to the one before it."""

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from modelyard.store.tables import AuditHeadRow, AuditRow

HEAD = 1
NOTHING = ""
"""The chain before its first row."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, with which credential (`key:ID`, `session:ID` or empty), from where, in which request."""

    name: str
    credential: str = ""
    address: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the trail: whoever keeps it elsewhere can tell whether the whole trail was written anew."""

    seq: int
    chain: str


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first place where the trail is not what was written."""

    seq: int
    message: str


def append(session: Session, actor: Actor, action: str, subject: str, now: float, result: str = "done") -> None:
    """Note the act; it is kept if and only if the act is.

    The rows are written just before the commit, when nothing else is locked any more after the head of the chain.
    """
    row = AuditRow(
        at=now,
        actor=actor.name[:80],
        credential=actor.credential[:80],
        action=action,
        object=subject[:120],
        result=result,
        address=actor.address[:45],
        request_id=actor.request_id[:80],
    )
    session.info.setdefault("audit", []).append(row)


def seal(session: Session) -> None:
    """Chain and add what `append` noted; called by the unit of work as its last act."""
    rows: list[AuditRow] = session.info.pop("audit", [])
    if not rows:
        return
    session.flush()
    head = session.scalars(select(AuditHeadRow).where(AuditHeadRow.id == HEAD).with_for_update()).one()
    for row in rows:
        row.seq, row.chain = head.seq + 1, link(head.chain, head.seq + 1, row)
        head.seq, head.chain = row.seq, row.chain
        session.add(row)


def link(before: str, seq: int, row: AuditRow) -> str:
    """The chain's value at a row: SHA-256 over the value before it and the row's own fields."""
    told = [before, seq, row.at, row.actor, row.credential, row.action, row.object, row.result, row.address, row.request_id]
    return hashlib.sha256(json.dumps(told, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def verify(session: Session) -> Flaw | None:
    """The first row that was changed, removed, added or moved since it was written; None where the trail is whole."""
    before, expected = NOTHING, None
    for row in session.scalars(select(AuditRow).where(AuditRow.chain != NOTHING).order_by(AuditRow.seq)).yield_per(1000):
        if expected is not None and row.seq != expected:
            return Flaw(expected, "a row is missing")
        if row.chain != link(before, row.seq, row):
            return Flaw(row.seq, "the row is not what was written, or one before it is missing")
        before, expected = row.chain, row.seq + 1
    head = session.get_one(AuditHeadRow, HEAD)
    if head.chain != before:
        return Flaw(head.seq, "the end of the trail is missing")
    return None


def head(session: Session) -> Head:
    """The end of the trail as it is now."""
    row = session.get_one(AuditHeadRow, HEAD)
    return Head(row.seq, row.chain)
