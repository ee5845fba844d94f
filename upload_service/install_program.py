"""Runs inside the throw-away containers of a build: fetches packages, or installs and compiles them. Standard library only.

`python -I -S install.py fetch|install UV INTERPRETER OUT WORDS...`, where WORDS are the index as uv's flags name it. What it works on is
one line of JSON on its input: the locks `own`, and `server` where the server has a folder of its own. It prints lines for the build's log, and
after them a mark and the environment, a tar of the folder `env`, which goes out while the rest of it is still being compiled.
"""

import gc
import importlib.util
import json
import marshal
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISLNK

NOT_CACHED = 44
"""The exit status that says: uv lacks a file that only the network has."""
FAILED = 1
INSTALL = ("pip", "install", "--no-config", "--require-hashes", "--no-deps", "--no-build", "--no-python-downloads")
SERVER = "server/lib/python3/site-packages"
"""The server's own folder below the environment, where it has one."""
CACHE = "/cache/uv"
"""uv's cache, as it was fetched; who installs may only read it."""
SCRATCH = Path("/tmp")  # noqa: S108 - a file system of the container's own
_ABSENT = ("not found in the cache", "network was disabled", "network connectivity is disabled", "read-only file system")
INTERPRETERS, SDISTS = "interpreter-", "sdists-"
"""How the folders of the cache are called that uv writes into whatever it does."""
WORKERS = 2
GROUP_BYTES = 200_000
"""So much source is compiled by one process: long beside its start, short beside the whole."""
MARK = b"\0"
"""Parts the lines from what follows them."""


def run(words: list[str], *, else_fails: bool = True) -> bool:
    """Run a tool, print what it prints, and end with it where it fails.

    Args:
        else_fails: Whether a full disk is a failure too; else it is told by False, and by nothing else.
    """
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed = []
    for line in process.stdout or ():
        printed.append(line)
        if else_fails:
            tell(line)
    status, text = process.wait(), b"".join(printed)
    if not else_fails:
        if status and b"os error 28" in text:
            return False
        tell(text)
    if status:
        lower = text.decode("utf-8", "replace").lower()
        sys.exit(NOT_CACHED if any(each in lower for each in _ABSENT) else FAILED)
    return True


