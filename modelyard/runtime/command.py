"""How an app is started: the words of its command, its working folder, and the variables that it sees."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from modelyard.domain.plan import Plan
from modelyard.runtime.server_config import GUNICORN_NAME, LAUNCH_NAME

KEEP_ALIVE_S = 75
LOOPBACK = "127.0.0.1"

_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_PORT = re.compile(r"\$(?:PORT\b|\{PORT(?::?-[^}]*)?\})")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_CACHES = {"HF_HOME": "huggingface", "TORCH_HOME": "torch", "MPLCONFIGDIR": "matplotlib", "NUMBA_CACHE_DIR": "numba"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie, as the app itself sees them.

    Args:
        environment: Holds `bin/python`.
        app: The version's code, writable.
        configuration: Holds the files of `server_config`.
        scratch: Writable; home and temporary folder.
        weights: Holds a folder for each entry of the platform's weights that the app reads.
        server: The folder of packages that the server comes from where it could not be resolved with the app's own; else empty.
        host: What our servers listen on: loopback, where another app may be in the same network.
    """

    environment: str = "/env"
    app: str = "/app"
    configuration: str = "/etc/modelyard"
    scratch: str = "/tmp"  # noqa: S108 - a file system of the sandbox's own
    server: str = ""
    weights: str = "/weights"
    host: str = LOOPBACK

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return f"{self.environment}/bin/python"


def server_folder(environment: Path) -> str:
    """The server's own packages below an environment, relative to it, such as `server/lib/python3.12/site-packages`; else empty."""
    found = sorted((environment / "server").glob("lib/python3*/site-packages"))
    return str(found[0].relative_to(environment)) if found else ""


def working_folder(plan: Plan, layout: Layout) -> str:
    """Where the command is started."""
    return f"{layout.app}/{plan.folder}" if plan.folder else layout.app


def words(plan: Plan, port: int, layout: Layout | None = None) -> tuple[str, ...]:
    """The start command; in the words of a command of the user's own, `$PORT` is replaced, since no shell reads them."""
    layout = layout or Layout()
    if plan.server == "command":
        first, *rest = (_PORT.sub(str(port), word) for word in plan.command)
        return (layout.python if _PYTHON.fullmatch(first) else first, *rest)
    if plan.server == "gunicorn":
        return (*_module("gunicorn", layout), "-c", f"{layout.configuration}/{GUNICORN_NAME}", plan.target)
    address = ("--host", layout.host, "--port", str(port))
    # No line for each call, as with gunicorn: the output is the app's own words, and a line costs as much as a small answer.
    quiet = ("--no-server-header", "--no-access-log")
    return (*_module("uvicorn", layout), plan.target, *address, "--timeout-keep-alive", str(KEEP_ALIVE_S), *quiet)


def _module(name: str, layout: Layout) -> tuple[str, ...]:
    if not layout.server:
        return (layout.python, "-m", name)
    return (layout.python, f"{layout.configuration}/{LAUNCH_NAME}", f"{layout.environment}/{layout.server}", name)


def variables(plan: Plan, port: int, version_id: str, layout: Layout | None = None, label: str = "") -> dict[str, str]:
    """The whole environment of the app: nothing of the platform's own reaches it.

    Args:
        label: `username/model_name`; empty where it has none.
    """
    layout = layout or Layout()
    threads = str(math.ceil(plan.limits.cpus))
    return {
        "PORT": str(port),
        "HOME": layout.scratch,
        "TMPDIR": layout.scratch,
        "LANG": "C.UTF-8",
        "PATH": f"{layout.environment}/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": layout.environment,
        "PYTHONPATH": f"{layout.app}:{layout.app}/src",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MODELYARD_VERSION": version_id,
        **({"MODELYARD_MODEL": label} if label else {}),
        "MODELYARD_CPUS": f"{plan.limits.cpus:g}",
        **({"MODELYARD_WEIGHTS": layout.weights} if plan.weights and layout.weights else {}),
        **{name: f"{layout.scratch}/{folder}" for name, folder in _CACHES.items()},
        **dict.fromkeys(_THREADS, threads),
    }
