"""Keeps the routes to who may call: those of models of which that was said anew are written anew."""

from collections.abc import Callable

from inference_service.lifecycle import Lifecycle
from modelyard.store import catalog
from modelyard.store.database import Database

OVERLAP_S = 10.0
"""A change is looked for in so much of the time before the last look too: its writer's clock may be slow, or its commit late."""


class Access:
    """Looks for what was shared, or not shared any more; beside the reconciler, which has more to do, as a caller waits for it.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, lifecycle: Lifecycle, clock: Callable[[], float]) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._clock = clock
        self._looked_at = clock()

    def step(self) -> bool:
        """Look once."""
        since, now = self._looked_at - OVERLAP_S, self._clock()
        with self._database.read() as session:
            changed = catalog.access_changed(session, since)
        for model in changed:
            with self._lifecycle.held(model.model_id, wait=False) as got:
                # Who holds it may do so for as long as an app boots: until then its calls wait at a route that knows better.
                self._lifecycle.lead_anew(model) if got else self._lifecycle.cool(model)
        # Not before all is written: where a door is silent, the next look begins at the same time.
        self._looked_at = now
        return False