def tell(text: bytes) -> None:
    """Print it for the build's log."""
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def told() -> list[tuple[str, Path]]:
    """Name and path of each lock that came, with the certificates beside them; ends where whoever made this container is gone."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        sys.exit(FAILED)
    files: dict[str, str] = json.loads(line)
    for name, text in files.items():
        (SCRATCH / name).write_text(text)
    return [(name, SCRATCH / name) for name in ("own", "server") if name in files]


def fetch(uv: str, interpreter: str, out: Path, index: list[str]) -> None:
    """Fill uv's cache; what it installs on the way are links into the cache, and nobody's."""
    for name, lock in told():
        target = str(out / name)
        run([uv, *INSTALL, "--link-mode", "symlink", *index, "--python", interpreter, "--target", target, "-r", str(lock)])


def install(uv: str, interpreter: str, out: Path, index: list[str]) -> None:
    """Make the environment from the cache alone, and send it; in memory where it finds room there."""
    share_cache(Path(CACHE), Path(os.environ["UV_CACHE_DIR"]))
    quick = SCRATCH / "out"
    make(uv, interpreter, quick)
    locks = told()
    link_cache(Path(CACHE), Path(os.environ["UV_CACHE_DIR"]))
    if fill(uv, interpreter, quick, index, locks, else_fails=False) and has_room(quick):
        root = quick
    else:
        shutil.rmtree(quick)
        root = out
        make(uv, interpreter, root)
        fill(uv, interpreter, root, index, locks, else_fails=True)
    send(root, "env", Compiling(root, [folder for folder in ("env/lib", "env/server") if (root / folder).is_dir()]))


def make(uv: str, interpreter: str, root: Path) -> None:
    """Make an environment with nothing in it."""
    words = ["--no-config", "--quiet", "--relocatable", "--no-project", "--no-python-downloads", "--python", interpreter]
    run([uv, "venv", *words, str(root / "env")])


def fill(uv: str, interpreter: str, root: Path, index: list[str], locks: list[tuple[str, Path]], *, else_fails: bool) -> bool:
    """Install what the locks say; whether there was room for it, see `run`."""
    env = root / "env"
    for name, lock in locks:
        # The environment's interpreter is asked before anything lies in it, and never again after.
        apart = name == "server"
        python = interpreter if apart else str(env / "bin/python")
        target = ["--target", str(env / SERVER)] if apart else []
        words = [*INSTALL, "--offline", "--link-mode", "copy", *index, "--python", python, *target, "-r", str(lock)]
        if not run([uv, *words], else_fails=else_fails):
            return False
    return True


def has_room(root: Path) -> bool:
    """Whether twice as much as there is finds room as well: bytecode is about as large as its source."""
    found = os.statvfs(root)
    return found.f_bfree > 2 * (found.f_blocks - found.f_bfree)


def link_cache(cache: Path, own: Path) -> None:
    """Let uv see what was fetched from a cache of its own: it writes into the top of its cache, and into some folders, even offline."""
    own.mkdir(exist_ok=True)
    for each in cache.iterdir() if cache.is_dir() else ():
        if each.is_dir() and not (own / each.name).exists() and not each.name.startswith(SDISTS):
            (own / each.name).symlink_to(each)


def share_cache(cache: Path, own: Path) -> None:
    """Let uv know what is known of the interpreter."""
    for each in cache.glob(f"{INTERPRETERS}*"):
        shutil.copytree(each, own / each.name)


class Compiling:
    """Compiles every module below some folders, each folder's before those of the folders in it, while others do something else.

    What a file becomes depends on nothing but its content and its name: it has no time in it, and the process that compiles it is a copy of
    one that has compiled nothing but the files before it in its group, which are always the same.

    Args:
        root: What the folders lie below.
    """

    def __init__(self, root: Path, folders: list[str]) -> None:
        self._root = root
        self._group_of: dict[str, int] = {}
        groups = self._grouped(folders)
        self._ended = 0
        self._done: set[int] = set()
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            _lead(groups, writing, root)
        os.close(writing)
        self._progress = os.fdopen(reading, "rb", 0)

    def wait_for(self, folder: str) -> None:
        """Return once what lies directly in the folder is compiled."""
        wanted = self._group_of.get(folder, -1)
        while self._ended <= wanted:
            told = self._progress.read(4)
            if not told:
                sys.exit(FAILED)
            self._done.add(int.from_bytes(told, "big"))
            while self._ended in self._done:
                self._ended += 1

    def _grouped(self, folders: list[str]) -> list[list[str]]:
        """The files of each group; remembers the last group of each folder."""
        groups: list[list[str]] = [[]]
        size = 0
        for folder in folders:
            for below, inner, names in os.walk(self._root / folder):
                inner.sort()
                for name in sorted(names):
                    path = f"{below}/{name}"
                    if not name.endswith(".py") or not os.path.isfile(path):  # noqa: PTH113 - a thousand files
                        continue
                    if size > GROUP_BYTES:
                        groups.append([])
                        size = 0
                    groups[-1].append(path)
                    size += os.stat(path).st_size  # noqa: PTH116 - as above
                    self._group_of[os.path.relpath(below, self._root)] = len(groups) - 1
        return groups


def _lead(groups: list[list[str]], progress: int, root: Path) -> None:
    """Have some processes compile one group each at a time, and tell each group that is done; never returns."""
    gc.disable()
    warnings.simplefilter("ignore")  # of what nobody here wrote
    waiting, running = list(enumerate(groups))[::-1], dict[int, int]()
    try:
        while waiting or running:
            while waiting and len(running) < WORKERS:
                number, group = waiting.pop()
                pid = os.fork()
                if pid == 0:
                    _compile(group, root)
                running[pid] = number
            pid, status = os.wait()
            if status:
                break
            os.write(progress, running.pop(pid).to_bytes(4, "big"))
    finally:
        os._exit(FAILED)  # nobody reads how it ended, but for what it told


def _compile(group: list[str], root: Path) -> None:
    """Compile some files; never returns."""
    try:
        for path in group:
            try:
                write_bytecode(path, path.removeprefix(str(root)))
            except (
                SyntaxError,
                ValueError,
                OverflowError,
                RecursionError,
                MemoryError,
            ):  # some packages bring templates, and code for other Pythons
                continue
    except BaseException as error:  # noqa: BLE001 - this process is a copy of one that must not go on twice
        os.write(2, f"cannot compile {path}: {error}\n".encode("utf-8", "replace"))
        os._exit(FAILED)
    os._exit(0)


def write_bytecode(path: str, named: str) -> None:
    """Compile a file to bytecode that has no time of its source in it: an "unchecked hash-based pyc" (PEP 552).

    Args:
        named: What tracebacks call it.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - a thousand files
        source = file.read()
    code = compile(source, named, "exec", dont_inherit=True)
    into = importlib.util.cache_from_source(path)
    os.makedirs(os.path.dirname(into), exist_ok=True)  # noqa: PTH103, PTH120 - as above
    with open(into, "wb") as file:  # noqa: PTH123 - as above
        file.write(importlib.util.MAGIC_NUMBER + b"\1\0\0\0" + importlib.util.source_hash(source) + marshal.dumps(code))


def send(root: Path, folder: str, compiling: Compiling) -> None:
    """Print a tar of the folder, sorted by the parts of the names; its end says that it is whole."""
    sys.stdout.buffer.write(MARK)
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=256 * 1024, format=tarfile.GNU_FORMAT) as tar:
        for name in _listed(root, folder, compiling):
            path = root / name
            found = path.lstat()
            entry = tarfile.TarInfo(name)
            entry.mode = found.st_mode & 0o777
            if S_ISDIR(found.st_mode):
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            elif S_ISLNK(found.st_mode):
                entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
                tar.addfile(entry)
            else:
                entry.size = found.st_size
                with path.open("rb", buffering=0) as file:
                    tar.addfile(entry, file)
    sys.stdout.buffer.flush()


def _listed(root: Path, folder: str, compiling: Compiling) -> Iterator[str]:
    yield folder
    compiling.wait_for(folder)
    with os.scandir(root / folder) as found:
        entries = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found)
    for name, is_folder in entries:
        inner = f"{folder}/{name}"
        if is_folder:
            yield from _listed(root, inner, compiling)
        else:
            yield inner


def main() -> None:
    """Do what the first word says."""
    what, uv, interpreter, out, *index = sys.argv[1:]
    {"fetch": fetch, "install": install}[what](uv, interpreter, Path(out), index)


if __name__ == "__main__":
    main()
