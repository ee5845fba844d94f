"""What an app is and how it starts is read from its files, in the documented order, without running any of them."""

import sys
import tomllib
import zipfile

import pytest

from modelyard.domain.errors import Invalid
from modelyard.domain.plan import MIB
from upload_service.archive import read_archive
from upload_service.detect import Ceilings, detect

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "import fastapi\napp = fastapi.FastAPI()\n"
SCRIPT = "import http.server\nif __name__ == '__main__':\n    http.server.HTTPServer(('', 80), None).serve_forever()\n"
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def plan(tmp_path):
    def made(files, ceilings=None):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        with read_archive(path) as archive:
            return detect(archive, ceilings or Ceilings())

    return made


@pytest.fixture
def refusal(plan):
    def made(files):
        with pytest.raises(Invalid) as caught:
            plan(files)
        assert caught.value.mend
        return caught.value

    return made


@pytest.mark.parametrize("file", ["app", "main"])
@pytest.mark.parametrize(("source", "server", "framework"), [(FLASK, "gunicorn", "Flask app"), (FASTAPI, "uvicorn", "FastAPI app")])
def test_an_app_object_is_the_start(plan, file, source, server, framework):
    found = plan({f"{file}.py": source})
    assert (found.server, found.target, found.framework, found.entry_from) == (server, f"{file}:app", framework, f"{file}.py")


DASH = "from dash import Dash\napp = Dash()\n"


@pytest.mark.parametrize("file", ["app", "main", "sub/web"])
def test_an_object_that_gunicorn_cannot_name_is_refused_with_a_mend_that_works(plan, refusal, file):
    module = file.replace("/", ".")
    own = {"modelyard.toml": f"[app]\nentry = '{module}:app'"} if "/" in file else {}
    error = refusal({f"{file}.py": DASH, **own})
    assert (error.code, "Dash app 'app'" in error.message) == ("not_read_yet", True)
    line = error.mend.split("`")[1]
    assert line == "server = app.server"
    mended = {name: text.replace(":app", ":server") for name, text in own.items()}
    found = plan({f"{file}.py": DASH + line, **mended})
    assert (found.server, found.target) == ("gunicorn", f"{module}:server")


def test_an_attribute_said_to_be_wsgi_is_refused(refusal):
    error = refusal({**OWN, "modelyard.toml": '[app]\nentry = "odd:deep.app"\nserver = "wsgi"'})
    assert error.errors[0]["field"] == "app.entry"
    assert 'entry = "odd:server"' in error.mend


@pytest.mark.parametrize(
    "source",
    [
        "from flask import Flask\nif __name__ == '__main__':\n    app = Flask('x')\n    app.run()",
        "from flask import Flask\ndef f():\n    app = Flask('x')\nserve()",
        "from other import Flask\napp = Flask('x')\napp.run()",
        "from .flask import Flask\napp = Flask('x')\napp.run()",
        "import uvicorn\nuvicorn.run('other:app')",
        "from http.server import HTTPServer\ns = HTTPServer(('', 80), None)\ns.serve_forever()",
        SCRIPT,
    ],
)
def test_a_script_that_starts_a_server_is_a_command(plan, source):
    found = plan({"app.py": source})
    assert (found.server, found.command, found.target, found.entry_from) == ("command", ("python", "app.py"), "", "app.py")
    assert "command `python app.py` in app.py" in found.summary


def test_the_whole_plan(plan):
    found = plan({"p/app.py": FLASK, "p/requirements.txt": "flask == 3.0.0", "p/__pycache__/x.pyc": "", "p/Dockerfile": "FROM x"})
    assert found.summary == "found: Flask app `app:app` in app.py, requirements.txt, port 8080"
    assert found.requirements == ("flask==3.0.0",)
    assert found.notes == ("root folder 'p' stripped", "left out: __pycache__", "Dockerfile is not used")
    assert (found.python, found.health, found.limits.memory_bytes) == (None, "/health", 1024 * MIB)


@pytest.mark.parametrize(
    ("files", "found_in"),
    [
        ({"main.py": FLASK, "app.py": SCRIPT}, "main.py"),
        ({"main.py": FLASK, "app.py": FLASK}, "app.py"),
        ({"main.py": SCRIPT, "app.py": SCRIPT}, "app.py"),
        ({"app.py": FLASK, "wsgi.py": FLASK, "sub/app.py": FLASK, "MLmodel": "", "cog.yaml": ""}, "app.py"),
        ({"app.py": FLASK, "README.md": "# sdk: gradio"}, "app.py"),
        ({"app.py": FLASK, "README.md": "---\ntitle: x\n---\nsdk: gradio"}, "app.py"),
        ({"app.py": FLASK, "Procfile": "worker: python work.py"}, "app.py"),
        ({"app.py": SCRIPT, "server.py": "def broken("}, "app.py"),
        ({"app.py": "syntax (error", "Procfile": "web: x", "modelyard.toml": '[app]\ncommand = "python app.py"'}, "modelyard.toml"),
    ],
)
def test_the_first_form_wins(plan, files, found_in):
    assert plan(files).entry_from == found_in


