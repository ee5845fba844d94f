"""What the engine has of ours, kept true by what it tells: while nothing happens nobody asks it anything."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from modelyard.runtime import engine_names
from modelyard.runtime.container import Container, read
from modelyard.runtime.endings import Endings
from modelyard.runtime.engine import Engine, EngineAway, EngineRefusedError, Json, Stream
from modelyard.runtime.pair import APP

FIRST_LOOK_S = 10.0
"""The longest that whoever asks first waits until the engine has told what there is."""
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
HEARD = ("create", "start", "die", "oom", "kill", "pause", "unpause", "rename", "destroy")
TOUCHED = {"die", "pause", "unpause", "rename", "destroy"}

log = logging.getLogger(__name__)


class Census:
    """Every container of this yard's pairs, by the thread that hears the engine's events.

    Args:
        changed: Called with the name of an instance of which a container ended, or stood still, or is gone; from that thread.
        broken: Called with an app of which a part was killed for want of memory, or with an inlet that ended, from that thread: what is
            left of the pair serves no more.
        starved: Asked of an app that runs, when the engine was not heard for a while: whether a part of it was killed so meanwhile.
    """

    def __init__(
        self,
        engine: Engine,
        yard: str,
        changed: Callable[[str], None],
        broken: Callable[[Container], None],
        starved: Callable[[Container], bool],
    ) -> None:
        self.endings = Endings()
        self._engine = engine
        self._yard = yard
        self._mine = [engine_names.label(engine_names.YARD, yard)]
        self._changed = changed
        self._broken = broken
        self._starved = starved
        self._known: dict[str, Container] = {}
        self._lost: dict[str, Container] = {}
        self._looking = threading.RLock()
        self._guard = threading.Condition()
        self._away: EngineAway | None = None
        self._listening = False
        self._since = ""
        self._closing = threading.Event()
        self._stream: Stream[Json] | None = None
        self._thread: threading.Thread | None = None

    @property
    def was_asked(self) -> bool:
        """Whether anybody wanted to know what there is."""
        return self._thread is not None

    def all(self) -> list[Container]:
        """Every container of ours.

        Raises:
            EngineAway: It does not answer, so nothing is known.
        """
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="modelyard-census", daemon=True)
                self._thread.start()
            if not self._guard.wait_for(lambda: self._listening or self._away, FIRST_LOOK_S):
                raise EngineAway("it did not tell what there is")
            if self._away is not None:
                raise self._away
            return [*self._known.values()]

    def of(self, name: str) -> dict[str, Container]:
        """The containers of one instance, by their part.

        Raises:
            EngineAway: As `all` has it.
        """
        return {each.part: each for each in self.all() if each.name == name}

    def known(self, name: str) -> dict[str, Container]:
        """As `of`, as they were last seen, whether or not the engine answers."""
        with self._guard:
            return {each.part: each for each in self._known.values() if each.name == name}

    def lost(self) -> list[Container]:
        """One container of each instance that others removed as a whole."""
        with self._guard:
            there = {each.name for each in self._known.values()}
            return [each for each in self._lost.values() if each.name not in there]

    def drop(self, name: str) -> None:
        """Forget that an instance was ever there."""
        with self._guard:
            self._lost.pop(name, None)

    def look(self, container_id: str) -> Container | None:
        """Look at one container now, and keep what was seen; None where it is gone, or not ours."""
        with self._looking:  # one at a time, so that no older look comes after a newer one
            found = self._engine.inspect(container_id)
            seen = read(found, self._yard) if found is not None else None
            if seen is None:
                self._forget(container_id)
                return None
            with self._guard:
                before = self._known.get(seen.id)
                self._known[seen.id] = seen
                self._lost.pop(seen.name, None)
                if self._listening and not seen.runs and before is not None and (before.runs or before.start != seen.start):
                    self.endings.see(seen.id)
            return seen

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        with self._guard:
            stream, thread = self._stream, self._thread
        if stream is not None:
            stream.close()
        if thread is not None:
            thread.join()

    def _listen(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._hear()
            except (EngineAway, EngineRefusedError) as error:
                failures = 0 if self._lose(error) else failures + 1
            except Exception:
                # Whatever it was: without this thread nothing would ever be known again.
                log.exception("listening to the engine failed")
                self._lose(EngineAway("its words were not understood"))
                failures = len(PAUSES_S)
            self._closing.wait(PAUSES_S[min(failures, len(PAUSES_S) - 1)])

    def _lose(self, error: Exception) -> bool:
        """Know nothing any more; True where something was known before."""
        with self._guard:
            was, self._listening = self._listening, False
            self._away = error if isinstance(error, EngineAway) else EngineAway(str(error))
            self._guard.notify_all()
            return was

    def _hear(self) -> None:
        # Subscribed before it is listed: what happens in between is told.
        stream = self._engine.events({"type": ["container"], "label": self._mine, "event": HEARD}, self._since)
        with self._guard:
            self._stream = stream
        try:
            for name in self._list():
                self._changed(name)
            with self._guard:
                running = [each for each in self._known.values() if each.part == APP and each.runs]
            for app in running:
                if self._starved(app):
                    self._starve(app)
            for event in stream:
                self._take(event)
        finally:
            stream.close()
        if not self._closing.is_set():
            raise EngineAway("it hung up")

    def _list(self) -> set[str]:
        """Look at all there is; gives the instances of which something ended unseen."""
        with self._guard:
            before = dict(self._known)
        there = {str(each["Id"]) for each in self._engine.containers(self._mine)}
        for container_id in there:
            with suppress(EngineRefusedError):
                self._set_right(self.look(container_id))
        for container_id in before.keys() - there:
            self._forget(container_id)
        with self._guard:
            self._lost |= {each.name: each for each in before.values() if each.id not in there}
            ended = [each for each in before.values() if each.runs and not ((now := self._known.get(each.id)) and now.runs)]
            for each in ended:
                self.endings.see(each.id)
            self._listening, self._away = True, None
            self._guard.notify_all()
            return {each.name for each in ended}

    def _take(self, event: Json) -> None:
        self._since = _moment_after(int(event["timeNano"]))
        container_id, action = str(event["Actor"]["ID"]), str(event["Action"])
        with self._guard:
            before = self._known.get(container_id)
        match action:
            case "kill":
                self.endings.signal(container_id)
            case "destroy":
                self._forget(container_id)
                if before is not None:
                    with self._guard:
                        self._lost[before.name] = before
            case "oom":
                self._starve(before)
            case "die":
                self._die(container_id, before, int(event["Actor"]["Attributes"].get("exitCode", 0)))
            case "start" if before is not None and before.runs:
                pass  # whoever started it has looked
            case _:
                self._set_right(self.look(container_id))
        if before is not None and action in TOUCHED:
            self._changed(before.name)

    def _set_right(self, seen: Container | None) -> None:
        """Undo what others did to a container and nobody else notices: an inlet stands still only by their hand, and every name is ours.

        What is made anew under a name must not become a second one of it.
        """
        if seen is None:
            return
        with suppress(EngineRefusedError):  # somebody else has the name now, or it goes on already
            if seen.part != APP and seen.status == "paused":
                self._engine.unpause(seen.id)
                self.look(seen.id)
            if seen.called != (name := engine_names.container_name(self._yard, seen.name, seen.part)):
                self._engine.rename(seen.id, name)

    def _starve(self, app: Container | None) -> None:
        if app is not None and app.part == APP:
            self.endings.starve(app)
            self._broken(app)

    def _die(self, container_id: str, before: Container | None, code: int) -> None:
        with self._looking:
            seen = self.look(container_id)
            if seen is None:
                return
            # It may have been started again meanwhile: what is told here is the end of the start before.
            self.endings.tell(seen, before.start if before is not None and before.start else seen.start, code)
        if seen.part != APP:
            self._broken(seen)

    def _forget(self, container_id: str) -> None:
        with self._guard:
            self._known.pop(container_id, None)
        self.endings.forget(container_id)


def _moment_after(nanoseconds: int) -> str:
    """The moment after an event, as the engine takes it."""
    whole, rest = divmod(nanoseconds + 1, 1_000_000_000)
    return f"{whole}.{rest:09d}"
