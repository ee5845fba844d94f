"""All services in one process: the laptop's Modelyard, and the only module beside the command line that knows every service."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import structlog
from sqlalchemy import select

from auth_service.owner import USERNAME
from auth_service.service import auth
from gateway.door_routes import FrontDoorRoutes
from gateway.front_door import FrontDoor
from gateway.settings import DoorSettings
from inference_service.service import inference, runner
from modelyard import composition
from modelyard.bus.local import LocalBus
from modelyard.composition import admission, check_address, knowing, listen, make_builder, make_kernel, relaying, url_of
from modelyard.domain.errors import Invalid
from modelyard.run import logs, unix_socket
from modelyard.run.folder_lock import FolderLock, prepare
from modelyard.run.process import Process
from modelyard.run.service import Service
from modelyard.run.settings import Settings
from modelyard.run.unix_socket import SERVING, process_mark, run_folder
from modelyard.runtime.runtime import Report, Runtime
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import migrate
from modelyard.store.tables import BusRecordRow
from modelyard.web.access import Action, Asgi, Guarded, Principal
from modelyard.web.app import create_app
from modelyard.web.apps_gate import AppsGate, console_name
from modelyard.web.awaited import admitting
from modelyard.web.credentials import Credentials
from modelyard.web.limits import Limits
from modelyard.web.metrics_page import metrics
from modelyard.weights.folder import WeightsFolder
from upload_service.service import builder_role, upload

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Args:
        url: Where, without a slash at its end.
        first_link: Signs one browser in, once.
        warnings: What its user should know before it is trusted with anything.
        awaited: The built-in models that do not serve, because their weights are not here.
    """

    url: str
    first_link: str
    data: Path
    warnings: tuple[str, ...]
    awaited: tuple[str, ...]
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
    """The runtime that the settings name, as this machine has it."""
    return composition.make_runtime(settings, Doorbell())[0]


class _House:
    """Everything that one process is made of, built in order and taken down by `held` in reverse."""

    def __init__(self, settings: Settings, held: ExitStack) -> None:
        logs.configure(settings.log_level)
        self._settings = settings
        prepare(settings.data)
        check_address(settings)
        lock = held.enter_context(FolderLock(settings.data))
        self._listener = held.enter_context(closing(listen(settings.host, settings.port)))
        self._kernel = make_kernel(settings)
        held.callback(self._kernel.database.close)
        self._kernel.database.wait_until_ready(settings.database_wait_s)
        migrate(self._kernel.database.url)
        self._kernel.database.listen(settings.run.look_every_s)
        # The folder is ours alone: whatever is still staged, nobody writes to any more.
        self._kernel.blobs.sweep_staging(0, time.time())
        self._auth = auth(self._kernel)
        self._credentials = Credentials(self._kernel.database, self._kernel.clock)
        self._credentials.refresh()
        runtime, report = composition.make_runtime(settings, self._kernel.bell)
        self._warnings = _warnings(settings, report)
        self.process = Process(self._kernel, *self._compose(runtime, report), self._listener, *_listen_inside(settings.data, held))
        lock.tell(self.url)

    @property
    def url(self) -> str:
        """Where it answers."""
        return url_of(self._listener)

    @cached_property
    def running(self) -> Running:
        """What is told once it answers."""
        ticket = self._auth.sessions.new_ticket(USERNAME)
        return Running(self.url, f"{self.url}/first/{ticket}", self._settings.data, self._warnings, self._awaited(), self._kernel.database)

    def _awaited(self) -> tuple[str, ...]:
        weights = WeightsFolder(self._settings.data / "weights")
        return tuple(name for name in self._settings.models.builtin if weights.kept(name) is None)

    def _compose(self, runtime: Runtime, report: Report) -> tuple[list[Service], Asgi]:
        kernel, settings = self._kernel, self._settings
        bus = LocalBus(kernel.database, kernel.clock)
        builder = make_builder(kernel, runtime, report)
        routes = FrontDoorRoutes()
        run = runner(kernel, runtime, routes)
        door: FrontDoor[Principal] = FrontDoor(routes, run.activation, admitting(settings.models.builtin), DoorSettings())
        services = [
            upload(kernel, admission(settings)),
            builder_role(kernel, builder, alone=True),
            inference(kernel, bus),
            run.service,
            self._auth.service,
            Service(
                "gateway",
                "gateway",
                mounts={"/m/": Guarded(door, Action.PREDICT)},
                loops=[knowing(self._credentials)],
                hang_up=door.close,
            ),
            relaying(kernel, bus),
        ]
        services.append(metrics(kernel, {service.name for service in services}))
        hosts = (*settings.hosts, settings.host)
        apps = AppsGate(door, self._credentials, self._auth.opening.enter, console_name(settings.apps_domain, settings.hosts))
        return services, create_app(services, self._credentials, hosts, apps, settings.apps_domain, Limits(settings.limits))


def _listen_inside(data: Path, held: ExitStack) -> list[socket.socket]:
    """Where this machine's user alone reaches it, for `/metrics`; nowhere in a folder that is too deep for a socket's name."""
    path = run_folder(data) / f"up-{process_mark()}{SERVING}"
    try:
        listener = unix_socket.listen(path)
    except Invalid as error:
        log.warning("no /metrics", why=error.message)
        return []
    held.callback(path.unlink, missing_ok=True)
    return [held.enter_context(closing(listener))]


def _warnings(settings: Settings, report: Report) -> tuple[str, ...]:
    if settings.trust_uploads:
        return ("uploads are trusted: they run without a sandbox, with your rights",)
    if not report.usable:
        return (f"no sandbox: {report.why}. Uploads are refused, only the bundled demo runs. {report.mend}",)
    return report.notes
