"""What bubblewrap is told: the file system, the limits and the user that an app sees.

See bwrap(1) and prlimit(1). The arguments go through a descriptor, so that a list of processes does not show them.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from modelyard.domain.plan import GIB, MIB, Limits
from modelyard.runtime.command import Layout
from modelyard.runtime.diagnosis import PROGRAMS
from modelyard.runtime.seccomp import filter_program
from modelyard.runtime.server_config import FILES

SANDBOX_UID = 65532
SHARED_MEMORY_BYTES = 16 * MIB
LARGEST_FILE_BYTES = GIB
OPEN_FILES = 1024

_LOCAL = "/usr/local"
_READ_ONLY_ETC = ("/etc/ld.so.cache", "/etc/ssl/certs", "/etc/localtime", "/etc/mime.types")
_ETC = {
    "passwd": f"app:x:{SANDBOX_UID}:{SANDBOX_UID}::/tmp:/bin/sh\n",
    "group": f"app:x:{SANDBOX_UID}:\n",
    "hosts": "127.0.0.1 localhost app\n::1 localhost app\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
# Root without user namespaces: bubblewrap keeps root's user, and the way to the sandbox's own is these three.
_TO_BECOME = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


class Descriptors:
    """Files in memory that bubblewrap reads from; closed here when the holder has inherited them."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number in self.numbers:
            os.close(number)

    def add(self, content: bytes) -> str:
        """The number of a descriptor that reads this content from its beginning."""
        number = os.memfd_create("modelyard", os.MFD_CLOEXEC)
        self.numbers.append(number)
        os.write(number, content)
        os.lseek(number, 0, os.SEEK_SET)
        return str(number)


class Arguments:
    """The arguments for one app.

    Args:
        stage: The folder where the holder puts the app and the folders that are bound.
        nested: Whether bubblewrap makes a user namespace; without, root is given up inside by setpriv(1).
    """

    def __init__(self, stage: str, limits: Limits, descriptors: Descriptors, *, nested: bool) -> None:
        self._stage = stage
        self._limits = limits
        self._descriptors = descriptors
        self._nested = nested

    def command(self, sources: Sequence[str], prefixes: Sequence[str], folder: str, words: Sequence[str]) -> list[str]:
        """The whole command line.

        Args:
            sources: The environment on the stage, then each of the prefixes there.
            prefixes: Where each of them must lie: interpreters, and the platform's weights.
            folder: The working folder.
            words: The app's own command.
        """
        environment, *interpreters = sources
        pairs = list(zip(prefixes, interpreters, strict=True))
        options = [
            *self._isolation(),
            *_system(cover_local=_LOCAL not in prefixes),
            *self._etc(),
            *self._kernel_folders(),
            # After /tmp and /usr/local, which would cover them.
            *(word for prefix, source in pairs if prefix != _LOCAL for word in _bound(source, prefix)),
            *("--ro-bind", environment, Layout().environment),
            *("--bind", f"{self._stage}/app", Layout().app),
            *("--chdir", folder, "--remount-ro", "/"),
            *("--seccomp", self._descriptors.add(filter_program())),
        ]
        told = self._descriptors.add(b"".join(word.encode() + b"\0" for word in options))
        return [_program("bwrap"), "--args", told, "--", *self._become(), *self._prlimit(), *words]

    def _isolation(self) -> list[str]:
        user = ["--unshare-user", "--disable-userns", "--uid", str(SANDBOX_UID), "--gid", str(SANDBOX_UID)]
        kept = [word for capability in _TO_BECOME for word in ("--cap-add", capability)]
        return [
            *(user if self._nested else []),
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *("--cap-drop", "ALL", *([] if self._nested else kept)),
            *("--new-session", "--die-with-parent", "--hostname", "app"),
        ]

    def _etc(self) -> list[str]:
        files = {f"/etc/{name}": text for name, text in _ETC.items()}
        files |= {f"{Layout().configuration}/{name}": text for name, text in FILES.items()}
        own = [
            word
            for path, text in files.items()
            for word in ("--perms", "0444", "--ro-bind-data", self._descriptors.add(text.encode()), path)
        ]
        return [*(word for path in _READ_ONLY_ETC for word in ("--ro-bind-try", path, path)), *own]

    def _kernel_folders(self) -> list[str]:
        return [
            *("--proc", "/proc", "--dev", "/dev"),
            *("--perms", "1777", "--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108 - the sandbox's own
            *("--perms", "1777", "--size", str(self._limits.tmp_bytes), "--tmpfs", Layout().scratch),
        ]

    def _become(self) -> list[str]:
        if self._nested:
            return []
        user = (f"--reuid={SANDBOX_UID}", f"--regid={SANDBOX_UID}", "--clear-groups")
        return [_program("setpriv"), *user, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]

    def _prlimit(self) -> list[str]:
        # Inside, where the number of processes is counted for this sandbox alone; outside all of one user would share it.
        limits = {"nproc": self._limits.pids, "nofile": OPEN_FILES, "core": 0, "fsize": LARGEST_FILE_BYTES}
        return [_program("prlimit"), *(f"--{name}={limit}:{limit}" for name, limit in limits.items()), "--"]


def _program(name: str) -> str:
    """Its path below /usr, as the sandbox sees it too."""
    return shutil.which(name, path=PROGRAMS) or f"/usr/bin/{name}"


def _bound(source: str, prefix: str) -> list[str]:
    above = [str(folder) for folder in reversed(Path(prefix).parents)][1:]
    # Made one by one: left to bubblewrap, they are open to the user that makes them alone.
    return [*(word for folder in above for word in ("--perms", "0755", "--dir", folder)), "--ro-bind", source, prefix]


def _system(*, cover_local: bool) -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    if cover_local:
        words += ["--tmpfs", _LOCAL, "--remount-ro", _LOCAL]
    return words
