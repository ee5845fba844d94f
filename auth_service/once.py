"""Work that an `Idempotency-Key` lets happen once, where the work is one transaction."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from auth_service.server_secret import ServerSecret
from modelyard.store import idempotency
from modelyard.store.database import Database
from modelyard.store.idempotency import Idempotency
from modelyard.store.row import Json


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that creates.

    Args:
        caller: Whose keys are compared: no two callers' keys are the same.
        key: The `Idempotency-Key`; None where none was sent.
        meaning: What the request says, as JSON values.
    """

    caller: str
    route: str
    key: str | None
    meaning: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Done:
    """The answer; `again`: it is the one that was kept when the work was done."""

    answer: Json
    again: bool = False


class Once:
    """Does work at most once for each key."""

    def __init__(self, database: Database, secret: ServerSecret) -> None:
        self._database = database
        self._secret = secret
        self._idempotency = Idempotency(database)

    def do(self, asked: Asked, work: Callable[[Session], Json]) -> Done:
        """What the work gives, in a transaction together with its key; or what it gave before.

        Raises:
            Conflict: `in_flight`.
            Invalid: `idempotency_key_invalid` or `idempotency_key_reused`.
        """
        if asked.key is None:
            with self._database.write() as session:
                return Done(work(session))
        # With the server's secret, for what was asked may hold a password.
        fingerprint = self._secret.mac("idempotency", json.dumps(asked.meaning, sort_keys=True, separators=(",", ":")))
        claim = self._idempotency.claim(asked.caller, asked.route, asked.key)
        if claim is None:
            return Done(self._idempotency.replay(asked.caller, asked.route, asked.key, fingerprint), again=True)
        try:
            with self._database.write() as session:
                answer = work(session)
                idempotency.keep(session, claim, fingerprint, answer)
                return Done(answer)
        except BaseException:
            self._idempotency.release(claim)
            raise
