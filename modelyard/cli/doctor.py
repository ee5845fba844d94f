"""The command that checks this machine: each part ok, warn or fail, with its mend."""

import json
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import typer

from modelyard.cli.check import Check
from modelyard.cli.command import Reach, command
from modelyard.cli.failures import ExitCode
from modelyard.cli.invocation import SERVER_FILE, Invocation
from modelyard.domain.plan import GIB

if TYPE_CHECKING:
    from modelyard.run.settings import Settings
    from modelyard.runtime.runtime import Report

OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 35)
SCARCE_BYTES, ENOUGH_BYTES = GIB, 5 * GIB
PROBE_S = 2.0
CONNECT_S = 3.0
ENGINE_S = 5.0
"""The longest that the doctor waits for one answer of an engine."""


def doctor(invocation: Invocation) -> None:
    """Check that this machine can run Modelyard; ends with 5 where it cannot.

    Examples:
      modelyard doctor
      modelyard doctor --json
    """
    from modelyard.cli.stack_checks import check_stack  # noqa: PLC0415 - no other command needs it

    settings = invocation.settings()
    checks = [check_python(sys.version_info[:3]), check_uv(), check_sqlite(sqlite3.sqlite_version_info)]
    stack = list(check_stack())
    has_stack = any(check.name == "stack memory" for check in stack)
    checks += [check_disk(settings.data), check_port(settings.host, settings.port, settings.data, has_stack=has_stack)]
    if settings.runtime == "docker":
        report = _engine_report(settings)
        checks += check_engine(report)
        if report.usable:
            checks.append(_base_image(settings))
    else:
        checks += check_sandbox(_probed(settings), trusted=settings.trust_uploads)
        checks.append(Check("docker", "ok", "not needed: `runtime` is `process`"))
    checks += [
        check_database(settings.database_url),
        check_kafka(settings.kafka.bootstrap if settings.bus == "kafka" else ""),
        *stack,
    ]
    screen = invocation.screen
    failed = any(check.state == "fail" for check in checks)
    document = {"ok": not failed, "checks": [asdict(check) for check in checks]}
    screen.table(document, ("part", "state", "detail"), [(check.name, check.state, check.detail) for check in checks])
    for check in checks:
        if check.mend:
            screen.say(f"{check.name}. Try: {check.mend}", style="red" if check.state == "fail" else "yellow")
    if failed:
        raise typer.Exit(int(ExitCode.NOT_READY))


def check_python(version: tuple[int, ...]) -> Check:
    """Whether this Python is new enough."""
    words = ".".join(str(part) for part in version)
    if version >= OLDEST_PYTHON:
        return Check("python", "ok", words)
    return Check("python", "fail", f"{words} is too old", "Install Python 3.11 or newer.")


def check_uv() -> Check:
    """Whether the tool that resolves and installs dependencies is there."""
    from uv import find_uv_bin  # noqa: PLC0415 - only this check needs it

    try:
        return Check("uv", "ok", find_uv_bin())
    except FileNotFoundError as error:
        return Check("uv", "fail", str(error), "Install it again: pip install --force-reinstall uv")


def check_sqlite(version: tuple[int, ...]) -> Check:
    """Whether SQLite knows `RETURNING`, which came with 3.35."""
    words = ".".join(str(part) for part in version)
    if version >= OLDEST_SQLITE:
        return Check("sqlite", "ok", words)
    return Check("sqlite", "fail", f"{words} is older than 3.35", "Use a Python that carries a newer SQLite.")


