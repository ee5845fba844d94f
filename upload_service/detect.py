"""Finds out what kind of app a zip holds and how it is started; the first form that matches wins, and nothing is run."""

import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import ValidationError

from modelyard.domain.errors import Invalid
from modelyard.domain.plan import MIB, Plan
from upload_service import app_settings, entry
from upload_service.app_settings import AppSettings, AppTable, Ceilings, idle_within, limits_within, read_app_settings
from upload_service.archive import Archive
from upload_service.requirements import MOST_BYTES, read_requirements

__all__ = ["Ceilings", "detect"]

_KIB = 1024
TEXT_BYTES = MIB
SOURCE_BYTES = 128 * _KIB
"""Of a file that is parsed: the parser holds the whole process, up to ten seconds and a gigabyte for each MiB."""
_CANDIDATE_BYTES = 64 * _KIB
_VERSION_LENGTH = 100

READ = ("app.py", "main.py")
_NOT_READ = ("server.py", "api.py", "wsgi.py", "asgi.py")
_MOST_CANDIDATES = 8
_QUOTED_LENGTH = 300
_PAGES = {
    "gradio": "env GRADIO_SERVER_PORT=$PORT python {file}",
    "streamlit": "python -m streamlit run {file} --server.port $PORT --server.headless true",
}
_PACKAGED = (
    (("Dockerfile",), "Dockerfile"),
    (("cog.yaml",), "cog.yaml"),
    (("config.yaml", "model/model.py"), "a Truss"),
    (("bentofile.yaml",), "bentofile.yaml"),
    (("MLmodel",), "an MLflow model"),
)
_OTHER_DEPENDENCIES = (
    ("uv.lock", "uv export --no-hashes --no-emit-project > requirements.txt"),
    ("poetry.lock", "poetry export --without-hashes --output requirements.txt"),
    ("pyproject.toml", "uv pip compile pyproject.toml --output-file requirements.txt"),
    ("Pipfile.lock", "pipenv requirements > requirements.txt"),
    ("Pipfile", "pipenv lock && pipenv requirements > requirements.txt"),
    ("environment.yml", "conda run pip list --format=freeze > requirements.txt"),
    ("environment.yaml", "conda run pip list --format=freeze > requirements.txt"),
)
_SERVERS: dict[str, Literal["uvicorn", "gunicorn"]] = {"asgi": "uvicorn", "wsgi": "gunicorn"}
_RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class _Start:
    """How the app is started, and where that was found."""

    server: Literal["uvicorn", "gunicorn", "command"]
    entry_from: str
    target: str = ""
    command: tuple[str, ...] = ()
    framework: str = ""


CEILINGS = Ceilings()


def detect(archive: Archive, ceilings: Ceilings = CEILINGS) -> Plan:
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
    left_out = (f"left out: {', '.join(archive.left_out)}",) if archive.left_out else ()
    plan = {
        **asdict(start),
        **{key: value for key, value in (("port", settings.app.port), ("health", settings.app.health)) if value is not None},
        "python": python,
        "requirements": requirements,
        "dependencies_from": dependencies_from,
        "notes": (*archive.notes, *left_out, *_unused(archive), *python_notes, *dependency_notes),
        "limits": limits_within(settings, ceilings),
        "idle": idle_within(settings, ceilings),
        "weights": settings.weights.use,
    }
    return Plan.model_validate(plan)


def _own(archive: Archive, settings: AppSettings) -> _Start | None:
    """What `[app]` says."""
    table = settings.app
    if table.command:
        return _Start("command", app_settings.FILE, command=table.command)
    if not table.entry:
        return None
    module, _, name = table.entry.partition(":")
    path = module.replace(".", "/")
    file = next(
        (found for found in (f"{path}.py", f"{path}/__init__.py", f"src/{path}.py", f"src/{path}/__init__.py") if found in archive.names),
        None,
    )
    if file is None:
        raise app_settings.refusal("app.entry", f"names the module {module!r}, and the zip has no {path}.py")
    if table.server == "wsgi" and "." in name:
        mend = f"Add the line `server = {name}` below it, and write entry = {json.dumps(f'{module}:server')}."
        raise app_settings.refusal("app.entry", f"names {name!r}, and gunicorn finds no attribute of an object", mend)
    if table.server:
        return _Start(_SERVERS[table.server], app_settings.FILE, table.entry)
    apps = entry.find_apps(_tree(archive, file))
    app = next((app for key, app in apps.items() if name in {key, app.target}), None)
    if app is None:
        mend = 'Say what the object speaks: `server = "asgi"` or `server = "wsgi"` below [app].'
        raise app_settings.refusal("app.entry", f"names {name!r}, and {file} does not show what it is", mend)
    _refuse_attribute(app, file)
    return _Start(app.server, app_settings.FILE, f"{module}:{app.target}", framework=app.framework)


