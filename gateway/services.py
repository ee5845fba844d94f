"""The live processes of each role: found by the sockets in the data folder, and asked in turn."""

import asyncio
import os
import socket
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from modelyard.domain.errors import Unavailable
from modelyard.run.unix_socket import SERVING

ASK_S = 5.0
"""Seconds within which a process answers a question of the gateway's own."""
CONNECT_S = 5.0
RETRY_AFTER_S = 2
_ANY_HOST = "http://localhost"


class Services:
    """Finds the processes of a role: each listens on `{role}-{mark}.sock` (`process_mark`) for as long as it answers calls.

    Args:
        folder: Where their sockets are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turns = count()

    def live(self, role: str, *endings: str) -> list[Path]:
        """The sockets of the role's processes: of those that answer calls, or those whose names end otherwise."""
        ends = endings or (SERVING,)
        with os.scandir(self._folder) as entries:
            return sorted(self._folder / each.name for each in entries if each.name.startswith(f"{role}-") and each.name.endswith(ends))

    async def connect(self, role: str) -> socket.socket:
        """A connection to one of the role's processes: the next one in turn that takes it.

        Raises:
            Unavailable: `service_down`, there is none.
        """
        for path in self._in_turn(role):
            if (connection := await self._try(path)) is not None:
                return connection
        raise _down(role)

    async def ask(self, role: str, method: str, path: str, **told: Any) -> httpx2.Response:
        """What one of the role's processes answers to a question of the gateway's own.

        Args:
            told: `json` or `headers`.

        Raises:
            Unavailable: `service_down`, there is none that answers.
        """
        for socket_path in self._in_turn(role):
            with suppress(httpx2.TransportError):
                return await self.ask_this(socket_path, method, path, **told)
        raise _down(role)

    async def ask_this(self, socket_path: Path, method: str, path: str, **told: Any) -> httpx2.Response:
        """As `ask`, of this very process.

        Raises:
            httpx2.TransportError: It does not answer.
        """
        transport = httpx2.AsyncHTTPTransport(uds=str(socket_path), verify=False)
        async with httpx2.AsyncClient(transport=transport, base_url=_ANY_HOST, timeout=ASK_S) as client:
            try:
                return await client.request(method, path, **told)
            except httpx2.ConnectError:
                if (connection := await self._try(socket_path)) is not None:
                    connection.close()
                raise

    def _in_turn(self, role: str) -> list[Path]:
        found = self.live(role)
        first = next(self._turns) % len(found) if found else 0
        return found[first:] + found[:first]

    @staticmethod
    async def _try(path: Path) -> socket.socket | None:
        """A connection to this process; None where it takes none, and is forgotten where it is gone."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(connection, str(path))
        except OSError as error:
            connection.close()
            _note(path, error)
            return None
        except BaseException:
            connection.close()
            raise
        return connection


def _note(path: Path, error: OSError) -> None:
    # It gets its name when it listens already: whoever refuses is gone. One that is only busy says so in another way.
    if isinstance(error, ConnectionRefusedError):
        path.unlink(missing_ok=True)


def _down(role: str) -> Unavailable:
    return Unavailable(
        "service_down", f"No process of the role {role} answers.", f"Start one: modelyard serve {role}", retry_after_s=RETRY_AFTER_S
    )
