"""Holds the claim of an upload's idempotency key for as long as its body comes in, however slowly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from anyio.to_thread import run_sync

from modelyard.store.idempotency import Claim
from upload_service.receive import Receive, Request

log = structlog.get_logger(__name__)


@asynccontextmanager
async def held(receive: Receive, asked: Request) -> AsyncIterator[Claim | None]:
    """The claim, renewed until the block ends, and let go where it raises; None where the key needs none.

    Raises:
        Conflict: `in_flight`, another request holds the key.
        Invalid: `idempotency_key_invalid`.
    """
    claim = await run_sync(receive.claim, asked)
    if claim is None:
        yield None
        return
    keeper = asyncio.create_task(_renew(receive, claim))
    try:
        yield claim
    except BaseException:
        await run_sync(receive.release, claim)
        raise
    finally:
        keeper.cancel()


async def _renew(receive: Receive, claim: Claim) -> None:
    while True:
        await asyncio.sleep(receive.renew_every_s)
        try:
            await run_sync(receive.renew, claim)
        except Exception:
            # The database may come back before the lease ends; the fence keeps the rows right if it does not.
            log.exception("claim not renewed", route=claim.route)
