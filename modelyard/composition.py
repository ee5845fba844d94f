"""What every way to run Modelyard is composed of: the kernel, the runtime, the builder, the relay, and where it listens."""

import ipaddress
import socket
import time
from collections.abc import Callable

from modelyard.bus.bus import Bus
from modelyard.domain.errors import Conflict, Invalid
from modelyard.domain.ids import Digest
from modelyard.run.resources import builtin_digest, demo_digest
from modelyard.run.service import REST_S, Kernel, Loop, Service
from modelyard.run.settings import Settings
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.runtime import Report, Runtime
from modelyard.runtime.sandbox import Bubblewrap
from modelyard.runtime.trusted import Trusted
from modelyard.store import doorbell
from modelyard.store.blobs import FolderBlobs
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.outbox_relay import OutboxRelay
from modelyard.web.credentials import Credentials
from upload_service.builders import Builder
from upload_service.service import process_builder

PRUNE_EVERY_S = 3600.0


def make_kernel(settings: Settings) -> Kernel:
    """The kernel over the data folder; its database is not dialled yet."""
    bell = Doorbell()
    database = Database(settings.database_url or sqlite_url(settings.data / "modelyard.db"), bell)
    blobs = FolderBlobs(settings.data, limit_bytes=settings.upload.max_bytes, reserve_bytes=settings.upload.reserve_bytes)
    return Kernel(settings, database, blobs, bell, time.time)


def make_runtime(settings: Settings, bell: Doorbell) -> tuple[Runtime, Report]:
    """The process runtime of this machine, in the sandbox where there is one, unless uploads are trusted; and what the sandbox is like here."""
    folders = RuntimeFolders(settings.data / "apps", settings.data / "environments", settings.data / "output", settings.data / "weights")
    sandboxed = ProcessRuntime(folders, Bubblewrap(), on_change=lambda _name: bell.ring(doorbell.INSTANCES))
    report = sandboxed.probe()
    if report.usable and not settings.trust_uploads:
        return sandboxed, report
    sandboxed.close()
    return ProcessRuntime(folders, Trusted(), on_change=lambda _name: bell.ring(doorbell.INSTANCES)), report


def make_builder(kernel: Kernel, runtime: Runtime, report: Report) -> Builder:
    """The builder for this runtime; versions share environments where no app can write into one."""
    settings = kernel.settings
    shared = report.usable and not settings.trust_uploads
    return process_builder(kernel, runtime, settings.data / "apps", settings.data / "environments", shared=shared)


def admission(settings: Settings, report: Report) -> Callable[[Digest], None]:
    """What may run here: everything in a sandbox or where uploads are trusted; else the bundled apps alone."""

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