def _found(archive: Archive) -> _Start:
    """What the files show."""
    _refuse_written_starts(archive)
    trees = {file: _tree(archive, file) for file in READ if file in archive.names}
    for file, tree in trees.items():
        app = entry.choose(entry.find_apps(tree))
        if app:
            _refuse_attribute(app, file)
            return _Start(app.server, file, f"{file.removesuffix('.py')}:{app.target}", framework=app.framework)
    _refuse_app_elsewhere(archive)
    for file, tree in trees.items():
        for package, command in _PAGES.items():
            if package in entry.imports(tree):
                raise _not_read(f"{file} is a {package.capitalize()} app", _command_mend(command.format(file=file)))
        if entry.starts_server(tree):
            return _Start("command", file, command=("python", file))
    _refuse_packaged(archive)
    looked = (
        "modelyard.toml, Procfile, a Space's README.md, an ASGI or WSGI object in app.py or main.py, app.py or main.py that starts a server"
    )
    mend = "Put the app into app.py at the top of the zip, or write modelyard.toml with [app] entry or command."
    raise Invalid("no_app_found", f"No app was found; looked for {looked}.", mend)


def _refuse_attribute(app: entry.AppObject, file: str) -> None:
    # gunicorn reads `module:name` and `module:factory()`, and refuses `module:name.attribute`.
    if app.server == "gunicorn" and "." in app.target:
        mend = f"Add the line `server = {app.target}` below it: gunicorn finds only what has a name of its own."
        if file not in READ:
            mend += " Then let [app] entry name `server`."
        raise _not_read(f"the {app.framework} {app.target.partition('.')[0]!r} in {file}", mend)


def _refuse_written_starts(archive: Archive) -> None:
    """A Procfile or a Space's header stands above what the code shows, so it cannot be passed over."""
    kinds = (line.partition(":") for line in _text(archive, "Procfile").split("\n"))
    web = next((command.strip() for kind, _, command in kinds if kind.rstrip() == "web" and command.strip()), None)
    if web:
        raise _not_read("Procfile", _command_mend(web))
    header = re.match(r"---[ \t]*\r?\n(.*?)^---", _text(archive, "README.md"), re.DOTALL | re.MULTILINE)
    keys = dict(re.findall(r"^(sdk|app_file)[ \t]*:[ \t]*[\"']?([\w./-]+)", header[1], re.MULTILINE)) if header else {}
    if "sdk" in keys:
        file = keys.get("app_file", "app.py")
        raise _not_read("the header of a Space in README.md", _command_mend(_PAGES.get(keys["sdk"], "python {file}").format(file=file)))


def _refuse_app_elsewhere(archive: Archive) -> None:
    for file in _candidates(archive):
        try:
            app = entry.choose(entry.find_apps(entry.parse(archive.read(file, _CANDIDATE_BYTES), file)))
        except Invalid:
            continue
        if app:
            folder, _, name = file.rpartition("/")
            mend = f'Write modelyard.toml with [app] entry = "{name.removesuffix(".py")}:{app.target}".'
            raise _not_read(
                f"{app.framework} in {file}", f"Zip the folder {folder!r} itself, with its requirements.txt." if folder else mend
            )


def _candidates(archive: Archive) -> Iterator[str]:
    """The files that may hold the app and are not read yet, as many as are worth a look."""
    lower = sorted(name for name in archive.names if name.count("/") == 1 and name.rpartition("/")[2] in (*READ, *_NOT_READ))
    yield from [*(file for file in _NOT_READ if file in archive.names), *lower][:_MOST_CANDIDATES]


