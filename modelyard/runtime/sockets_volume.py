"""The volume in which each inlet has a folder of its own, with the one socket that leads into its network."""

import hashlib
import os
import shutil
import threading
from pathlib import Path

from modelyard.runtime.engine import Engine, Json
from modelyard.runtime.runtime import StartError

SOCKET = "in.sock"
INLET_UID = 65533
_MARK = 8
"""So many digits of the yard's id begin the name of each of its folders."""
LONGEST_PATH = 100
"""The kernel takes 107 bytes for the name of a socket."""


def out_of_reach(facts: Json, seen_at: Path | None) -> str:
    """Why this process cannot make folders in the volume, as far as that shows before there is one; empty where nothing is in the way.

    Args:
        facts: What the engine says of itself.
        seen_at: See `SocketsVolume`.
    """
    if seen_at is not None:
        if not seen_at.is_dir():
            return f"the volume of the sockets is not at {seen_at}"
        return "" if _may(seen_at, os.W_OK | os.X_OK) else f"this user may not write to the volume of the sockets at {seen_at}"
    root = Path(str(facts.get("DockerRootDir") or "/"))
    if not root.is_dir():
        return f"the engine's volumes lie in {root} of another machine, or of another container"
    # What an engine makes belongs to whom it runs as: root, or the user of a rootless engine.
    is_ours = os.geteuid() in {0, root.stat().st_uid}
    return "" if is_ours and _may(root, os.X_OK) else f"the engine's volumes lie in {root}, where this user may not go"


def _may(folder: Path, how: int) -> bool:
    return os.access(folder, how, effective_ids=True)


class SocketsVolume:
    """A named volume, bound folder by folder: whoever sees one folder sees no other.

    Args:
        name: The volume's; made where there is none.
        seen_at: Where this process and the front door see it; empty: where the engine's machine has it.
    """

    def __init__(self, engine: Engine, name: str, yard: str, seen_at: Path | None = None) -> None:
        self._engine = engine
        self._name = name
        self._yard = yard
        self._seen_at = seen_at
        self._finding = threading.Lock()
        self._mountpoint = ""

    @property
    def inlet_user(self) -> str:
        """Whom the inlets run as: a user of their own, or this process's, where it can give nothing away."""
        uid, gid = (INLET_UID, INLET_UID) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        return f"{uid}:{gid}"

    def folder(self, instance: str) -> str:
        """Its folder as the engine's machine knows it."""
        return f"{self._found()}/{self._short(instance)}"

    def socket(self, instance: str) -> str:
        """Its socket as this process and the front door know it, whether or not anybody listens."""
        return str(self._here() / self._short(instance) / SOCKET)

    def is_there(self, instance: str) -> bool:
        """Whether its socket is where callers look for it."""
        return Path(self.socket(instance)).exists()

    def make(self, instance: str) -> None:
        """Make its folder, where it is missing.

        Raises:
            StartError: This process may not, or the path is too long for a socket.
        """
        path = self.socket(instance)
        if len(path.encode()) > LONGEST_PATH:
            raise StartError(f"the path of its socket is longer than {LONGEST_PATH} bytes: {path}")
        folder = Path(path).parent
        if folder.is_dir():
            return
        try:
            # Anybody who gets as far as the volume may call; who does not mount it, never gets there.
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
            if os.geteuid() == 0:
                os.chown(folder, INLET_UID, INLET_UID)
        except OSError as error:
            raise StartError(f"no folder for its socket can be made below {folder.parent}: {error.strerror}") from error

    def remove(self, instance: str) -> None:
        """Remove its folder; there is none: nothing happens."""
        self.remove_folder(self._short(instance))

    def remove_folder(self, folder: str) -> None:
        """Remove one of `mine`; there is none: nothing happens."""
        shutil.rmtree(self._here() / folder, ignore_errors=True)

    def mine(self) -> list[str]:
        """The folders of this yard; none where this process does not see the volume."""
        return [name for name in self._folders() if name.startswith(self._yard[:_MARK])]

    def is_mine_alone(self) -> bool:
        """Whether no other yard has a folder in it."""
        return self._here().is_dir() and self._folders() == self.mine()

    def _folders(self) -> list[str]:
        here = self._here()
        return sorted(each.name for each in here.iterdir()) if here.is_dir() else []

    def _short(self, instance: str) -> str:
        return self._yard[:_MARK] + hashlib.sha256(f"{self._yard}/{instance}".encode()).hexdigest()[:8]

    def _here(self) -> Path:
        return self._seen_at or Path(self._found())

    def _found(self) -> str:
        with self._finding:
            if not self._mountpoint:
                self._mountpoint = self._engine.volume(self._name, {})
            return self._mountpoint
