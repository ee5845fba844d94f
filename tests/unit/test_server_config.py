"""The files that servers are started by."""

import json
import subprocess
import sys

from modelyard.runtime.server_config import FILES, GUNICORN, GUNICORN_NAME

PRINT = "\nimport json\nprint(json.dumps({k: v for k, v in globals().items() if isinstance(v, (str, int)) and not k.startswith('__')}))"


def test_gunicorn_listens_where_it_is_told_and_never_kills_a_frozen_worker():
    ran = subprocess.run([sys.executable, "-c", GUNICORN + PRINT], env={"PORT": "9000"}, capture_output=True, text=True, check=True)
    settings = json.loads(ran.stdout)
    assert settings.pop("worker_tmp_dir", "/dev/shm") == "/dev/shm"
    assert settings == {
        "bind": "127.0.0.1:9000",
        "workers": 1,
        "worker_class": "gthread",
        "threads": 4,
        "timeout": 0,
        "graceful_timeout": 5,
        "keepalive": 75,
        "control_socket_disable": True,
    }


def test_every_file_is_python():
    assert GUNICORN_NAME in FILES
    for name, text in FILES.items():
        compile(text, name, "exec")
