"""The files of ours that a server is started by: gunicorn's settings, and the launch file for a server that has a folder of its own."""

GUNICORN_NAME = "gunicorn.conf.py"
LAUNCH_NAME = "launch.py"

# A file, because an old gunicorn ignores a setting that it does not know and exits on a flag that it does not know;
# and because, named on the command line, it stands in the place of a gunicorn.conf.py of the app's own.
GUNICORN = """\
import os

bind = "127.0.0.1:" + os.environ["PORT"]
workers = 1
worker_class = "gthread"
threads = 4
timeout = 0
graceful_timeout = 5
keepalive = 75
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
control_socket_disable = True
"""

# The server's folder comes last, so that whatever the app pinned is what the app imports.
LAUNCH = """\
import runpy
import sys

folder, module, *words = sys.argv[1:]
sys.path[0] = ""
sys.path.append(folder)
sys.argv = [module, *words]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""

FILES = {GUNICORN_NAME: GUNICORN, LAUNCH_NAME: LAUNCH}
"""Name and text of each, for the folder that `Layout.configuration` names."""


def files(host: str) -> dict[str, str]:
    """As `FILES`, for a network where the server may listen on this address."""
    return FILES | {GUNICORN_NAME: GUNICORN.replace("127.0.0.1", host)}
