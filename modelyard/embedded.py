"""All services in one process: the laptop's Modelyard, and the only module beside the command line that knows every service."""

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sqlalchemy import select

from auth_service.owner import USERNAME
from auth_service.service import auth
from gateway.door_routes import FrontDoorRoutes
from gateway.front_door import FrontDoor
from gateway.settings import DoorSettings
from inference_service.service import inference, runner
from modelyard.bus.local import LocalBus
from modelyard.domain.errors import Conflict, Invalid
from modelyard.domain.ids import Digest
from modelyard.run import logs
from modelyard.run.folder_lock import FolderLock, prepare
from modelyard.run.process import Process
from modelyard.run.resources import demo_digest
from modelyard.run.service import Kernel, Loop, Service
from modelyard.run.settings import Settings
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.runtime import Report, Runtime
from modelyard.runtime.sandbox import Bubblewrap
from modelyard.runtime.trusted import Trusted
from modelyard.store import doorbell
from modelyard.store.blobs import FolderBlobs
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import migrate
from modelyard.store.outbox_relay import OutboxRelay
from modelyard.store.tables import BusRecordRow
from modelyard.web.access import Action, Asgi, Guarded, Principal, admit_call
from modelyard.web.app import create_app
from modelyard.web.apps_gate import AppsGate, console_name
from modelyard.web.credentials import Credentials
from modelyard.web.limits import Limits
from upload_service.service import builder_role, process_builder, upload

