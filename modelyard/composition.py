"""What every way to run Modelyard is composed of: the kernel, the runtime, the builder, the relay, and where it listens."""

import ipaddress
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from modelyard.bus.bus import Bus
from modelyard.domain.errors import Conflict, Invalid, Unavailable
from modelyard.domain.ids import Digest
from modelyard.run.resources import builtin_digest, demo_digest
from modelyard.run.service import REST_S, Kernel, Loop, Service
from modelyard.run.settings import Settings
from modelyard.runtime.docker_options import DockerOptions
from modelyard.runtime.engine_names import yard_of
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.runtime import Report, Role, Runtime
from modelyard.runtime.sandbox import Bubblewrap
from modelyard.runtime.sockets_volume import SocketsVolume
from modelyard.runtime.trusted import Trusted
from modelyard.store import doorbell
from modelyard.store.blobs import FolderBlobs
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.outbox_relay import OutboxRelay
from modelyard.web.credentials import Credentials
from upload_service.builders import Builder
from upload_service.engine_yard import EngineYard
from upload_service.service import docker_builder, process_builder

if TYPE_CHECKING:
    from modelyard.runtime.docker import DockerRuntime

PRUNE_EVERY_S = 3600.0


def make_kernel(settings: Settings) -> Kernel:
    """The kernel over the data folder; its database is not dialled yet."""
    bell = Doorbell()
    database = Database(settings.database_url or sqlite_url(settings.data / "modelyard.db"), bell)
    blobs = FolderBlobs(settings.data, limit_bytes=settings.upload.max_bytes, reserve_bytes=settings.upload.reserve_bytes)
    return Kernel(settings, database, blobs, bell, time.time)


def make_runtime(settings: Settings, bell: Doorbell, roles: Collection[Role] = tuple(Role)) -> tuple[Runtime, Report]:
    """The runtime that the settings name, and what it is like here.

    Args:
        roles: What this process acts on. Where that is everything, no other process is there to look after what it started: then
            containers end with it, as processes do anyway.

    Raises:
        Unavailable: `engine_unusable`, pairs of containers cannot be started here.
    """
    if settings.runtime == "docker":
        return _docker(settings, bell, roles)
    folders = RuntimeFolders(settings.data / "apps", settings.data / "environments", settings.data / "output", settings.data / "weights")
    sandboxed = ProcessRuntime(folders, Bubblewrap(), on_change=lambda _name: bell.ring(doorbell.INSTANCES))
    report = sandboxed.probe()
    if report.usable and not settings.trust_uploads:
        return sandboxed, report
    sandboxed.close()
    return ProcessRuntime(folders, Trusted(), on_change=lambda _name: bell.ring(doorbell.INSTANCES)), report


def make_builder(kernel: Kernel, runtime: Runtime, report: Report) -> Builder:
    """The builder for this runtime; versions share environments where no app can write into one.

    Raises:
        Unavailable: `engine_away`.
    """
    settings = kernel.settings
    if settings.runtime == "docker":
        return docker_builder(kernel, runtime, yard_of(settings.data))
    shared = report.usable and not settings.trust_uploads
    return process_builder(kernel, runtime, settings.data / "apps", settings.data / "environments", shared=shared)


def admission(settings: Settings) -> Callable[[Digest], None]:
    """What may run here: everything in a container, in a sandbox or where uploads are trusted; else the bundled apps alone."""
    report = Report(usable=True, name="docker") if settings.runtime == "docker" else Bubblewrap().probe()

    def admit(digest: Digest) -> None:
        if report.usable or settings.trust_uploads or digest == demo_digest():
            return
        if digest in {builtin_digest(name) for name in settings.models.builtin}:
            return
        raise Invalid(
            "no_sandbox",
            f"This machine has no sandbox for uploaded apps: {report.why}",
            f"{report.mend} Or trust every upload: modelyard up --trust-uploads",
        )

    return admit