@pytest.mark.parametrize(
    ("files", "named", "mend"),
    [
        ({"app.py": FLASK, "Procfile": "web: gunicorn app:app"}, "Procfile", 'command = "gunicorn app:app"'),
        ({"app.py": FLASK, "README.md": "---\nsdk: docker\n---\n"}, "Space", 'command = "python app.py"'),
        ({"x.py": "", "README.md": "---\r\nsdk: streamlit\r\napp_file: x.py\r\n---\r\n"}, "Space", "streamlit run x.py"),
        ({"wsgi.py": FLASK}, "Flask app in wsgi.py", 'entry = "wsgi:app"'),
        ({"asgi.py": FASTAPI, "app.py": SCRIPT}, "FastAPI app in asgi.py", 'entry = "asgi:app"'),
        ({"server.py": FLASK}, "server.py", 'entry = "server:app"'),
        ({"api.py": FLASK}, "api.py", 'entry = "api:app"'),
        ({"backend/main.py": FASTAPI, "front/index.html": ""}, "backend/main.py", "Zip the folder 'backend'"),
        ({"Dockerfile": "FROM x", "x.txt": ""}, "Dockerfile", "app.py"),
        ({"cog.yaml": "", "predict.py": ""}, "cog.yaml", "app.py"),
        ({"config.yaml": "", "model/model.py": ""}, "Truss", "app.py"),
        ({"bentofile.yaml": "", "x.py": ""}, "bentofile.yaml", "app.py"),
        ({"service.py": "import bentoml\n@bentoml.service(x=1)\nclass S: ...", "x": ""}, "BentoML", "bentoml serve"),
        ({"MLmodel": "", "x": ""}, "MLflow", "app.py"),
        ({"app.py": "import gradio as gr\ngr.Interface().launch()"}, "Gradio", "GRADIO_SERVER_PORT"),
        ({"main.py": "from streamlit import write"}, "Streamlit", "streamlit run main.py"),
        ({"app.py": FLASK, "uv.lock": ""}, "uv.lock", "uv export --no-hashes --no-emit-project > requirements.txt"),
        ({"app.py": FLASK, "pyproject.toml": "[project]\nname = 'x'"}, "pyproject.toml", "uv pip compile"),
        ({"app.py": FLASK, "pyproject.toml": "[tool.poetry]\nname = 'x'"}, "pyproject.toml", "uv pip compile"),
        ({"app.py": FLASK, "poetry.lock": "", "pyproject.toml": "[tool.poetry]"}, "poetry.lock", "poetry export"),
        ({"app.py": FLASK, "Pipfile.lock": ""}, "Pipfile.lock", "pipenv requirements"),
        ({"app.py": FLASK, "environment.yml": ""}, "environment.yml", "pip list"),
    ],
)
def test_what_is_recognised_and_not_run_yet(refusal, files, named, mend):
    error = refusal(files)
    assert error.code == "not_read_yet"
    assert named in error.message
    assert mend in error.mend


@pytest.mark.parametrize(
    "web",
    ["gunicorn app:app -b 0.0.0.0:$PORT", 'sh -c "a && b"', "a && b | c", "A=1 python 'app.py'", 'x "y\\"', "python -c 'print(\"\\\\\")'"],
)
def test_the_mend_for_a_procfile_is_a_file_that_works(plan, refusal, web):
    mend = refusal({"app.py": FLASK, "Procfile": f"release: x\nweb: {web}\n"}).mend
    line = mend.partition("[app] ")[2].removesuffix(".")
    assert tomllib.loads(line).keys() == {"command"}
    assert plan({"app.py": FLASK, "Procfile": f"web: {web}", "modelyard.toml": f"[app]\n{line}"}).server == "command"


@pytest.mark.parametrize("web", ["x\x1b[31m", "x" * 5000, "caf\u00e9"])
def test_a_procfile_that_is_not_quoted(refusal, web):
    assert refusal({"Procfile": f"web: {web}", "x": ""}).mend == "Write modelyard.toml with [app] command."


