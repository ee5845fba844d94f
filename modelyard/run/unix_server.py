"""A small web server on a Unix socket, in a thread and on an event loop of its own: processes of one user talk over it."""

import threading
import time
from pathlib import Path

import uvicorn

from modelyard.run.peers import OursAlone
from modelyard.run.told_server import ToldServer
from modelyard.run.unix_socket import listen
from modelyard.web.access import Asgi

KEEP_ALIVE_S = 300
STARTS_WITHIN_S = 60.0


class UnixServer:
    """Serves one application between `start` and `close`.

    Args:
        drain_s: The longest that `close` waits for requests that are being answered.
    """

    def __init__(self, app: Asgi, path: Path, *, drain_s: int = 5) -> None:
        self._path = path
        config = uvicorn.Config(
            app,
            interface="asgi3",
            loop="asyncio",  # its transports give the real socket, which knows who connected
            http=OursAlone,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=drain_s,
        )
        self._server = ToldServer(config)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, and return once it answers.

        Raises:
            Invalid: `data_folder_too_deep`.
        """
        listener = listen(self._path)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, name=self._path.stem)
        self._thread.start()
        end = time.monotonic() + STARTS_WITHIN_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise RuntimeError(f"nothing answers on {self._path}; see the log")
            time.sleep(0.002)

    def close(self) -> None:
        """Take the name away, let requests end, and end the thread; it never started: nothing happens."""
        if self._thread is None:
            return
        # Under the lock that let it be bound: the name is still this server's.
        self._path.unlink(missing_ok=True)
        self._server.ask_to_end()
        self._thread.join()
        self._thread = None
