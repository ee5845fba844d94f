"""The gateway on nginx, as its own `start` starts it: over a folder of sockets, on a free loopback port."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from parts.engine import free_ports

import gateway

START = Path(gateway.__file__).parent / "nginx" / "start"
MODULES = ("libnginx-mod-http-lua", "lua-resty-core", "lua-resty-lrucache", "lua-cjson", "lua-luaossl")
NEEDED = (
    "/usr/lib/nginx/modules/ngx_http_lua_module.so",
    "/usr/share/lua/5.1/resty/core.lua",
    "/usr/share/lua/5.1/resty/lrucache.lua",
    "/usr/share/lua/5.1/openssl/pkey.lua",
)
STARTS_WITHIN_S = 60.0


def missing() -> str:
    """Why nginx with Lua cannot be started here; empty where it can."""
    if shutil.which("nginx") is None:
        return "nginx is not installed"
    absent = [path for path in NEEDED if not Path(path).exists()]
    return f"Debian's {', '.join(MODULES)} are needed; there is no {absent[0]}" if absent else ""


class Nginx:
    """One life of the gateway after another, on one port.

    Args:
        data: The data folder; its `run/` is there.
        told: Further `MODELYARD_GATEWAY__*`.
    """

    def __init__(self, data: Path, **told: str) -> None:
        (self.port,) = free_ports(1)  # which it comes back to: nobody else is given it meanwhile
        self._data = data
        self.log = data / "gateway.log"
        self._told = {f"MODELYARD_GATEWAY__{name}": value for name, value in told.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the master."""
        assert self._process is not None
        return self._process.pid

    def workers(self) -> list[int]:
        """Of those that carry calls."""
        return [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def start(self) -> None:
        """Return once it listens."""
        environment = {
            "PATH": os.environ["PATH"],
            "MODELYARD_DATA": str(self._data),
            "MODELYARD_GATEWAY__LISTEN": f"127.0.0.1:{self.port}",
            "MODELYARD_GATEWAY__WORK": str(self._data / "work"),
            "MODELYARD_GATEWAY__WORKERS": "2",
            "MODELYARD_GATEWAY__ROUTES_MEMORY": "32m",
            **self._told,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([START], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except OSError:
                told = self.log.read_text()
                assert self._process.poll() is None, told
                assert time.monotonic() < end, told
                time.sleep(0.01)
            else:
                return

    def tell(self, number: int) -> None:
        """Send the master a signal."""
        os.kill(self.pid, number)

    def close(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(STARTS_WITHIN_S)
            self._process = None