def check_disk(data: Path) -> Check:
    """Whether the data folder has room."""
    there = next(folder for folder in (data.absolute(), *data.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    words = f"{free / GIB:.1f} GiB free at {there}"
    if free >= ENOUGH_BYTES:
        return Check("disk", "ok", words)
    mend = "Free some space, or choose another disk with --data DIR."
    return Check("disk", "warn" if free >= SCARCE_BYTES else "fail", words, mend)


def check_port(host: str, port: int, data: Path, *, has_stack: bool = False) -> Check:
    """Whether `up` can listen, or does so already on this data folder, or need not where the local stack runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if _serves(data, port):
                return Check("port", "ok", f"{host}:{port} is taken, and a server runs on {data}")
            state: Literal["warn", "fail"] = "warn" if has_stack else "fail"
            return Check("port", state, f"{host}:{port}: {error.strerror}", f"modelyard up --port {port + 1}")
    return Check("port", "ok", f"{host}:{port} is free")


def _serves(data: Path, port: int) -> bool:
    """Whether a server runs on this data folder, and on this port."""
    try:
        return urlsplit(str(json.loads((data / SERVER_FILE).read_text())["url"])).port == port
    except (OSError, ValueError, KeyError):
        return False


def check_database(url: str | None) -> Check:
    """Whether the database that the settings name takes connections."""
    if not url or url.startswith("sqlite"):
        return Check("database", "ok", "SQLite in the data folder")
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - only this check needs it

    named = make_url(url)
    mend = "Start Postgres, or set database_url (MODELYARD_DATABASE_URL); in the local stack: docker compose logs db"
    return _reached("database", named.host or "localhost", named.port or 5432, mend)


def check_kafka(bootstrap: str) -> Check:
    """Whether one of the brokers that the settings name takes connections; empty: there need be none."""
    if not bootstrap:
        return Check("kafka", "ok", "not needed: `bus` is `local`")
    mend = "Start Kafka, or set kafka.bootstrap (MODELYARD_KAFKA__BOOTSTRAP); in the local stack: docker compose logs kafka"
    checks = []
    for each in bootstrap.split(","):
        host, _, port = each.strip().rpartition(":")
        checks.append(_reached("kafka", host.strip("[]") or "localhost", int(port) if port.isdigit() else 9092, mend))
    return next((check for check in checks if check.state == "ok"), checks[0])


def _reached(name: str, host: str, port: int, mend: str) -> Check:
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        return Check(name, "fail", f"no connection to {host}:{port}: {error.strerror or error}", mend)
    return Check(name, "ok", f"{host}:{port} takes connections")


def check_sandbox(report: "Report | None", *, trusted: bool) -> Iterator[Check]:
    """Whether uploads run in a sandbox, and what is weaker here than elsewhere.

    Args:
        report: What the runtime found out; None where it took too long.
        trusted: Whether uploads may run without a sandbox.
    """
    if report is None:
        yield Check("sandbox", "fail", f"starting one took more than {PROBE_S:.0f} s", "Try again when the machine is less busy.")
        return
    if report.usable:
        yield Check("sandbox", "ok", report.name)
    else:
        mend = report.mend or "Install bubblewrap and allow user namespaces."
        yield Check("sandbox", "warn" if trusted else "fail", report.why, mend)
    for note in report.notes:
        yield Check("limits", "warn", note)


def check_engine(report: "Report") -> Iterator[Check]:
    """Whether apps run in containers of the engine, by its versions, and what is weaker here than elsewhere."""
    told = ", ".join(f"{name} {version}" for name, version in report.facts.items())
    if report.usable:
        yield Check("docker", "ok", told)
    else:
        yield Check("docker", "fail", f"{report.why} ({told})" if told else report.why, report.mend)
    for note in report.notes:
        yield Check("docker", "warn", note)


def _base_image(settings: "Settings") -> Check:
    """Whether images can be built on the base image, by asking its own Python; one that is not here is fetched by the first build."""
    from upload_service.base_image import look  # noqa: PLC0415 - only this check needs it
    from upload_service.builders import BuildError  # noqa: PLC0415 - as the line before
    from upload_service.docker_engine import DockerEngine  # noqa: PLC0415 - its library is there only where an engine is

    name = settings.build.base_image
    with closing(DockerEngine(settings.docker.url)) as engine:
        try:
            found = look(engine, name)
        except BuildError as error:
            return Check("base image", "fail", error.message, error.mend)
    if found is None:
        return Check("base image", "warn", f"the engine has no {name} yet; the first build fetches it", f"docker pull {name}")
    return Check("base image", "ok", f"{name}: Python {'.'.join(map(str, found.python))}, {found.uv_platform}")


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    command(app, "doctor", Reach.HERE)(doctor)


def _engine_report(settings: "Settings") -> "Report":
    from importlib.util import find_spec  # noqa: PLC0415 - only this check needs it

    from modelyard.runtime.engine_report import NAME, report  # noqa: PLC0415 - as the line before
    from modelyard.runtime.runtime import Report  # noqa: PLC0415 - as the line before

    if find_spec("docker") is None:
        return Report(usable=False, name=NAME, why="the library docker is not installed", mend="pip install 'modelyard[docker]'")
    from modelyard.runtime.docker_engine import DockerEngine  # noqa: PLC0415 - its library is there only where an engine is

    with closing(DockerEngine(settings.docker.url, dials_within_s=ENGINE_S, answers_within_s=ENGINE_S)) as engine:
        return report(engine, settings.docker.inlet_image, settings.docker.sockets_at)


def _probed(settings: "Settings") -> "Report | None":
    from modelyard.embedded import make_runtime  # noqa: PLC0415 - loads the whole server
    from modelyard.runtime.sandbox import Bubblewrap  # noqa: PLC0415 - as the line before

    found: list[Report] = []

    def probe() -> None:
        # Without a sandbox the runtime is one for trusted code, which is always usable: it cannot say what is missing.
        sandbox = Bubblewrap().probe()
        if not sandbox.usable:
            found.append(sandbox)
            return
        # In a folder of its own: whoever looks leaves nothing.
        with (
            tempfile.TemporaryDirectory(prefix="modelyard-") as folder,
            closing(make_runtime(settings.model_copy(update={"data": Path(folder)}))) as runtime,
        ):
            found.append(runtime.probe())

    # A sandbox that hangs must not hang the doctor: the thread is left behind with the process.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_S)
    return found[0] if found else None
