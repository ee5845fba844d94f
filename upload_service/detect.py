"""Finds out what kind of app a zip holds and how it is started; the first form that matches wins, and nothing is run."""

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from modelyard.domain.errors import Invalid
from modelyard.domain.plan import GIB, MIB, Idle, Limits, Plan
from upload_service import app_settings, entry
from upload_service.app_settings import AppSettings, read_app_settings
from upload_service.archive import Archive
from upload_service.requirements import MOST_BYTES, read_requirements

SOURCE_BYTES = 4 * MIB
TEXT_BYTES = MIB

READ = ("app.py", "main.py")
_NOT_READ = ("server.py", "api.py", "wsgi.py", "asgi.py")
_MOST_CANDIDATES = 24
_SERVERS: dict[str, Literal["uvicorn", "gunicorn"]] = {"asgi": "uvicorn", "wsgi": "gunicorn"}
_RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most that an app's own settings may ask for, as the platform's settings `ceilings.*` say."""

    memory_bytes: int = 4 * GIB
    cpus: float = 2.0
    timeout_s: float = 600.0
    max_body_bytes: int = GIB
    stop_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class _Start:
    """How the app is started, and where that was found."""

    server: Literal["uvicorn", "gunicorn", "command"]
    found_in: str
    target: str = ""
    command: tuple[str, ...] = ()
    framework: str = ""


def detect(archive: Archive, ceilings: Ceilings = Ceilings()) -> Plan:  # noqa: B008 - frozen
    """The plan by which the zip's app is built and started.

    Order: `modelyard.toml`, `Procfile`, the header of a Space in README.md, an ASGI or WSGI object at the top of app.py or main.py
    (or of a file that is recognised and not read), `python app.py`.

    Raises:
        Invalid: `no_app_found`, `not_read_yet`, `source_syntax`, `app_settings_invalid`, `limit_above_ceiling`, `python_version`,
            or those of `read_requirements`.
    """
    settings = AppSettings()
    if app_settings.FILE in archive.names:
        settings = read_app_settings(archive.read_text(app_settings.FILE, app_settings.LIMIT_BYTES))
    start = _own(archive, settings) or _found(archive)
    python, python_notes = _python(archive, settings)
    requirements, dependencies_from, dependency_notes = _dependencies(archive)
    chosen = {"port": settings.app.port, "health": settings.app.health}
    left_out = (f"left out: {', '.join(archive.left_out)}",) if archive.left_out else ()
    return Plan(
        server=start.server,
        target=start.target,
        command=start.command,
        framework=start.framework,
        entry_from=start.found_in,
        python=python,
        requirements=requirements,
        dependencies_from=dependencies_from,
        notes=(*archive.notes, *left_out, *_unused(archive), *python_notes, *dependency_notes),
        **_limits(settings, ceilings),
        **{name: value for name, value in chosen.items() if value is not None},
    )


def _own(archive: Archive, settings: AppSettings) -> _Start | None:
    """What `[app]` says."""
    table = settings.app
    if table.command:
        return _Start("command", app_settings.FILE, command=table.command)
    if not table.entry:
        return None
    module, _, name = table.entry.partition(":")
    path = module.replace(".", "/")
    file = next((found for found in (f"{path}.py", f"{path}/__init__.py", f"src/{path}.py", f"src/{path}/__init__.py") if found in archive.names), None)
    if file is None:
        raise app_settings.refusal("app.entry", f"names the module {module!r}, and the zip has no {path}.py")
    if table.server:
        return _Start(_SERVERS[table.server], app_settings.FILE, table.entry)
    apps = entry.find_apps(_tree(archive, file))
    app = next((app for key, app in apps.items() if name in {key, app.target}), None)
    if app is None:
        mend = 'Say what the object speaks: `server = "asgi"` or `server = "wsgi"` below [app].'
        raise app_settings.refusal("app.entry", f"names {name!r}, and {file} does not show what it is", mend)
    return _Start(app.server, app_settings.FILE, f"{module}:{app.target}", framework=app.framework)
