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
        actor=_fit(actor.name, 80),
        credential=_fit(actor.credential, 80),
        action=action,
        object=_fit(subject, 120),
        result=result,
        address=_fit(actor.address, 45),
        request_id=_fit(actor.request_id, 80),
    )
    session.info.setdefault("audit", []).append(row)


def seal(session: Session) -> None:
    """Chain and add what `append` noted; called by the unit of work as its last act.

    The database gives the numbers: a release that knows of no chain may append beside this one. With the head held they grow along
    the chain; what was rolled back leaves gaps.
    """
    rows: list[AuditRow] = session.info.pop("audit", [])
    if not rows:
        return
    session.flush()
    head = session.scalars(select(AuditHeadRow).where(AuditHeadRow.id == HEAD).with_for_update()).one()
    for row in rows:
        row.chain = link(head.chain, row)
        session.add(row)
        session.flush()
        head.seq, head.chain = row.seq, row.chain


def link(before: str, row: AuditRow) -> str:
    """The chain's value at a row: SHA-256 over the value before it, which says where it stands, and the row's own fields."""
    told = [before, row.at, row.actor, row.credential, row.action, row.object, row.result, row.address, row.request_id]
    return hashlib.sha256(json.dumps(told, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def verify(session: Session) -> Flaw | None:
    """The first row that was changed, removed, added or moved since it was written; None where the trail is whole."""
    before = NOTHING
    for row in session.scalars(select(AuditRow).where(AuditRow.chain != NOTHING).order_by(AuditRow.seq)).yield_per(1000):
        if row.chain != link(before, row):
            return Flaw(row.seq, "the row is not what was written, or one before it is missing")
        before = row.chain
    head = session.get_one(AuditHeadRow, HEAD)
    if head.chain != before:
        return Flaw(head.seq, "the end of the trail is missing")
    return None


def head(session: Session) -> Head:
    """The end of the trail as it is now."""
    row = session.get_one(AuditHeadRow, HEAD)
    return Head(row.seq, row.chain)


def _fit(text: str, length: int) -> str:
    # Chained as it will be kept: text of Postgres cannot hold the character NUL.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:length]
