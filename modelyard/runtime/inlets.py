"""The ways into apps: their inlets are opened, aimed at the port that the app listens on, and closed."""

import socket
import threading

from modelyard.runtime import listeners
from modelyard.runtime.census import Census
from modelyard.runtime.container import Container
from modelyard.runtime.engine import Engine, EngineRefusedError
from modelyard.runtime.pair import INLET
from modelyard.runtime.pairs import Pairs
from modelyard.runtime.runtime import Listener
from modelyard.runtime.sockets_volume import SocketsVolume

PROGRAM = "/usr/local/bin/inlet"
END_S = 10.0


class Inlets:
    """The inlets of all instances, by name; who opens or ends one holds the instance."""

    def __init__(self, engine: Engine, census: Census, volume: SocketsVolume, pairs: Pairs) -> None:
        self._engine = engine
        self._census = census
        self._volume = volume
        self._pairs = pairs
        self._aims: dict[str, tuple[int, Listener]] = {}
        self._aiming = threading.Lock()

    def open(self, inlet: Container) -> None:
        """Let it run; one that waits already stays, while its socket is still where callers look for it.

        Raises:
            StartError: No folder for its socket can be made.
        """
        if inlet.runs and self._volume.is_there(inlet.name):
            return
        if inlet.runs:
            self.end(inlet.name)
        self._volume.make(inlet.name)
        self._engine.start(inlet.id)
        opened = self._census.look(inlet.id)
        if opened is not None:
            self._aims[inlet.id] = (opened.start, self._pairs.expected(inlet.name))

    def end(self, name: str) -> None:
        """End it; it does not run: nothing happens."""
        inlet = self._census.of(name).get(INLET)
        if inlet is not None and inlet.runs:
            self._engine.kill(inlet.id, "SIGKILL")
            self._engine.wait(inlet.id, END_S)
            self._census.look(inlet.id)
            self._aims.pop(inlet.id, None)

    def connect(self, name: str, to: Listener, timeout_s: float) -> socket.socket:
        """See `Runtime.connect`."""
        self._aim(name, to)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            connection.connect(self._volume.socket(name))
        except FileNotFoundError:
            connection.close()
            raise ConnectionRefusedError(f"the inlet of {name} does not listen yet") from None
        except OSError:
            connection.close()
            raise
        return connection

    def listening(self, name: str) -> list[Listener]:
        """What listens in its network; nothing where it does not run."""
        inlet = self._census.of(name).get(INLET)
        if inlet is None or not inlet.runs:
            return []
        try:
            printed = self._engine.read_inside(inlet.id, ["cat", "/proc/net/tcp", "/proc/net/tcp6"])
        except EngineRefusedError:  # it ended meanwhile
            return []
        return listeners.of_tables(printed.decode("ascii", "replace"))

    def _aim(self, name: str, to: Listener) -> None:
        """Let the inlet lead to this address."""
        inlet = self._census.of(name).get(INLET)
        if inlet is None or not inlet.runs:
            raise ConnectionRefusedError(f"the inlet of {name} does not run")
        with self._aiming:
            # What another process left it at is not known: it is told once.
            if self._aims.get(inlet.id) == (inlet.start, to):
                return
            try:
                status, printed = self._engine.run_inside(inlet.id, [PROGRAM, "aim", to.host, str(to.port)])
            except EngineRefusedError as error:
                raise ConnectionRefusedError(f"the inlet of {name} has ended") from error
            if status:
                raise ConnectionRefusedError(f"the inlet of {name} does not lead there: {printed.decode(errors='replace').strip()}")
            self._aims[inlet.id] = (inlet.start, to)
