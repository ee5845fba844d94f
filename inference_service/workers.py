"""Work on models that may take long, beside the loops that found it: at most one piece a model at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from modelyard.domain.errors import ModelyardError

THREADS = 8

log = structlog.get_logger(__name__)


class Workers:
    """Threads that stop and retire instances: one app that will not end holds up no other."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="lifecycle")
        self._busy: set[str] = set()
        self._guard = threading.Lock()

    def begin(self, model_id: str, work: Callable[[], None]) -> None:
        """Do the work soon; nothing where something is already being done for the model: the next look finds it again."""
        with self._guard:
            if model_id in self._busy:
                return
            self._busy.add(model_id)
        self._pool.submit(self._do, model_id, work)

    def close(self) -> None:
        """Wait for what was begun."""
        self._pool.shutdown()

    def _do(self, model_id: str, work: Callable[[], None]) -> None:
        try:
            work()
        except ModelyardError as error:
            log.info("work on a model waits", model=model_id, error=error.code)
        except Exception:
            # Level-triggered: what failed here is found again by the next look.
            log.exception("work on a model failed", model=model_id)
        finally:
            with self._guard:
                self._busy.discard(model_id)
