"""Which inlets wait for their models: those of the most recently used ones that do not run."""

import threading


class WarmInlets:
    """The names of instances whose inlets are kept started, in the order in which they were used.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[str, None] = {}
        self._guard = threading.Lock()

    def put(self, name: str) -> list[str]:
        """Keep this one, whose app has just ended; gives those that are kept no more."""
        with self._guard:
            self._names.pop(name, None)
            self._names[name] = None
            gone = list(self._names)[: max(0, len(self._names) - self._most)]
            for each in gone:
                del self._names[each]
            return gone

    def take(self, name: str) -> None:
        """Its app runs, or it is gone."""
        with self._guard:
            self._names.pop(name, None)

    def __contains__(self, name: str) -> bool:
        with self._guard:
            return name in self._names
