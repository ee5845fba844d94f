"""What a driver says when its database is away or too busy becomes an error that tells the caller to come again."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from modelyard.domain.errors import Unavailable

RETRY_AFTER_S = 2
CROWDED = frozenset({"40001", "40P01", "53300", "55P03", "57014"})
"""SQLSTATEs (PostgreSQL, appendix A): serialization failure, deadlock, too many connections, lock not available, query canceled."""

log = structlog.get_logger(__name__)


@contextmanager
def told_as_unavailable() -> Iterator[None]:
    """Run the block; every other error passes as it is.

    Raises:
        Unavailable: `database_down`, the connection was lost or none can be made. Whether a commit that was under way
            took place is then unknown, so that a write is safely repeated under its idempotency key alone.
            `database_busy`, nothing was written, and a retry helps.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise _busy(error) from error
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) in CROWDED:
            raise _busy(error) from error
        if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
            log.warning("database away", error=str(error.orig).strip())
            raise Unavailable(
                "database_down",
                "The database does not answer.",
                "Send it again, with the same Idempotency-Key.",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        raise


def _busy(error: Exception) -> Unavailable:
    log.warning("database busy", error=repr(error))
    return Unavailable("database_busy", "The database is busy.", "Send it again.", retry_after_s=RETRY_AFTER_S)
