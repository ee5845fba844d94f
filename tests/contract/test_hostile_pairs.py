"""Apps that mean harm, in a sandbox and in a container: each act ends as the kernel or the platform says, and a neighbour notices nothing."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from evaluating_app import World, write_app, write_environment
from parts.docker_world import ContainerWorld, DockerWorld, app_files

from modelyard.domain.plan import MIB, Limits
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.runtime import ActualState, Listener
from modelyard.runtime.sandbox import Bubblewrap

CALLS = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)


def refused(number, *arguments):
    return errno.errorcode.get(ctypes.get_errno(), "0") if libc.syscall(number, *arguments) == -1 else "done"


"""
WALK = """
import os


def found(names, roots=("/",)):
    seen = []
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = [each for each in folders if os.path.join(folder, each) not in ("/proc", "/sys")]
            seen += [os.path.join(folder, each) for each in [*files, *folders] if each in names or each.endswith(tuple(names))]
    return seen


"""
ACTS = {
    # what an app looks for
    "finds no engine, no database, no key of the platform": (
        WALK + "answer = found({'docker.sock', 'containerd.sock', 'modelyard.db', 'owner.token', 'in.sock', '.pem-key'})",
        [],
    ),
    "finds no other model's files": (WALK + "answer = found({'neighbour.txt'})", []),
    "sees no process but its own": (
        (
            "import os\nanswer = sorted(open(f'/proc/{n}/cmdline').read().split(chr(0))[0].rpartition('/')[2][:6]"
            " for n in os.listdir('/proc') if n.isdigit() and n != '1')"
        ),
        ["python"],
    ),
    "reads no other environment": (
        (
            "import os\nanswer = [n for n in os.listdir('/proc') if n.isdigit() and os.access(f'/proc/{n}/environ', os.R_OK)"
            " and b'NEIGHBOUR' in open(f'/proc/{n}/environ', 'rb').read()]"
        ),
        [],
    ),
    # what it wants to become
    "makes no namespace": (
        CALLS + "answer = [refused(272, flag) for flag in (0x10000000, 0x40000000, 0x20000, 0x20000000)]",
        ["EPERM"] * 4,
    ),
    "mounts nothing": (
        CALLS + "answer = [refused(165, b'x', b'/tmp', b'tmpfs', 0, 0), refused(161, b'/tmp'), refused(166, b'/app', 2)]",
        ["EPERM"] * 3,
    ),
    "traces nobody": (CALLS + "answer = [refused(101, 16, 1, 0, 0), refused(310, 1, 0, 0, 0, 0, 0)]", ["EPERM"] * 2),
    "has no way into the kernel": (CALLS + "answer = [refused(n, 0, 0, 0, 0, 0) for n in (321, 425, 250, 298, 323)]", ["EPERM"] * 5),
    "becomes nobody else": (
        (
            "import os\nanswer = []\nfor act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.chown('/tmp', 0, 0)):\n"
            "    try:\n        act()\n        answer.append('done')\n    except OSError:\n        answer.append('refused')"
        ),
        ["refused"] * 3,
    ),
    "opens no raw and no strange socket": (
        (
            "import socket\nanswer = []\nfor family, kind, protocol in ((2, 3, 1), (17, 3, 0), (40, 1, 0), (38, 5, 0)):\n"
            "    try:\n        socket.socket(family, kind, protocol).close()\n        answer.append('done')\n    except OSError as error:\n        answer.append(error.errno)"
        ),
        [1, 97, 97, 97],
    ),
    # what it wants to change
    "writes nothing but /app and /tmp": (
        (
            "import os\nanswer = []\nfor path in ('/x', '/usr/x', '/etc/passwd', '/env/x', '/proc/sys/kernel/core_pattern', '/sys/x'):\n"
            "    try:\n        open(path, 'w').close()\n        answer.append('done')\n    except OSError:\n        answer.append('refused')"
        ),
        ["refused"] * 6,
    ),
    "sees loopback alone": (
        "answer = [[line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]], len(open('/proc/net/route').readlines()[1:])]",
        [["lo"], 0],
    ),
    "fills its own disk alone": (
        (
            "import errno\nanswer = ''\ntry:\n    with open('/tmp/full', 'wb') as file:\n        for _ in range(64):\n            file.write(bytes(1 << 20))\n"
            "except OSError as error:\n    answer = errno.errorcode[error.errno]\nimport os\nos.remove('/tmp/full')"
        ),
        "ENOSPC",
    ),
}
WRITES = """
import os, mmap
FILE, FOLDER = "/env/bin/python", "/env"
real = os.path.realpath(FILE)


def at_root(root):
    return lambda: open(root + real, "ab").close()


def mapped():
    with open(real, "r+b") as file:
        mmap.mmap(file.fileno(), 0)[:1] = b"x"


def unnamed():
    held = os.open(FOLDER, os.O_TMPFILE | os.O_WRONLY)
    os.link(f"/proc/self/fd/{held}", FOLDER + "/x")


def by_folder():
    os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=os.open(FOLDER, os.O_RDONLY))


open("/tmp/x", "w").close()
ways = [
    lambda: open(real, "ab").close(),
    lambda: open(real, "wb").close(),
    lambda: open(real, "r+b").close(),
    lambda: os.truncate(real, 0),
    lambda: os.unlink(FILE),
    lambda: os.rename(FILE, FILE + ".old"),
    lambda: os.rename("/tmp/x", FILE),
    lambda: os.link(real, FOLDER + "/x"),
    lambda: os.symlink("/tmp/x", FOLDER + "/x"),
    lambda: os.mkdir(FOLDER + "/x"),
    lambda: os.mkfifo(FOLDER + "/x"),
    lambda: os.rename(FOLDER + "/bin", FOLDER + "/x"),
    lambda: os.rmdir(FOLDER + "/bin"),
    lambda: os.chmod(real, 0o777),
    lambda: os.chmod(FOLDER, 0o777),
    lambda: os.chown(FOLDER, 65532, 65532),
    lambda: os.utime(real, (0, 0)),
    lambda: os.setxattr(real, "user.x", b"x"),
    at_root("/proc/self/root"),
    at_root("/proc/1/root"),
    mapped,
    unnamed,
    by_folder,
]
answer = []
for number, way in enumerate(ways):
    try:
        way()
        answer.append(number)
    except OSError:
        pass
"""
HASHES = """
import hashlib, os
answer = {}
for folder, folders, files in os.walk("/env"):
    for name in [*files, *folders]:
        path = os.path.join(folder, name)
        found = os.lstat(path)
        content = open(path, "rb").read() if os.path.isfile(path) else b""
        answer[path] = [hashlib.sha256(content).hexdigest(), found.st_mode, found.st_uid, found.st_mtime]
"""
STRANGERS = [f"{net}.{host}" for net in ("192.0.2", "198.51.100", "203.0.113") for host in range(1, 10)] + [
    "2001:db8::1",
    "2001:db8::2",
    "fe80::1",
]
LIMITS = Limits(memory_bytes=256 * MIB, tmp_bytes=16 * MIB, pids=64)
FORKS = """
import os, signal
children = []
try:
    for _ in range(500):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
    answer = "no end"
except OSError as error:
    answer = len(children) <= 64
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)  # else it is one of those that are seen by whoever looks next
"""
HOG = "kept = bytearray(b'x') * (1 << 30)"


