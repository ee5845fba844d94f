"""HTTP that on a Unix socket speaks to this user's own processes alone."""

import socket
from asyncio import Transport

from modelyard.run.http_protocol import HttpProtocol
from modelyard.run.unix_socket import peer_is_ours


class OursAlone(HttpProtocol):
    """Our protocol; whoever else got as far as a Unix socket of ours is cut off before a byte is read."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # the library's is narrower
        """Part of `asyncio.Protocol`."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection.family == socket.AF_UNIX and not peer_is_ours(connection):
            transport.abort()
