"""Freezes and stops what nobody calls, each model by its own times."""

import time
from functools import partial

from inference_service import repository
from inference_service.lifecycle import Lifecycle
from inference_service.workers import Workers
from modelyard.domain.states import InstanceState
from modelyard.runtime.routes import Routes
from modelyard.store import catalog
from modelyard.store.catalog import ServingVersion
from modelyard.store.database import Database

IDLE = "idle"
"""The doorbell's channel that rings when something may have been at rest for long enough."""


class Idling:
    """Looks at what runs, and asks the door when it was last called.

    Args:
        again_s: Seconds until the next look where calls are in flight, or something is being put to rest.
    """

    def __init__(self, database: Database, routes: Routes, lifecycle: Lifecycle, workers: Workers, again_s: float) -> None:
        self._database = database
        self._routes = routes
        self._lifecycle = lifecycle
        self._workers = workers
        self._again_s = again_s

    def step(self) -> bool:
        """Look once."""
        live = self._live()
        # One question for all of them; whoever is at rest is asked about again, once its model is held.
        seen = self._routes.overview([version.model_id for version, _ in live])
        for version, rests_s in live:
            left_s = rests_s - seen[version.model_id].idle_s
            if seen[version.model_id].in_flight or left_s <= 0:
                self._database.bell.ring_in(IDLE, self._again_s)
            else:
                self._database.bell.ring_in(IDLE, left_s)
            if not seen[version.model_id].in_flight and left_s <= 0:
                self._workers.begin(version.model_id, partial(self._rest, version))
        return False

    def _live(self) -> list[tuple[ServingVersion, float]]:
        """What runs or is frozen, and the seconds without a call after which it is not left as it is."""
        with self._database.read() as session:
            rows = [row for row in repository.live(session) if row.state in {InstanceState.RUNNING, InstanceState.FROZEN}]
            found = [(row.state, catalog.ready_version(session, row.version_id)) for row in rows]
        return [(version, _rests_s(version, state)) for state, version in found if version is not None]

    def _rest(self, version: ServingVersion) -> None:
        with self._lifecycle.held(version.model_id, wait=False) as got:
            if got:
                self._rest_held(version)

    def _rest_held(self, version: ServingVersion) -> None:
        with self._database.read() as session:
            row = repository.find(session, version.version_id)
        if row is None or row.state not in {InstanceState.RUNNING, InstanceState.FROZEN}:
            return
        idle = version.plan.idle
        seen = self._routes.stats(version.model_id)
        # A model that was started and never called rests from its start on.
        rested_s = seen.idle_s if row.state == InstanceState.FROZEN else min(seen.idle_s, time.time() - row.since)
        if seen.in_flight:
            return
        if rested_s >= idle.stop_s:
            self._lifecycle.stop_idle(version)
        elif rested_s >= idle.freeze_s and row.state == InstanceState.RUNNING:
            self._lifecycle.freeze(version)


def _rests_s(version: ServingVersion, state: InstanceState) -> float:
    idle = version.plan.idle
    return idle.stop_s if state == InstanceState.FROZEN else min(idle.freeze_s, idle.stop_s)
