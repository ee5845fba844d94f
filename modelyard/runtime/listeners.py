"""The TCP addresses that processes listen on, read from /proc/PID/net/tcp and tcp6."""

import contextlib
import socket
from pathlib import Path

from modelyard.runtime.runtime import Listener

_LISTEN = "0A"
_V4_DIGITS = len("0100007F:1F90")


def of_network(pid: int) -> list[Listener]:
    """Every listener in the network namespace of this process, lowest port first."""
    return sorted({listener for listener, _ in _read(pid)}, key=_order)


def of_processes(pids: list[int]) -> list[Listener]:
    """The listeners whose socket one of these processes holds, lowest port first."""
    held = {inode for pid in pids for inode in _sockets(pid)}
    return sorted({listener for pid in pids[:1] for listener, inode in _read(pid) if inode in held}, key=_order)


def of_tables(text: str) -> list[Listener]:
    """The listeners in the text of both tables, one after the other, lowest port first."""
    rows = (line.split() for line in text.splitlines() if ":" in line)
    found = {_parse(row[1], socket.AF_INET6 if len(row[1]) > _V4_DIGITS else socket.AF_INET) for row in rows if row[3] == _LISTEN}
    return sorted(found, key=_order)


def _order(listener: Listener) -> tuple[int, str]:
    return listener.port, listener.host


def _read(pid: int) -> list[tuple[Listener, str]]:
    found = []
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]
            rows = (line.split() for line in lines)
            found += [(_parse(row[1], family), row[9]) for row in rows if row[3] == _LISTEN]
    return found


def _parse(address: str, family: socket.AddressFamily) -> Listener:
    """`0100007F:1F90` as an address: 32-bit words in the machine's own order, each little-endian."""
    host, _, port = address.partition(":")
    raw = bytes.fromhex(host)
    packed = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return Listener(socket.inet_ntop(family, packed), int(port, 16))


def _sockets(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    found.append(target[8:-1])
    return found