def test_nothing_found_says_what_was_looked_for(refusal):
    for files in ({"readme.txt": "x"}, {"app.py": "x = 1"}, {"lib/x.py": FLASK, "y": ""}):
        error = refusal(files)
        assert error.code == "no_app_found"
        assert "app.py" in error.message


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("x = 1\ny = (", "app.py line 2"),
        ("print 'hello'", "app.py line 1"),
        ("x\0y", "app.py"),
        ("-" * 100_000 + "1", "app.py"),
        ("(" * 5000, "app.py"),
    ],
)
def test_a_file_that_is_not_python_is_named(refusal, source, where):
    error = refusal({"app.py": source})
    assert error.code == "source_syntax"
    assert error.message.startswith(where)


OWN = {"pkg/__init__.py": "", "pkg/web.py": FASTAPI, "src/inner.py": FLASK, "odd.py": "app = make()\nimport dash\nd = dash.Dash()"}


@pytest.mark.parametrize(
    ("table", "server", "target"),
    [
        ('entry = "pkg.web:app"', "uvicorn", "pkg.web:app"),
        ('entry = "inner:app"', "gunicorn", "inner:app"),
        ('entry = "odd:app"\nserver = "wsgi"', "gunicorn", "odd:app"),
        ('entry = "odd:deep.app"\nserver = "asgi"', "uvicorn", "odd:deep.app"),
    ],
)
def test_an_entry_of_the_apps_own(plan, table, server, target):
    found = plan({**OWN, "modelyard.toml": f"[app]\nport = 9\nhealth = '/h'\n{table}"})
    assert (found.server, found.target, found.entry_from) == (server, target, "modelyard.toml")
    assert (found.port, found.health) == (9, "/h")


@pytest.mark.parametrize(("name", "part"), [("odd:app", 'server = "asgi"'), ("missing:app", ""), ("pkg:app", "")])
def test_an_entry_that_is_not_there(refusal, name, part):
    error = refusal({**OWN, "modelyard.toml": f'[app]\nentry = "{name}"'})
    assert error.code == "app_settings_invalid"
    assert error.errors[0]["field"] == "app.entry"
    assert part in error.mend


def test_settings_without_a_start_leave_the_search_as_it_is(plan):
    found = plan({"app.py": FLASK, "modelyard.toml": "[app]\nport = 5000\n[limits]\ncpus = 2\n[idle]\nstop_s = 5"})
    assert (found.target, found.port, found.limits.cpus, found.idle.stop_s) == ("app:app", 5000, 2, 5)


def test_ceilings_hold(plan):
    with pytest.raises(Invalid) as caught:
        plan({"app.py": FLASK, "modelyard.toml": "[limits]\ncpus = 2"}, Ceilings(cpus=1))
    assert caught.value.code == "limit_above_ceiling"


def test_other_lists_beside_requirements_are_said(plan):
    files = {"app.py": FLASK, "requirements.txt": "a --hash=sha256:" + "0" * 64, "uv.lock": "", "pyproject.toml": "[project]"}
    found = plan(files)
    assert (found.requirements, found.dependencies_from) == (("a",), "requirements.txt")
    assert found.notes == (
        "uv.lock is not used: requirements.txt is",
        "pyproject.toml is not used: requirements.txt is",
        "the hashes in requirements.txt are replaced by those of the build's own lock",
    )


def test_no_list_of_dependencies_is_said(plan):
    found = plan({"app.py": FLASK, "pyproject.toml": "[tool.ruff]"})
    assert found.notes == ("no dependency file: only the server is installed",)
    assert "no dependency file" in found.summary


def test_a_refused_requirement_passes_through(refusal):
    assert refusal({"app.py": FLASK, "requirements.txt": "-e ."}).code == "requirements_option"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".python-version", f"{RUNNING}\n"),
        (".python-version", f"# mine\ncpython-{RUNNING}\n2.7"),
        ("runtime.txt", f"python-{RUNNING}.0"),
        ("runtime.txt", "3"),
        ("modelyard.toml", f"[app]\npython = '>={RUNNING},<4'"),
    ],
)
def test_a_python_that_we_have(plan, file, text):
    assert plan({"app.py": FLASK, file: text}).python == RUNNING


def test_another_patch_release_is_said(plan):
    found = plan({"app.py": FLASK, ".python-version": f"{RUNNING}.999"})
    assert any(f"{RUNNING}.999" in note for note in found.notes)


@pytest.mark.parametrize("text", ["2.7", "python-3.6.1", "pypy-3.10", "my-env", "<3", "3.999"])
def test_a_python_that_we_have_not(refusal, text):
    error = refusal({"app.py": FLASK, "runtime.txt": text})
    assert error.code == "python_version"
    assert RUNNING in error.mend


def test_nothing_of_the_upload_is_run(plan, tmp_path):
    trace = tmp_path / "ran"
    plan({"app.py": f"open({str(trace)!r}, 'w')\n{FLASK}", "sitecustomize.py": f"open({str(trace)!r}, 'w')"})
    assert not trace.exists()