def docker_runtime(settings: Settings, on_change: Callable[[str], None], roles: Collection[Role]) -> "DockerRuntime":
    """The runtime of containers over the engine of the settings, whether or not that answers.

    Raises:
        Invalid: `client_missing`.
    """
    _need_client()
    from modelyard.runtime.docker import DockerRuntime  # noqa: PLC0415 - its library is there only where an engine is
    from modelyard.runtime.docker_engine import DockerEngine  # noqa: PLC0415 - as above

    told = settings.docker
    options = DockerOptions(
        yard=yard_of(settings.data),
        output=settings.data / "output",
        inlet_image=told.inlet_image,
        volume=told.sockets_volume,
        seen_at=told.sockets_at,
        weights=settings.data / "weights",
        weights_at=(told.data_at or settings.data) / "weights",
        warm_inlets=told.warm_inlets,
        roles=roles,
        outlived=set(roles) != set(Role),
        fetch=_fetching(settings),
    )
    return DockerRuntime(DockerEngine(told.url), options, on_change=on_change)


def _fetching(settings: Settings) -> Callable[[str], None] | None:
    from upload_service.docker_engine import DockerEngine  # noqa: PLC0415 - its library is there only where an engine is
    from upload_service.registry import Registry  # noqa: PLC0415 - as above

    return Registry(DockerEngine(settings.docker.url), settings.registry.url).fetch if settings.registry.url else None


@dataclass(frozen=True, slots=True)
class HeldYard:
    """This data folder's share of an engine, over a connection of its own."""

    yard: EngineYard
    close: Callable[[], None]


def engine_yard(settings: Settings) -> HeldYard:
    """What this data folder has in the engine.

    Raises:
        Invalid: `client_missing`.
    """
    _need_client()
    from upload_service.docker_engine import DockerEngine  # noqa: PLC0415 - its library is there only where an engine is

    told, yard, engine = settings.docker, yard_of(settings.data), DockerEngine(settings.docker.url)
    sockets = SocketsVolume(engine, told.sockets_volume, yard, told.sockets_at)
    return HeldYard(EngineYard(engine, yard, sockets, told.sockets_volume), engine.close)


def _need_client() -> None:
    if find_spec("docker") is None:
        raise Invalid("client_missing", "The library docker is not installed.", "Run: pip install 'modelyard[docker]'")


def _docker(settings: Settings, bell: Doorbell, roles: Collection[Role]) -> tuple[Runtime, Report]:
    runtime = docker_runtime(settings, lambda _name: bell.ring(doorbell.INSTANCES), roles)
    report = runtime.probe()
    if not report.usable:
        runtime.close()
        raise Unavailable("engine_unusable", f"Apps cannot run in containers here: {report.why}", report.mend, retry_after_s=5)
    return runtime, report


def relaying(kernel: Kernel, bus: Bus) -> Service:
    """The part of every process that writes events: what is in the outbox is published, and forgotten in time."""
    relay = OutboxRelay(kernel.database, bus, kernel.clock)
    return Service(
        "relay",
        loops=[
            Loop("relay", relay.step, doorbell.OUTBOX, REST_S, follows_rows=True),
            Loop("prune", relay.prune, "prune", PRUNE_EVERY_S),
        ],
    )


def knowing(credentials: Credentials) -> Loop:
    """The loop of every process that looks at credentials: it hears of new keys and of what was revoked."""
    return Loop("credentials", credentials.refresh, doorbell.CREDENTIALS, REST_S, follows_rows=True)


def check_address(settings: Settings) -> None:
    """Return where only this machine reaches the address, or the settings say that others may.

    Raises:
        Invalid: `address_exposed`.
    """
    if settings.expose or settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback:
        return
    raise Invalid(
        "address_exposed",
        f"On {settings.host} other machines reach this server, and tokens would travel unencrypted.",
        "Put a TLS proxy before 127.0.0.1, or set `expose = true` (MODELYARD_EXPOSE=true) and name your hosts in `hosts`.",
    )


def listen(host: str, port: int, command: str = "up") -> socket.socket:
    """A socket that is bound to the address; 0 takes a free port.

    Args:
        command: What the mend is to name.

    Raises:
        Conflict: `port_in_use`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        mend = f"Choose another one: modelyard {command} --port {port + 1}"
        raise Conflict("port_in_use", f"{host}:{port} cannot be listened on: {error.strerror}.", mend) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
