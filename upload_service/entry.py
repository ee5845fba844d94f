"""Finds the app object in a Python file by its syntax tree; nothing of the file is ever imported."""

import ast
import re
import threading
import warnings
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from modelyard.domain.errors import Invalid

Server = Literal["uvicorn", "gunicorn"]

_NAME_LENGTH = 100
_UNBROKEN = re.compile(rb"(?<![\x80-\xff])[\x80-\xff]{4096}")
PREFERRED = ("app", "application", "api", "server")


@dataclass(frozen=True, slots=True)
class AppObject:
    """An object that a server can call.

    Args:
        target: Its name in the module, with the attribute that is the app where the object itself is not: `app.server`.
        framework: For people: `Flask app`.
    """

    server: Server
    target: str
    framework: str


_ASGI = {
    "fastapi.FastAPI": "FastAPI",
    "fastapi.applications.FastAPI": "FastAPI",
    "starlette.applications.Starlette": "Starlette",
    "quart.Quart": "Quart",
    "quart.app.Quart": "Quart",
    "litestar.Litestar": "Litestar",
    "litestar.app.Litestar": "Litestar",
    "falcon.asgi.App": "Falcon",
    "blacksheep.Application": "BlackSheep",
    "blacksheep.server.Application": "BlackSheep",
    "sanic.Sanic": "Sanic",
    "sanic.app.Sanic": "Sanic",
    "django.core.asgi.get_asgi_application": "Django",
    "socketio.ASGIApp": "Socket.IO",
    "asgiref.wsgi.WsgiToAsgi": "ASGI",
}
_WSGI = {
    "flask.Flask": "Flask",
    "flask.app.Flask": "Flask",
    "bottle.Bottle": "Bottle",
    "bottle.default_app": "Bottle",
    "falcon.App": "Falcon",
    "falcon.API": "Falcon",
    "dash.Dash": "Dash",
    "django.core.wsgi.get_wsgi_application": "Django",
    "socketio.WSGIApp": "Socket.IO",
}
_BEHIND = {"Dash": "server"}
"""Frameworks whose own object is no app, and the attribute that is."""

_STARTS = frozenset(
    {"run", "run_app", "run_simple", "serve", "serve_forever", "launch", "HTTPServer", "ThreadingHTTPServer", "make_server"}
)

Names = ChainMap[str, str]
"""What a name of the file stands for: `F` -> `flask.Flask`."""


_PARSING = threading.Lock()
"""One at a time: the parser of Python 3.11 counts its depth for all threads together (python/cpython#106905), and so are warnings switched off for all."""


def parse(source: bytes, file: str) -> ast.Module:
    """The file's syntax tree.

    Raises:
        Invalid: `source_syntax`, naming the line.
    """
    # Python normalises a name in time by the square of its combining characters, and nothing else runs meanwhile.
    if _UNBROKEN.search(source):
        raise Invalid("source_syntax", f"{file}: more than 4096 bytes in a row are not ASCII.", "Put such text into a file of its own.")
    try:
        # Its warnings are about the user's file and would go to our own log.
        with _PARSING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source, file)
    except SyntaxError as error:
        where, why = f"{file} line {error.lineno or 1}", error.msg
    except (ValueError, RecursionError, MemoryError):
        where, why = file, "cannot be read as Python: it holds NUL characters, or is nested too deeply"
    raise Invalid(
        "source_syntax", f"{where}: {why}.", f"Mend it until `python {file}` reads it.", errors=[{"entry": where, "message": why}]
    )


def find_apps(tree: ast.Module) -> dict[str, AppObject]:
    """The app objects that the module holds once it is imported, by name, in the order of the file."""
    statements = list(_at_import(tree.body))
    names = _names(statements, ChainMap())
    factories = _Factories({each.name: each for each in statements if isinstance(each, ast.FunctionDef)}, names)
    found: dict[str, AppObject] = {}
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            app = _callable(statement)
            found |= {statement.name: app} if app else {}
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            app = _value(statement, names, found) or factories.made(statement.value)
            if app:
                found |= {name: _named(app, name) for name in _targets(statement)}
    return found


def choose(apps: Mapping[str, AppObject]) -> AppObject | None:
    """The object that a person would mean: by its name, else the first."""
    names = sorted(apps, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))
    if not names:
        return None
    chosen = apps[names[0]]
    # Servers that cannot read `app.server` can read the name that many give it.
    behind = next((app for app in apps.values() if app.server == chosen.server and "." not in app.target), chosen)
    return behind if "." in chosen.target else chosen


def imports(tree: ast.Module) -> frozenset[str]:
    """The top-level packages that the file imports, wherever it does."""
    packages = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            packages.add((node.module or "").partition(".")[0])
    return frozenset(packages)


def starts_server(tree: ast.Module) -> bool:
    """Whether the file, run as a script, may start a server: it has a main block, or calls what starts one."""
    if any(isinstance(node, ast.If) and _is_main(node.test) for node in tree.body):
        return True
    calls = (node.value for node in _at_import(tree.body) if isinstance(node, ast.Expr | ast.Assign))
    return any(isinstance(call, ast.Call) and _last_name(call.func) in _STARTS for call in calls)