@pytest.fixture(
    scope="module", params=[pytest.param("sandbox", marks=pytest.mark.sandbox), pytest.param("docker", marks=pytest.mark.docker)]
)
def pair(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hostile app and its neighbour."""
    folder = tmp_path_factory.mktemp("hostile")
    if request.param == "docker":
        with closing(DockerWorld()) as docker:
            docker.add_app(app_files())
            made: World = ContainerWorld(docker, docker.runtime(folder))
            with closing(made.runtime):
                yield made
        return
    write_app(folder / "apps")
    write_environment(folder / "environments")
    folders = RuntimeFolders(folder / "apps", folder / "environments", folder / "output")
    with closing(ProcessRuntime(folders, Bubblewrap())) as runtime:
        yield World(folders, runtime)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def neighbour(pair: World) -> tuple[int, Listener]:
    at = pair.ready("neighbour", limits=LIMITS)
    assert (
        pair.evaluate(
            "neighbour", at, "open('/tmp/neighbour.txt', 'w').write('secret')\nimport os\nos.environ['NEIGHBOUR'] = '1'\nanswer = 1"
        )
        == 1
    )
    return at


@pytest.fixture(scope="module")
def hostile(pair: World, neighbour: tuple[int, Listener]) -> tuple[int, Listener]:
    return pair.ready("hostile", limits=LIMITS)


@pytest.mark.parametrize("act", [*ACTS])
def test_an_app_that_means_harm(pair: World, hostile: tuple[int, Listener], neighbour: tuple[int, Listener], act: str) -> None:
    code, expected = ACTS[act]
    assert pair.evaluate("hostile", hostile, code) == expected
    assert pair.evaluate("neighbour", neighbour, "answer = 'well'") == "well"


def test_an_app_reaches_nobody(pair: World, hostile: tuple[int, Listener]) -> None:
    alone = "answer = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]"
    assert pair.evaluate("hostile", hostile, alone) == ["lo"], "only then is anything dialled"
    taken = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.2)
        port = canary.getsockname()[1]
        code = f"""
import socket
answer = []
for family, address in ((socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET6, ("::1", {port}))):
    try:
        with socket.socket(family) as dialled:
            dialled.settimeout(1)
            dialled.connect(address)
            answer.append("connected")
    except OSError:
        answer.append("refused")
"""
        assert pair.evaluate("hostile", hostile, code) == ["refused", "refused"]
        try:
            canary.accept()[0].close()
            taken.set()
        except TimeoutError:
            pass
    assert not taken.is_set(), "what listens on this machine's loopback heard nothing"


def test_an_app_writes_into_no_environment_however_it_tries(
    pair: World, hostile: tuple[int, Listener], neighbour: tuple[int, Listener]
) -> None:
    before = pair.evaluate("neighbour", neighbour, HASHES)
    assert before
    assert pair.evaluate("hostile", hostile, WRITES) == []
    assert pair.evaluate("neighbour", neighbour, HASHES) == before


def test_an_app_dials_nobody_and_asks_for_no_name(pair: World, hostile: tuple[int, Listener], scaled: Callable[[int], int]) -> None:
    alone = "answer = [len(open(f'/proc/net/{name}').readlines()) for name in ('route', 'if_inet6')]"
    assert pair.evaluate("hostile", hostile, alone)[0] == 1, "only without a route is anything dialled"
    # Addresses that documents use: they are nobody's.
    dialling = f"""
import socket
answer = []
for each in {STRANGERS!r}:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET6 if ":" in each else socket.AF_INET, kind) as dialled:
            dialled.settimeout(1)
            try:
                dialled.connect((each, 80))
                answer.append(each)
            except OSError:
                pass
