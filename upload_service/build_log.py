"""A build's log: lines appended in order, read again from any line on."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from modelyard.store import doorbell
from modelyard.store.database import Database, ring_after_commit
from modelyard.store.tables import BuildLogRow, BuildRow

LINE_LENGTH = 4000
MOST_LINES = 20_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `n` counts from 1 without gaps."""

    n: int
    at: float
    text: str


class BuildLogs:
    """The logs of all builds."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def append(self, build_id: str, fence: int, *texts: str) -> None:
        """Add lines; beyond the most that are kept, or from a builder whose lease another has taken over, nothing."""
        with self._database.write() as session:
            build = session.get(BuildRow, build_id, with_for_update=True)
            if build is None or build.fence != fence:
                return
            last = session.scalar(select(func.max(BuildLogRow.n)).where(BuildLogRow.build_id == build_id)) or 0
            for n, text in enumerate(texts[: MOST_LINES - last], last + 1):
                shown = text if n < MOST_LINES else "... the log is longer than is kept"
                session.add(BuildLogRow(build_id=build_id, n=n, at=self._clock(), text=_printable(shown)))
            ring_after_commit(session, doorbell.build_channel(build_id))

    def after(self, build_id: str, n: int) -> list[Line]:
        """The lines behind line `n`, in order."""
        with self._database.read() as session:
            rows = session.scalars(select(BuildLogRow).where(BuildLogRow.build_id == build_id, BuildLogRow.n > n).order_by(BuildLogRow.n))
            return [Line(row.n, row.at, row.text) for row in rows]


def _printable(text: str) -> str:
    # Tools print colours, and uploads print what they like: no control character reaches a reader's terminal.
    return "".join(letter if letter.isprintable() or letter == "\t" else "\N{REPLACEMENT CHARACTER}" for letter in text[:LINE_LENGTH])
