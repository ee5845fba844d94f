"""Sockets handed from one process to another over a Unix socket, each time with one message (SCM_RIGHTS, unix(7))."""

import socket
from array import array
from collections.abc import Sequence

KIND = socket.SOCK_SEQPACKET
"""Message boundaries, and an end that is told."""
MOST = 64
_MESSAGE_BYTES = 65536


class CutShortError(ConnectionError):
    """The message, or the descriptors with it, did not arrive whole."""


def send(over: socket.socket, message: bytes, sockets: Sequence[socket.socket] = ()) -> None:
    """Send one message; the receiver gets copies of the sockets, and the sender keeps its own.

    Raises:
        OSError: The other side is gone.
    """
    numbers = array("i", [each.fileno() for each in sockets])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers.tobytes())] if sockets else []
    over.sendmsg([message], rights)


def receive(over: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """The next message and the sockets with it; empty where the other side closed.

    Raises:
        CutShortError: Part of it was lost; what arrived is closed.
        OSError: The other side is gone.
    """
    message, ancillary, flags, _ = over.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(4 * MOST), socket.MSG_CMSG_CLOEXEC)
    numbers = array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    sockets = [socket.socket(fileno=number) for number in numbers]
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for each in sockets:
            each.close()
        raise CutShortError("a message with descriptors was cut short")
    return message, sockets
