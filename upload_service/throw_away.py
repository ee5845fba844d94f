"""Containers that run one program for a build, with volumes and networks of their own, and of which nothing is left."""

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain

import structlog

from modelyard.domain.plan import GIB, MIB
from modelyard.runtime import engine_names
from modelyard.runtime.arguments import OPEN_FILES, SANDBOX_UID
from modelyard.runtime.engine import EngineAway
from upload_service.build_locks import BuildLocks
from upload_service.builders import Log, tool_timeout
from upload_service.engine import BuildEngine, Conversation, EngineRefusedError, Json
from upload_service.install_program import MARK
from upload_service.tools import CHECK_EVERY_S, Lines, Outcome

USER = f"{SANDBOX_UID}:{SANDBOX_UID}"
NOTHING = "none"
"""The network that has no way out, not even to the engine's machine."""
MEMORY_BYTES, CPUS, PROCESSES, SCRATCH_BYTES = 4 * GIB, 2, 512, 768 * MIB
OUT_OF_MEMORY = 137
ENDS_WITHIN_S = 60.0
"""Between the end of what a program prints, and its own."""
PRINTED = 1
"""The output that has a mark; two outputs come in no order."""
MOST_PIECES = 64
"""So many pieces of output are taken from the engine before the first of them is used."""
_NANO = 1_000_000_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """What a container runs.

    Args:
        mounts: Path in the container to the name of a volume.
        network: `none`, or a network's name.
        kept: The paths of mounts that it may only read.
    """

    image: str
    words: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    network: str = NOTHING
    kept: Sequence[str] = ()


class Running:
    """A program on its way, whose input is open.

    Args:
        container: The id of the container that it runs in.
        timeout_s: The longest that it may run once it has its input.
    """

    def __init__(self, engine: BuildEngine, container: str, conversation: Conversation, timeout_s: float) -> None:
        self._engine = engine
        self._container = container
        self._conversation = conversation
        self._timeout_s = timeout_s
        self._kept: list[str] = []

    def output(self, content: bytes, log: Log) -> Iterator[bytes]:
        """Give it its input, hand on its lines as they come, and yield the pieces of what it prints after the mark of its first output.

        Raises:
            BuildError: `tool_timeout`.
            BuildCancelledError: The build must end.
        """
        arrived: queue.Queue[tuple[int, bytes] | None] = queue.Queue(MOST_PIECES)
        over = threading.Event()

        def read() -> None:
            with suppress(OSError):  # it has ended: what it printed may tell why
                self._conversation.send(content)
            for each in chain(self._conversation, [None]):
                while not over.is_set():  # once nobody wants it, it is read to its end: so the connection is let go of
                    with suppress(queue.Full):
                        arrived.put(each, timeout=CHECK_EVERY_S)
                        break

        # Ends with the container, or when whoever asked for the output hangs up.
        threading.Thread(target=read, name="container-output", daemon=True).start()
        lines = Lines(log)
        self._kept = lines.kept
        try:
            is_marked = False
            for number, piece in self._arriving(arrived, log):
                if number == PRINTED and is_marked:
                    yield piece
                    continue
                told, mark, rest = piece.partition(MARK) if number == PRINTED else (piece, b"", b"")
                lines.feed(told)
                if mark:
                    is_marked = True
                    yield rest
        finally:
            over.set()
        lines.end()

    def _arriving(self, arrived: "queue.Queue[tuple[int, bytes] | None]", log: Log) -> Iterator[tuple[int, bytes]]:
        deadline = time.monotonic() + self._timeout_s
        while True:
            log.check()
            if time.monotonic() > deadline:
                raise tool_timeout(self._timeout_s)
            with suppress(queue.Empty):
                piece = arrived.get(timeout=CHECK_EVERY_S)
                if piece is None:
                    return
                yield piece

    def ended(self) -> Outcome:
        """How it ended, and what it told, once its output came to an end."""
        self._engine.wait(self._container, ENDS_WITHIN_S)
        state = (self._engine.inspect(self._container) or {})["State"]
        return Outcome(OUT_OF_MEMORY if state["OOMKilled"] else state["ExitCode"], "".join(self._kept))


