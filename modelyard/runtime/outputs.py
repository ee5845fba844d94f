"""What running containers print, read as it comes and kept when they are gone: a thread for each of them."""

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from modelyard.runtime.engine import Engine, EngineAway, EngineRefusedError, Stream
from modelyard.runtime.output import FILE_BYTES, OutputFile

BUDGET_BYTES = 4 * 1024 * 1024
"""An app may print this much a second; one that prints more waits, rather than keep a processor and the disk busy."""
SETTLE_S = 2.0
AGAIN_S = 5.0
"""Between two tries to read a container whose output could not be had."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reading:
    container_id: str
    stream: Stream[bytes]
    thread: threading.Thread


class Outputs:
    """Keeps the output of instances in a folder.

    Args:
        folder: Holds the files of all instances, see `OutputFile`.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._engine = engine
        self._folder = folder
        self._readings: dict[str, _Reading] = {}
        self._tried_at: dict[str, float] = {}
        self._guard = threading.Lock()

    def file(self, name: str) -> OutputFile:
        """What was kept of an instance."""
        return OutputFile(self._folder, name)

    def follow(self, name: str, container_id: str) -> None:
        """Read what the container prints from now on; called before it starts, it misses nothing."""
        stream = self._engine.attach(container_id)
        thread = threading.Thread(target=self._read, args=(name, stream), name=f"output:{name}", daemon=True)
        with self._guard:
            self._readings[name] = _Reading(container_id, stream, thread)
        thread.start()

    def follows(self, name: str, container_id: str) -> bool:
        """Whether this container is read."""
        with self._guard:
            reading = self._readings.get(name)
        return reading is not None and reading.container_id == container_id and reading.thread.is_alive()

    def adopt(self, name: str, container_id: str) -> None:
        """Go on with a container that ran before: what it printed meanwhile is in the engine's own log."""
        if time.monotonic() - self._tried_at.get(name, -AGAIN_S) < AGAIN_S:
            return
        self._tried_at[name] = time.monotonic()
        try:
            self.follow(name, container_id)
            printed = self._engine.logs(container_id, FILE_BYTES // 2)
        except (EngineAway, EngineRefusedError) as error:
            log.warning("the output of %s is not read: %s", name, error)
            return
        file = self.file(name)
        file.remove()
        file.append(printed)

    def settle(self, name: str) -> None:
        """Wait until the last words of a container that has ended are kept."""
        with self._guard:
            reading = self._readings.pop(name, None)
        if reading is not None and reading.thread is not threading.current_thread():
            reading.thread.join(SETTLE_S)
            reading.stream.close()
            reading.thread.join(SETTLE_S)  # whoever forgets the output next would else find it again

    def close(self) -> None:
        """Stop reading."""
        with self._guard:
            readings = [*self._readings.values()]
            self._readings.clear()
        for each in readings:
            each.stream.close()
        for each in readings:
            each.thread.join()

    def _read(self, name: str, stream: Stream[bytes]) -> None:
        file = self.file(name)
        spent, until = 0, time.monotonic() + 1
        for piece in stream:
            file.append(piece)
            spent += len(piece)
            now = time.monotonic()
            if now >= until:
                spent, until = 0, now + 1
            elif spent > BUDGET_BYTES:
                time.sleep(until - now)
