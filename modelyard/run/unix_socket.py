"""Unix sockets of the data folder's `run/`: bound for this user alone, and asked who connects."""

import os
import re
import socket
import struct
import sys
import time
from contextlib import closing
from pathlib import Path

from modelyard.domain.errors import Invalid

FOLDER = "run"
SERVING, STARTING = ".sock", ".starting"
"""How the name of a process's socket ends: once it answers calls, and before, when it tells its health alone."""
BACKLOG = 2048
_CREDENTIALS = struct.Struct("3i")
_OF_PROCESS = re.compile(rf".*[-.]([0-9a-f]+)-([1-9]\d*)(?:{re.escape(SERVING)}|{re.escape(STARTING)})?")
_FIRST_NAMESPACE = 0xEFFFFFF8
"""Below this the kernel numbers no namespace (include/linux/proc_ns.h)."""
_HALF_MADE_S = 60.0
"""A socket that has no listener for so long was left by whoever was about to listen."""
_MOST_PATH_BYTES = 107
"""What `sun_path` holds beside its zero (unix(7))."""


def run_folder(data: Path) -> Path:
    """Where the processes of this data folder meet; made for its user alone, and without what killed processes have left there.

    Raises:
        Invalid: `run_folder_shared`, other users may enter it.
    """
    folder = data / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise Invalid("run_folder_shared", f"Other users of this machine may enter {folder}.", f"Run: chmod 700 {folder} (and own it).")
    forget_the_dead(folder)
    return folder


def process_mark(pid: int | None = None) -> str:
    """What a process's names in the run folder carry: its number, and the namespace in which that is its number.

    Containers that share a data folder each count their processes anew.

    Args:
        pid: A process of this namespace; None: this one.
    """
    return f"{pid_namespace()}-{os.getpid() if pid is None else pid}"


def forget_the_dead(folder: Path) -> None:
    """Remove what is named after a process that is gone: one that was killed removes nothing itself."""
    here = pid_namespace()
    for path in folder.iterdir():
        named = _OF_PROCESS.fullmatch(path.name)
        if named is not None and not (_is_alive(int(named[2])) if named[1] == here else _is_listened_on(path)):
            path.unlink(missing_ok=True)


def pid_namespace() -> str:
    """The number of this process's pid namespace (namespaces(7)) in hexadecimal, counted from the kernel's own ones: names stay short."""
    try:
        number = Path("/proc/self/ns/pid").stat().st_ino
    except FileNotFoundError:  # a system without them
        return "0"
    return f"{(number - _FIRST_NAMESPACE) % 2**32:x}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's by now
    return True


def _is_listened_on(path: Path) -> bool:
    """Whether somebody listens there, or may be about to: of a process in another namespace the kernel tells no more."""
    try:
        bound_at = path.stat().st_mtime
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.setblocking(False)
            connection.connect(str(path))
    except FileNotFoundError:
        return False
    except ConnectionRefusedError:
        return time.time() - bound_at < _HALF_MADE_S
    except OSError:
        return True  # it is busy, or of another kind
    return True


def listen(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A listening socket under this name; it takes the name from whoever had it, so the caller holds a lock that says it may.

    Raises:
        Invalid: `data_folder_too_deep`, the path is longer than a socket's name can be.
    """
    fresh = path.with_name(f"{path.name[0]}.{process_mark()}")
    if max(len(os.fsencode(path)), len(os.fsencode(fresh))) > _MOST_PATH_BYTES:
        raise Invalid(
            "data_folder_too_deep",
            f"{path} is too long for the name of a socket.",
            f"Choose a data folder whose path is shorter than {_MOST_PATH_BYTES - 40} bytes.",
        )
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        listener.bind(str(fresh))
        fresh.chmod(0o600)
        listener.listen(BACKLOG)
        # By a rename: whoever connects meets the former listener or this one, never one that is half made.
        fresh.replace(path)
    except OSError:
        listener.close()
        raise
    return listener


def peer_is_ours(connection: socket.socket) -> bool:
    """Whether who connected is this very user, as the kernel says (SO_PEERCRED, unix(7))."""
    if sys.platform != "linux":
        return True  # the folder is this user's alone
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(uid == os.geteuid())
