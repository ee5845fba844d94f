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


class Idling:
    """Looks at what runs, and asks the door when it was last called."""

    def __init__(self, database: Database, routes: Routes, lifecycle: Lifecycle, workers: Workers) -> None:
        self._database = database
        self._routes = routes
        self._lifecycle = lifecycle
        self._workers = workers

    def step(self) -> bool:
        """Look once."""
        live = self._live()
        seen = self._routes.overview([version.model_id for version in live])
        for version in live:
            # One question for all of them; whoever is at rest is asked about again, once its model is held.
            if not seen[version.model_id].in_flight and seen[version.model_id].idle_s >= min(
                version.plan.idle.freeze_s, version.plan.idle.stop_s
            ):
                self._workers.begin(version.model_id, partial(self._rest, version))
        return False

    def _live(self) -> list[ServingVersion]:
        with self._database.read() as session:
            rows = [row for row in repository.live(session) if row.state in {InstanceState.RUNNING, InstanceState.FROZEN}]
            versions = [catalog.ready_version(session, row.version_id) for row in rows]
        return [version for version in versions if version is not None]

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
