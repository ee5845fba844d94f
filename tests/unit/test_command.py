"""The words and variables that an app is started with."""

from pathlib import Path

from modelyard.domain.plan import Limits, Plan
from modelyard.runtime.command import Layout, server_folder, variables, words, working_folder


def test_gunicorn_reads_our_settings_and_not_the_apps():
    plan = Plan(server="gunicorn", target="app:app")
    assert words(plan, 8080) == ("/env/bin/python", "-m", "gunicorn", "-c", "/etc/modelyard/gunicorn.conf.py", "app:app")


def test_uvicorn_is_told_its_port():
    told = words(Plan(server="uvicorn", target="main:api"), 9000)
    assert told[:4] == ("/env/bin/python", "-m", "uvicorn", "main:api")
    assert told[4:] == ("--host", "127.0.0.1", "--port", "9000", "--timeout-keep-alive", "75", "--no-server-header", "--no-access-log")


def test_a_server_of_its_own_folder_is_launched_with_that_folder_last():
    told = words(Plan(server="uvicorn", target="main:api"), 9000, Layout(server="server/lib/python3.11/site-packages"))
    assert told[:4] == ("/env/bin/python", "/etc/modelyard/launch.py", "/env/server/lib/python3.11/site-packages", "uvicorn")


def test_python_in_a_command_is_the_environments():
    for word in ("python", "python3", "python3.12"):
        assert words(Plan(server="command", command=(word, "serve.py")), 1)[0] == "/env/bin/python"
    assert words(Plan(server="command", command=("pythonic", "python")), 1) == ("pythonic", "python")


def test_the_port_is_put_into_a_command():
    plan = Plan(server="command", command=("serve", "--bind", "0.0.0.0:$PORT", "${PORT}", "${PORT:-80}", "$PORTAL"))
    assert words(plan, 8080) == ("serve", "--bind", "0.0.0.0:8080", "8080", "8080", "$PORTAL")


def test_the_working_folder_may_lie_below_the_root():
    assert working_folder(Plan(server="uvicorn", target="a:b"), Layout()) == "/app"
    assert working_folder(Plan(server="uvicorn", target="a:b", folder="service/api"), Layout()) == "/app/service/api"


def test_threads_follow_the_processors_and_caches_lie_in_scratch():
    told = variables(Plan(server="uvicorn", target="a:b", limits=Limits(cpus=1.5)), 8080, "v1")
    assert {told[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"2"}
    assert all(told[name].startswith("/tmp/") for name in ("HF_HOME", "TORCH_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"))
    assert told["PYTHONPATH"] == "/app:/app/src"
    assert told["PORT"] == "8080"
    assert told["MODELYARD_VERSION"] == "v1"


def test_the_servers_folder_is_found(tmp_path: Path):
    assert server_folder(tmp_path) == ""
    (tmp_path / "server/lib/python3.12/site-packages").mkdir(parents=True)
    assert server_folder(tmp_path) == "server/lib/python3.12/site-packages"