def decorates(tree: ast.Module, dotted: str) -> bool:
    """Whether a class or function of the module is decorated with this name, called or not."""
    statements = list(_at_import(tree.body))
    names = _names(statements, ChainMap())
    decorators = (each for node in statements if isinstance(node, ast.ClassDef | ast.FunctionDef) for each in node.decorator_list)
    return any(_dotted(each.func if isinstance(each, ast.Call) else each, names) == dotted for each in decorators)


def _at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported; those of its main block do not."""
    # A stack of our own: a chain of `elif` may be deeper than Python's.
    waiting = body[::-1]
    while waiting:
        statement = waiting.pop()
        yield statement
        inner: list[ast.stmt] = []
        if isinstance(statement, ast.Try | ast.With) or (isinstance(statement, ast.If) and not _is_main(statement.test)):
            inner += statement.body
        if isinstance(statement, ast.Try):
            inner += [each for handler in statement.handlers for each in handler.body]
        if isinstance(statement, ast.If | ast.Try):
            inner += statement.orelse
        if isinstance(statement, ast.Try):
            inner += statement.finalbody
        waiting += reversed(inner)


def _is_main(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or len(test.comparators) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = (test.left, test.comparators[0])
    named = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
    return named and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)


def _names(statements: list[ast.stmt], outer: Names) -> Names:
    # A layer over the outer names: a copy for every factory of a long file would take time by the square of its length.
    names: ChainMap[str, str] = outer.new_child()
    for statement in statements:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            names.update((alias.asname or alias.name, f"{statement.module}.{alias.name}") for alias in statement.names)
        elif isinstance(statement, ast.ClassDef):
            # A class made from a framework's own is called like it.
            parents = (_dotted(each, names) for each in statement.bases)
            names.update((statement.name, parent) for parent in parents if parent in _ASGI or parent in _WSGI)
    return names


def _dotted(node: ast.expr | None, names: Names) -> str:
    """The full name of `a.b.c` as the imports have it; empty where it is none."""
    words: list[str] = []
    while isinstance(node, ast.Attribute):
        words.append(node.attr)
        node = node.value
    known = names.get(node.id, "") if isinstance(node, ast.Name) else ""
    return ".".join((known, *reversed(words))) if known else ""


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _known(dotted: str) -> AppObject | None:
    if dotted in _ASGI:
        return AppObject("uvicorn", "", f"{_ASGI[dotted]} app")
    return AppObject("gunicorn", "", f"{_WSGI[dotted]} app") if dotted in _WSGI else None


def _named(app: AppObject, name: str) -> AppObject:
    # An object met under another name is an app already; one just made may hold the app in an attribute.
    behind = "" if app.target else _BEHIND.get(app.framework.removesuffix(" app"), "")
    return replace(app, target=f"{name}.{behind}" if behind else name)


def _targets(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name) and len(target.id) <= _NAME_LENGTH]


def _value(statement: ast.Assign | ast.AnnAssign, names: Names, found: Mapping[str, AppObject]) -> AppObject | None:
    value = statement.value
    if isinstance(value, ast.Call) and (made := _known(_dotted(value.func, names))):
        return made
    if isinstance(value, ast.Name) and value.id in found and "." not in found[value.id].target:
        return found[value.id]
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and (app := found.get(value.value.id)):
        return app if app.target == f"{value.value.id}.{value.attr}" else None
    return _known(_dotted(statement.annotation, names)) if isinstance(statement, ast.AnnAssign) and value else None


class _Factories:
    """What the functions of the file return, followed one level; each is read once, however often it is called."""

    def __init__(self, functions: Mapping[str, ast.FunctionDef], names: Names) -> None:
        self._functions = functions
        self._names = names
        self._made: dict[str, AppObject | None] = {}

    def made(self, value: ast.expr | None) -> AppObject | None:
        """What this value is, where it is a call of one of them."""
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name) or value.func.id not in self._functions:
            return None
        name = value.func.id
        if name not in self._made:
            self._made[name] = _returned(self._functions[name], self._names)
        return self._made[name]


def _returned(factory: ast.FunctionDef, names: Names) -> AppObject | None:
    body = list(_at_import(factory.body))
    inner = _names(body, names)
    local: dict[str, AppObject] = {}
    for statement in body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and (app := _value(statement, inner, local)):
            local |= {name: _named(app, name) for name in _targets(statement)}
        elif isinstance(statement, ast.Return):
            if isinstance(statement.value, ast.Call) and (made := _known(_dotted(statement.value.func, inner))):
                return made
            if isinstance(statement.value, ast.Name) and (app := local.get(statement.value.id)):
                return replace(app, target="" if "." in app.target else app.target)
    return _known(_dotted(factory.returns, inner))


def _callable(function: ast.FunctionDef | ast.AsyncFunctionDef) -> AppObject | None:
    words = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    if isinstance(function, ast.AsyncFunctionDef) and words == ["scope", "receive", "send"]:
        return AppObject("uvicorn", function.name, "ASGI app")
    if isinstance(function, ast.FunctionDef) and len(words) == 2 and words[1] == "start_response":  # noqa: PLR2004 - PEP 3333's two
        return AppObject("gunicorn", function.name, "WSGI app")
    return None