class ThrowAway:
    """What one build has in the engine while it runs; each part carries the name of the lock that its builder holds.

    Args:
        name: The name of that lock.
    """

    def __init__(self, engine: BuildEngine, yard: str, name: str, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._name = name
        self._labels = {engine_names.YARD: yard, engine_names.ROLE: "build", engine_names.BUILD: name}
        self._undone = ExitStack()

    def volume(self, options: Mapping[str, str] | None = None) -> tuple[str, str]:
        """A fresh volume: its name, and its mount point on the engine's machine."""
        name = self._fresh("volume")
        self._undone.callback(self._engine.remove_volume, name)
        return name, self._engine.create_volume(name, self._labels, options or {})

    def network(self) -> str:
        """A fresh network with a way out."""
        name = self._fresh("network")
        self._undone.callback(self._engine.remove_network, name)
        self._engine.create_network(name, self._labels)
        return name

    def started(self, program: Program) -> Running:
        """Start the program; the container stays until this build lets go of everything."""
        container = self._engine.create(self._fresh("run"), self._config(program))
        self._undone.callback(self._engine.remove, container)
        conversation = self._engine.converse(container)
        self._undone.callback(conversation.close)
        self._engine.start(container)
        return Running(self._engine, container, conversation, self._timeout_s)

    def run(self, program: Program, log: Log, content: bytes = b"") -> Outcome:
        """Run the program, which has nothing but lines to print, to its end.

        Args:
            content: Its input.

        Raises:
            BuildError: `tool_timeout`.
            BuildCancelledError: The build must end.
        """
        running = self.started(program)
        for _ in running.output(content, log):
            pass
        return running.ended()

    def close(self) -> None:
        """Remove it all; one that fails is left to `sweep`."""
        self._undone.close()

    def _fresh(self, kind: str) -> str:
        return f"modelyard-{kind}-{secrets.token_hex(8)}"

    def _config(self, program: Program) -> Json:
        return {
            "Image": program.image,
            "Cmd": list(program.words),
            "Entrypoint": [],
            "User": USER,
            "WorkingDir": "/tmp",  # noqa: S108 - a file system of the container's own
            "Env": [f"{name}={value}" for name, value in program.variables.items()],
            "Labels": self._labels,
            "OpenStdin": True,
            "StdinOnce": True,  # its input ends with whoever talks to it
            # A network namespace with a loopback, as ever, but the kernel's alone: what the engine adds to it takes as long as the rest of a start.
            "NetworkDisabled": program.network == NOTHING,
            "HostConfig": {
                "Mounts": [
                    {"Type": "volume", "Source": volume, "Target": path, "ReadOnly": path in program.kept}
                    for path, volume in program.mounts.items()
                ],
                "NetworkMode": program.network,
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "Memory": MEMORY_BYTES,
                "MemorySwap": MEMORY_BYTES,
                "NanoCpus": CPUS * _NANO,
                "PidsLimit": PROCESSES,
                "IpcMode": "private",
                "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,mode=1777,size={SCRATCH_BYTES}"},  # noqa: S108 - as above
                "Ulimits": [
                    {"Name": "nofile", "Soft": OPEN_FILES, "Hard": OPEN_FILES},
                    {"Name": "core", "Soft": 0, "Hard": 0},
                ],
                "LogConfig": {"Type": "none"},
                "RestartPolicy": {"Name": "no"},
                "Init": True,
            },
        }


class ThrowAways:
    """Makes what single builds use, and removes what is left of those that died.

    Args:
        timeout_s: The longest that one program may run.
    """

    def __init__(self, engine: BuildEngine, locks: BuildLocks, yard: str, timeout_s: float) -> None:
        self._engine = engine
        self._locks = locks
        self._yard = yard
        self._timeout_s = timeout_s
        # A volume of thousands of files takes as long to remove as to fill, and no build need wait for it.
        self._removing = ThreadPoolExecutor(1, thread_name_prefix="remove-builds")

    @contextmanager
    def made(self, log: Log) -> Iterator[ThrowAway]:
        """What a build may use for the length of the block; it is removed soon after."""
        name = f"build-{secrets.token_hex(8)}"
        with ExitStack() as undone:
            undone.enter_context(self._locks.held(name, log))
            made = ThrowAway(self._engine, self._yard, name, self._timeout_s)
            undone.callback(made.close)
            try:
                yield made
            finally:
                self.remove_later(undone.pop_all())

    def remove_later(self, undone: ExitStack) -> None:
        """Undo what a build made and no build waits for; `settle` does, and `close`."""
        self._removing.submit(_removed, undone)

    def settle(self) -> None:
        """Wait until all that was used so far is removed."""
        self._removing.submit(lambda: None).result()

    def close(self) -> None:
        """Wait until all of it is removed."""
        self._removing.shutdown()

    def sweep(self) -> int:
        """Remove what a builder that died has left of this yard's builds, and return how many parts."""
        labels = [f"{engine_names.YARD}={self._yard}", f"{engine_names.ROLE}=build"]
        engine = self._engine
        removed = sum(self._swept(each, lambda found: engine.remove(found["Id"])) for each in engine.containers(labels))
        removed += sum(self._swept(each, lambda found: engine.remove_volume(found["Name"])) for each in engine.volumes(labels))
        return removed + sum(self._swept(each, lambda found: engine.remove_network(found["Name"])) for each in engine.networks(labels))

    def _swept(self, found: Json, remove: Callable[[Json], None]) -> bool:
        if self._locks.is_held(found["Labels"].get(engine_names.BUILD, "")):
            return False
        try:
            remove(found)
        except EngineRefusedError:  # still used by a part that is going: the next sweep finds it
            return False
        return True


def _removed(undone: ExitStack) -> None:
    try:
        undone.close()
    except (EngineAway, EngineRefusedError) as error:
        log.warning("parts of a build are left to the next sweep", why=str(error))