def _refuse_packaged(archive: Archive) -> None:
    names = frozenset(archive.names)
    for files, what in _PACKAGED:
        if names.issuperset(files):
            raise _not_read(what, "Write app.py with a FastAPI or Flask object `app` that loads the model and answers calls.")
    if "service.py" in names and entry.decorates(_tree(archive, "service.py"), "bentoml.service"):
        raise _not_read("a BentoML service", _command_mend("bentoml serve --port $PORT"))


def _unused(archive: Archive) -> tuple[str, ...]:
    return tuple(f"{files[0]} is not used" for files, _ in _PACKAGED if frozenset(archive.names).issuperset(files))


def _dependencies(archive: Archive) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
    """Requirement lines, the file they are from, and notes."""
    file = "requirements.txt"
    others = [
        (name, mend) for name, mend in _OTHER_DEPENDENCIES if name in archive.names and (name != "pyproject.toml" or _is_project(archive))
    ]
    if file not in archive.names:
        if others:
            raise _not_read(f"{others[0][0]} as the list of dependencies", f"Write requirements.txt: `{others[0][1]}`.")
        return (), None, ("no dependency file: only the server is installed",)
    raw = archive.read(file, MOST_BYTES)
    notes = [f"{name} is not used: {file} is" for name, _ in others]
    if b"--hash" in raw:
        notes.append(f"the hashes in {file} are replaced by those of the build's own lock")
    return read_requirements(raw, file), file, tuple(notes)


def _is_project(archive: Archive) -> bool:
    # What holds the settings of tools alone lists no dependencies.
    try:
        content = app_settings.parse_toml(_text(archive, "pyproject.toml"))
    except ValueError:
        return True
    tools = content.get("tool")
    return "project" in content or (isinstance(tools, dict) and "poetry" in tools)


def _python(archive: Archive, settings: AppSettings) -> tuple[str | None, tuple[str, ...]]:
    """The version to run, where the app asks for one, and notes."""
    asked = [(f"{app_settings.FILE} app.python", settings.app.python or "")]
    asked += [(file, _text(archive, file)) for file in (".python-version", "runtime.txt")]
    for where, text in asked:
        lines = [line for line in (raw.partition("#")[0].strip() for raw in text.removeprefix("\ufeff").splitlines()) if line]
        if lines:
            return _RUNNING, _satisfied(where, re.sub(r"^c?python[- ]?(?=\d)", "", lines[0]))
    return None, ()


def _satisfied(where: str, wanted: str) -> tuple[str, ...]:
    if len(wanted) > _VERSION_LENGTH:
        wanted = f"{wanted[:_VERSION_LENGTH]}..."
    full = ".".join(str(part) for part in sys.version_info[:3])
    if re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,2}", wanted):
        numbers = wanted.split(".")
        fits, exact = _RUNNING.split(".")[: len(numbers)] == numbers[:2], full.split(".")[: len(numbers)] == numbers
    else:
        try:
            fits = exact = SpecifierSet(wanted).contains(full)
        except InvalidSpecifier:
            fits = exact = False
    if not fits:
        message = f"{where} asks for Python {wanted[:60]!r}; this platform runs {full}."
        mend = f"Ask for {_RUNNING}, or remove it."
        raise Invalid("python_version", message, mend, errors=[{"entry": where, "message": message}])
    return () if exact else (f"{where} asks for Python {wanted}; {full} is used",)


def _not_read(what: str, mend: str) -> Invalid:
    return Invalid("not_read_yet", f"Recognised and not run yet: {what}.", mend)


def _command_mend(command: str) -> str:
    if not (command.isascii() and command.isprintable() and len(command) <= _QUOTED_LENGTH):
        return "Write modelyard.toml with [app] command."
    try:
        AppTable(command=command)  # type: ignore[arg-type] # the text as a file would hold it
    except ValidationError:
        command = f"sh -c {shlex.quote(command)}"
    # A JSON string in ASCII is a TOML string.
    return f"Write modelyard.toml with [app] command = {json.dumps(command)}."


def _text(archive: Archive, file: str) -> str:
    """The file's text as far as it can be read; empty where there is no such file, or a very long one."""
    size = next((each.size for each in archive.entries if each.name == file and not each.folder), None)
    return "" if size is None or size > TEXT_BYTES else archive.read(file, TEXT_BYTES).decode("utf-8", "replace")


def _tree(archive: Archive, file: str) -> ast.Module:
    return entry.parse(archive.read(file, SOURCE_BYTES), file)