RELAY_EVERY_S = 1.0
PRUNE_EVERY_S = 3600.0
CREDENTIALS_EVERY_S = 1.0
"""The longest that a revocation is not known where no doorbell rings."""


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Args:
        url: Where, without a slash at its end.
        first_link: Signs one browser in, once.
        warnings: What its user should know before it is trusted with anything.
    """

    url: str
    first_link: str
    data: Path
    warnings: tuple[str, ...]
    database: Database = field(repr=False)

    def events(self) -> list[dict[str, object]]:
        """Every event on the bus, in the order in which they were published."""
        with self.database.read() as session:
            rows = session.scalars(select(BusRecordRow).order_by(BusRecordRow.at, BusRecordRow.partition, BusRecordRow.offset))
            return [json.loads(row.value) for row in rows]


def up(settings: Settings, *, announce: Callable[[Running], None]) -> int:
    """Run until a signal; returns the exit code.

    Raises:
        Conflict: `data_folder_in_use`, or `port_in_use`.
    """
    with ExitStack() as held:
        house = _House(settings, held)
        house.process.stop_on_signals()
        house.process.run(lambda: announce(house.running))
    return 0


@contextmanager
def started(settings: Settings) -> Iterator[Running]:
    """A server that runs in a thread for the length of the block, and is then drained."""
    with ExitStack() as held:
        house = _House(settings, held)
        answers = threading.Event()
        thread = threading.Thread(target=house.process.run, args=(answers.set,), name="server")
        thread.start()
        try:
            while not answers.wait(0.05):
                if not thread.is_alive():
                    raise RuntimeError("the server ended while it started; see its log")
            yield house.running
        finally:
            house.process.stop()
            thread.join()


def make_runtime(settings: Settings) -> Runtime:
    """The process runtime of this machine: in the sandbox where there is one, unless uploads are trusted."""
    return _runtime(settings, Doorbell())[0]


class _House:
    """Everything that one process is made of, built in order and taken down by `held` in reverse."""

    def __init__(self, settings: Settings, held: ExitStack) -> None:
        logs.configure(settings.log_level)
        self._settings = settings
        prepare(settings.data)
        _check_address(settings)
        lock = held.enter_context(FolderLock(settings.data))
        self._listener = held.enter_context(closing(_listen(settings.host, settings.port)))
        self._kernel = _kernel(settings)
        held.callback(self._kernel.database.close)
        # The folder is ours alone: whatever is still staged, nobody writes to any more.
        self._kernel.blobs.sweep_staging(0, time.time())
        self._auth = auth(self._kernel)
        self._credentials = Credentials(self._kernel.database, self._kernel.clock)
        self._credentials.refresh()
        runtime, report = _runtime(settings, self._kernel.bell)
        self._warnings = _warnings(settings, report)
        self.process = Process(self._kernel, *self._compose(runtime, report), self._listener)
        lock.tell(self.url)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @cached_property
    def running(self) -> Running:
        """What is told once it answers."""
        ticket = self._auth.sessions.new_ticket(USERNAME)
        return Running(self.url, f"{self.url}/first/{ticket}", self._settings.data, self._warnings, self._kernel.database)

    def _compose(self, runtime: Runtime, report: Report) -> tuple[list[Service], Asgi]:
        kernel, settings = self._kernel, self._settings
        bus = LocalBus(kernel.database, kernel.clock)
        shared = report.usable and not settings.trust_uploads
        builder = process_builder(kernel, runtime, settings.data / "apps", settings.data / "environments", shared=shared)
        routes = FrontDoorRoutes()
        run = runner(kernel, runtime, routes)
        door: FrontDoor[Principal] = FrontDoor(routes, run.activation, admit_call, DoorSettings())
        relay = OutboxRelay(kernel.database, bus, kernel.clock)
        services = [
            upload(kernel, builder, _admission(settings, report)),
            builder_role(kernel, builder, alone=True),
            inference(kernel, bus),
            run.service,
            self._auth.service,
            Service(
                "gateway",
                "gateway",
                mounts={"/m/": Guarded(door, Action.PREDICT)},
                loops=[Loop("credentials", self._credentials.refresh, doorbell.CREDENTIALS, CREDENTIALS_EVERY_S)],
                hang_up=door.close,
            ),
            Service(
                "relay",
                loops=[Loop("relay", relay.step, doorbell.OUTBOX, RELAY_EVERY_S), Loop("prune", relay.prune, "prune", PRUNE_EVERY_S)],
            ),
        ]
        hosts = (*settings.hosts, settings.host)
        apps = AppsGate(door, self._credentials, self._auth.opening.enter, console_name(settings.apps_domain, settings.hosts))
        return services, create_app(services, self._credentials, hosts, apps, settings.apps_domain, Limits(settings.limits))


def _kernel(settings: Settings) -> Kernel:
    url = settings.database_url or sqlite_url(settings.data / "modelyard.db")
    migrate(url)
    bell = Doorbell()
    blobs = FolderBlobs(settings.data, limit_bytes=settings.upload.max_bytes, reserve_bytes=settings.upload.reserve_bytes)
    return Kernel(settings, Database(url, bell), blobs, bell, time.time)


def _runtime(settings: Settings, bell: Doorbell) -> tuple[Runtime, Report]:
    folders = RuntimeFolders(settings.data / "apps", settings.data / "environments", settings.data / "output")
    sandboxed = ProcessRuntime(folders, Bubblewrap(), on_change=lambda _name: bell.ring(doorbell.INSTANCES))
    report = sandboxed.probe()
    if report.usable and not settings.trust_uploads:
        return sandboxed, report
    sandboxed.close()
    return ProcessRuntime(folders, Trusted(), on_change=lambda _name: bell.ring(doorbell.INSTANCES)), report


def _admission(settings: Settings, report: Report) -> Callable[[Digest], None]:
    """What may run here: everything in a sandbox or where uploads are trusted; else the bundled demo alone."""

    def admit(digest: Digest) -> None:
        if report.usable or settings.trust_uploads or digest == demo_digest():
            return
        raise Invalid(
            "no_sandbox",
            f"This machine has no sandbox for uploaded apps: {report.why}",
            f"{report.mend} Or trust every upload: modelyard up --trust-uploads",
        )

    return admit


def _warnings(settings: Settings, report: Report) -> tuple[str, ...]:
    if settings.trust_uploads:
        return ("uploads are trusted: they run without a sandbox, with your rights",)
    if not report.usable:
        return (f"no sandbox: {report.why}. Uploads are refused, only the bundled demo runs. {report.mend}",)
    return report.notes


def _check_address(settings: Settings) -> None:
    if settings.expose or settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback:
        return
    raise Invalid(
        "address_exposed",
        f"On {settings.host} other machines reach this server, and tokens would travel unencrypted.",
        "Put a TLS proxy before 127.0.0.1, or set `expose = true` (MODELYARD_EXPOSE=true) and name your hosts in `hosts`.",
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Conflict(
            "port_in_use", f"{host}:{port} cannot be listened on: {error.strerror}.", "Choose another one: modelyard up --port 8081"
        ) from error
    return listener
