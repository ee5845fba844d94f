"""The app object of a Python file is found by what its imports and assignments say."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard.domain.errors import Invalid
from upload_service import entry

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "import fastapi\napp = fastapi.FastAPI()\n"
SECONDS = 3.0
"""The most that hostile sources of the largest size that is read may take; by the square of their length they take minutes."""


def chosen(source):
    return entry.choose(entry.find_apps(entry.parse(source.encode(), "app.py")))


OBJECTS = [
    (FLASK, "gunicorn", "app", "Flask app"),
    (FASTAPI, "uvicorn", "app", "FastAPI app"),
    ("from flask import Flask as F\nserver: F = F('x')", "gunicorn", "server", "Flask app"),
    ("import flask as f\nthing = f.Flask('x')", "gunicorn", "thing", "Flask app"),
    ("from fastapi import FastAPI\napp: FastAPI = build()", "uvicorn", "app", "FastAPI app"),
    ("from starlette.applications import Starlette\napp = Starlette()", "uvicorn", "app", "Starlette app"),
    ("import starlette.applications\napp = starlette.applications.Starlette()", "uvicorn", "app", "Starlette app"),
    ("import starlette.applications as s\napp = s.Starlette()", "uvicorn", "app", "Starlette app"),
    ("from quart import Quart\napp = Quart('x')", "uvicorn", "app", "Quart app"),
    ("from litestar import Litestar\napp = Litestar([])", "uvicorn", "app", "Litestar app"),
    ("import falcon.asgi\napp = falcon.asgi.App()", "uvicorn", "app", "Falcon app"),
    ("import falcon\napp = falcon.App()", "gunicorn", "app", "Falcon app"),
    ("from blacksheep import Application\napp = Application()", "uvicorn", "app", "BlackSheep app"),
    ("from sanic import Sanic\napp = Sanic('x')", "uvicorn", "app", "Sanic app"),
    ("from bottle import Bottle\napp = Bottle()", "gunicorn", "app", "Bottle app"),
    ("import bottle\napp = bottle.default_app()", "gunicorn", "app", "Bottle app"),
    ("from dash import Dash\napp = Dash()", "gunicorn", "app.server", "Dash app"),
    ("from dash import Dash\napp = Dash()\nserver = app.server", "gunicorn", "server", "Dash app"),
    ("import dash, flask\ns = flask.Flask('x')\napp = dash.Dash(server=s)", "gunicorn", "s", "Flask app"),
    ("from django.core.wsgi import get_wsgi_application as g\napplication = g()", "gunicorn", "application", "Django app"),
    ("from django.core.asgi import get_asgi_application\napplication = get_asgi_application()", "uvicorn", "application", "Django app"),
    ("def app(environ, start_response): ...", "gunicorn", "app", "WSGI app"),
    ("def application(env, start_response): ...", "gunicorn", "application", "WSGI app"),
    ("async def app(scope, receive, send): ...", "uvicorn", "app", "ASGI app"),
    ("from flask import Flask\nif True:\n    app = Flask('x')", "gunicorn", "app", "Flask app"),
    ("try:\n    from flask import Flask\nexcept ImportError:\n    pass\nelse:\n    app = Flask('x')", "gunicorn", "app", "Flask app"),
    ("from flask import Flask\nwith open('x') as f:\n    app = Flask('x')", "gunicorn", "app", "Flask app"),
    ("from flask import Flask\ndef create_app():\n    return Flask('x')\napp = create_app()", "gunicorn", "app", "Flask app"),
    (
        "def create_app():\n    from flask import Flask\n    a = Flask('x')\n    return a\napp = create_app()",
        "gunicorn",
        "app",
        "Flask app",
    ),
    ("from fastapi import FastAPI\ndef make() -> FastAPI:\n    return other()\napp = make()", "uvicorn", "app", "FastAPI app"),
    ("from flask import Flask\nclass Mine(Flask): ...\napp = Mine('x')", "gunicorn", "app", "Flask app"),
    ("from flask import Flask\nx = Flask('x')\napp = x", "gunicorn", "app", "Flask app"),
    ("from flask import Flask\nfirst = Flask('x')\nsecond = Flask('y')", "gunicorn", "first", "Flask app"),
    ("from flask import Flask\nother = Flask('x')\napi = Flask('y')\napplication = Flask('z')", "gunicorn", "application", "Flask app"),
    (
        "from fastapi import FastAPI\nimport gradio as gr\napp = FastAPI()\napp = gr.mount_gradio_app(app, 1, '/')",
        "uvicorn",
        "app",
        "FastAPI app",
    ),
    ("from flask import Flask\nfrom asgiref.wsgi import WsgiToAsgi\na = Flask('x')\napp = WsgiToAsgi(a)", "uvicorn", "app", "ASGI app"),
    ("import re\nx = re.compile('\\d')\n" + FLASK, "gunicorn", "app", "Flask app"),
]


@pytest.mark.parametrize(("source", "server", "target", "framework"), OBJECTS)
def test_objects(source, server, target, framework):
    assert chosen(source) == entry.AppObject(server, target, framework)


@pytest.mark.parametrize("deep", ["a = x" + ".a" * 2500 + "()", "if 1:\n    a = 1\n" + "elif 2:\n    a = 2\n" * 900])
def test_deep_sources_are_read(deep):
    assert chosen(f"{deep}\n{FLASK}").target == "app"


def test_a_name_that_no_command_line_could_hold_is_no_target():
    assert chosen(f"from flask import Flask\n{'a' * 101} = Flask('x')\n") is None
    assert chosen(f"from flask import Flask\n{'a' * 100} = Flask('x')\n").target == "a" * 100


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n" + " 1\n" * 20_000 + "a=f()\n" * 10_000,
        "".join(f"import a{n}\n" for n in range(4000)) + "".join(f"def f{n}():0\na=f{n}()\n" for n in range(2500)),
        "a=f()\n" * 10_000 + "def f():\n" + " import x\n" * 6_000,
    ],
    ids=["one factory called often", "many factories below many names", "names of a factory"],
)
def test_long_sources_take_time_by_their_length(source):
    began = time.process_time()
    assert chosen(source + FLASK).framework == "Flask app"
    assert time.process_time() - began < SECONDS


def test_a_name_of_combining_characters_is_not_given_to_the_parser():
    source = "a" + "\u0316\u0301" * 32_000 + " = 1\n"
    began = time.process_time()
    with pytest.raises(Invalid) as caught:
        chosen(source)
    assert (caught.value.code, time.process_time() - began < 1) == ("source_syntax", True)
    assert chosen("# " + ("\u6587" * 1300 + "\n# ") * 20 + "\n" + FLASK).target == "app"


def test_files_that_are_read_at_once_do_not_meet_in_the_parser():
    # A garbage collection in the midst of one parse lets other threads run: where two parsed, Python 3.11 lost count of its depth.
    source = b"x=[1,[2,[3,(4,5)]]]\n" * 60
    before, switch = gc.get_threshold(), lambda *_: time.sleep(0)
    gc.callbacks.append(switch)
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(4) as pool:
            trees = list(pool.map(lambda _: entry.parse(source, "app.py"), range(80)))
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(switch)
    assert {len(tree.body) for tree in trees} == {60}