"""
    assert pair.evaluate("hostile", hostile, dialling) == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as canary:
        canary.bind(("127.0.0.1", 0))
        canary.setblocking(False)
        asking = f"""
import os, socket
answer = []
for number in range({scaled(1000)}):
    name = f"{{os.urandom(8).hex()}}.canary.invalid"
    try:
        answer.append(str(socket.getaddrinfo(name, 53)))
    except OSError:
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.sendto(name.encode(), ("127.0.0.1", {canary.getsockname()[1]}))
        except OSError:
            pass
"""
        assert pair.evaluate("hostile", hostile, asking) == []
        with pytest.raises(BlockingIOError):
            canary.recv(1)


def test_a_fork_bomb_ends_at_its_own_limit(pair: World, hostile: tuple[int, Listener], neighbour: tuple[int, Listener]) -> None:
    assert pair.evaluate("hostile", hostile, FORKS) is True
    assert (
        pair.evaluate("neighbour", neighbour, "import os\nchild = os.fork()\nif not child: os._exit(0)\nanswer = os.waitpid(child, 0)[1]")
        == 0
    )


def test_who_takes_all_memory_ends_alone(pair: World, neighbour: tuple[int, Listener]) -> None:
    if any("memory" in note for note in pair.runtime.probe().notes):
        pytest.skip("no hard limit on memory here")
    at = pair.ready("hog", limits=LIMITS)
    with pytest.raises((OSError, ValueError)):
        pair.evaluate("hog", at, HOG)
    assert pair.evaluate("neighbour", neighbour, "answer = 'well'") == "well"
    states = {each.name: each.state for each in pair.runtime.actual()}
    assert states["neighbour"] is ActualState.RUNNING


def test_an_inlet_holds_nothing_but_its_own_socket(request: pytest.FixtureRequest, pair: World, hostile: tuple[int, Listener]) -> None:
    del hostile
    path = pair.runtime.inlet("hostile")
    if not path:
        pytest.skip("there are no inlets where sockets are handed out")
    assert [each.name for each in Path(path).parent.iterdir()] == ["in.sock"]
