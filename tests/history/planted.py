"""Runs a program with a bug put into it, in this process alone: `planted.py BUG modelyard serve ...` or `planted.py BUG FILE ...`.

Each bug pauses where a kill shows it, and says so on its output: whoever kills it there need not be lucky.
"""

import runpy
import sys
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

HERE = "planted: here"
PAUSE_S = 1.5


def outside() -> None:
    """An event is written in a transaction of its own, after that of the change which it tells of."""
    from modelyard.store import outbox  # noqa: PLC0415 - loads what it patches, and nothing where another bug is planted

    inside = outbox.append

    def append(session: Session, told: Any, now: float) -> str:
        if told.wire_name != "model.uploaded":
            return inside(session, told, now)
        bind = session.get_bind()

        def later(_session: Session) -> None:
            _pause()
            with Session(bind) as own:
                inside(own, told, now)
                own.commit()

        event.listen(session, "after_commit", later, once=True)
        return ""

    outbox.append = append


def early() -> None:
    """The relay marks events as published before it publishes them."""
    from modelyard.store import outbox_relay  # noqa: PLC0415 - as above

    def step(relay: Any) -> bool:
        if not relay._database.holds(outbox_relay.TURN):
            return False
        rows = relay._unpublished()
        if not rows:
            return False
        relay._mark([row.seq for row in rows])
        _pause()
        relay._bus.publish([outbox_relay._record(row) for row in rows])
        return len(rows) == outbox_relay.BATCH

    outbox_relay.OutboxRelay.step = step  # type: ignore[method-assign]


def forgetful() -> None:
    """The inbox knows no event."""
    from modelyard.bus import kafka_group  # noqa: PLC0415 - as above
    from modelyard.store import inbox  # noqa: PLC0415 - as above

    remember = kafka_group.GroupMember._pass

    def passed(member: Any, record: Any) -> None:
        _pause()
        remember(member, record)

    inbox.first_time = lambda *_: True
    kafka_group.GroupMember._pass = passed  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {"outside": outside, "early": early, "forgetful": forgetful}


def _pause() -> None:
    print(HERE, flush=True)
    time.sleep(PAUSE_S)


def main(bug: str, program: str, *words: str) -> None:
    """Plant the bug, then run the program as if it were called by its name."""
    BUGS[bug]()
    sys.argv = [program, *words]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
