"""One role a process: the life of such a process, from its checks to its end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import structlog

from inference_service.consumers import SUBSCRIPTION
from modelyard.bus.bus import dead_letter_topic
from modelyard.composition import check_address, listen, make_kernel, url_of
from modelyard.domain.errors import Invalid, Unavailable
from modelyard.domain.events import MODEL_EVENTS
from modelyard.run import logs
from modelyard.run.dependencies import LOOK_EVERY_S, PAUSE_S, Dependencies
from modelyard.run.folder_lock import FolderLock, prepare
from modelyard.run.otlp import exporting
from modelyard.run.process import Process
from modelyard.run.service import Kernel, Loop, Service
from modelyard.run.settings import Settings
from modelyard.run.unix_socket import SERVING, STARTING, process_mark, run_folder
from modelyard.run.unix_socket import listen as listen_inside
from modelyard.serving_roles import GATEWAY, ROLES, Parts
from modelyard.store.database import normalise
from modelyard.store.schema import check_schema
from modelyard.web.inside import Inside
from modelyard.web.metrics_page import metrics
from modelyard.web.starting import Starting

if TYPE_CHECKING:
    from modelyard.bus.kafka import KafkaBus

NEEDED = ("database", "schema")
"""What a process waits for before it does anything. Without Kafka it works: what it publishes waits in the outbox."""

log = structlog.get_logger(__name__)


def serve(role: str, settings: Settings, port: int | None, *, announce: Callable[["Serving"], None]) -> int:
    """Run one role until a signal; returns the exit code.

    Args:
        port: Of a role that listens on one; None: the usual one.

    Raises:
        Invalid: `needs_postgres`, `needs_kafka`, `client_missing` or `port_not_used`.
        Conflict: `data_folder_in_use` by `modelyard up`, or `port_in_use`.
    """
    logs.configure(settings.log_level)
    _check_parts(settings)
    with ExitStack() as held:
        held.enter_context(exporting(settings.otel, [role]))
        serving = Serving(role, settings, _port(role, settings, port), held)
        serving.process.stop_on_signals()
        serving.process.run(lambda: announce(serving), serving.prepare)
    return 0


class Serving:
    """One role in this process; it answers from the start, if only that it waits.

    Args:
        port: None where the role listens inside the data folder alone.
        held: Takes down, in reverse, what is built here.
    """

    def __init__(self, role: str, settings: Settings, port: int | None, held: ExitStack) -> None:
        self.role = role
        self.url = ""
        self._role = ROLES[role]
        self._status = "starting"
        prepare(settings.data)
        check_address(settings)
        lock = held.enter_context(FolderLock(settings.data, shared=True))
        folder = run_folder(settings.data)
        listeners = []
        if port is not None:
            listeners.append(held.enter_context(closing(listen(settings.host, port, f"serve {role}"))))
            self.url = url_of(listeners[0])
        self.socket = folder / f"{role}-{process_mark()}{SERVING}"
        self._early = self.socket.with_suffix(STARTING)
        for name in (self.socket, self._early):
            held.callback(name.unlink, missing_ok=True)
        listeners.append(held.enter_context(closing(listen_inside(self._early))))
        kernel = make_kernel(settings)
        bus = _kafka(settings, kernel)
        self._dependencies = Dependencies(
            {"database": kernel.database.ready, "schema": partial(check_schema, kernel.database), "kafka": partial(_warm, bus)}
        )
        self._starting = Starting((*settings.hosts, settings.host), settings.apps_domain, self._health)
        self.process = Process(kernel, [], Inside(self._starting), *listeners)
        self._parts = Parts(kernel, bus, folder, self._health, self._stand_by, self.process.stop)
        if role == GATEWAY:
            lock.tell(self.url)

    def prepare(self) -> Sequence[Service]:
        """Wait for what is needed, then put the role together; gives its services."""
        kernel = self._parts.kernel
        while all(self._dependencies.wait_for(name, kernel.stopping) for name in NEEDED):
            kernel.database.listen(kernel.settings.run.look_every_s)
            try:
                composed = self._role.compose(self._parts)
                if composed is None:
                    break
                services = [*composed.services, self._watching()]
                services.append(metrics(kernel, {service.name for service in services}))
                self._starting.app = composed.app(services)
            except Unavailable as error:
                # What it needs went away again meanwhile.
                log.warning("starts again", why=error.message)
                kernel.stopping.wait(PAUSE_S)
            else:
                # From here on the gateway finds it: before, its calls would be put off while another process could answer them.
                self._early.replace(self.socket)
                self._status = "serving"
                log.info("serves", role=self.role)
                return services
        return ()

    def _watching(self) -> Service:
        loop = Loop("dependencies", self._dependencies.step, "dependencies", LOOK_EVERY_S)
        # It stands last: nothing is published or taken any more when the bus is closed.
        return Service("dependencies", loops=[loop], begin_drain=partial(self.socket.unlink, missing_ok=True), close=self._parts.bus.close)

    async def _health(self) -> tuple[int, Mapping[str, Any]]:
        told = {"service": self._role.told_as, "dependencies": self._dependencies.state()}
        down = self._dependencies.down()
        if self._status != "serving":
            return (200 if self._status == "standby" else 503), {"status": self._status, **told, "waits_for": down}
        status = "degraded" if down else "healthy"
        return (503 if set(NEEDED) & set(down) else 200), {"status": status, **told}

    def _stand_by(self) -> None:
        self._status = "standby"


def _check_parts(settings: Settings) -> None:
    """Return where these settings are those of several processes, and what they need is installed."""
    if settings.database_url is None or not normalise(settings.database_url).startswith("postgresql"):
        raise Invalid(
            "needs_postgres",
            "Several processes share a Postgres database, and `database_url` names none.",
            "Set `database_url` (MODELYARD_DATABASE_URL=postgresql://...), or run everything in one process: modelyard up",
        )
    if settings.bus != "kafka":
        raise Invalid(
            "needs_kafka",
            "Several processes tell one another by Kafka, and `bus` is `local`.",
            "Set `bus` to `kafka` and `kafka.bootstrap`, or run everything in one process: modelyard up",
        )
    for library, extra in (("psycopg2", "postgres"), ("confluent_kafka", "kafka")):
        if find_spec(library) is None:
            raise Invalid("client_missing", f"The library {library} is not installed.", f"Run: pip install 'modelyard[{extra}]'")


def _port(role: str, settings: Settings, port: int | None) -> int | None:
    if role == GATEWAY:
        return settings.port if port is None else port
    usual = ROLES[role].port
    if usual is None and port is not None:
        raise Invalid("port_not_used", f"The role {role} answers nobody outside the data folder.", f"Run: modelyard serve {role}")
    return usual if port is None else port


def _kafka(settings: Settings, kernel: Kernel) -> "KafkaBus":
    from modelyard.bus.kafka import KafkaBus  # noqa: PLC0415 - its library is there only where Kafka is

    return KafkaBus(settings.kafka.bootstrap, kernel.database, kernel.clock, replication=settings.kafka.replication)


def _warm(bus: "KafkaBus") -> None:
    bus.prepare([MODEL_EVENTS, dead_letter_topic(MODEL_EVENTS, SUBSCRIPTION.group)])
    bus.ready()
