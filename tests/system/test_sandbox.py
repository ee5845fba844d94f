"""The sandbox from outside, from inside, under attack, and when the platform is killed."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import annotated_types
import pydantic
import pydantic_core
import pytest
import typing_extensions
import typing_inspection
from evaluating_app import World, write_app, write_environment

import modelyard
from modelyard.domain.plan import Limits
from modelyard.runtime.arguments import SANDBOX_UID
from modelyard.runtime.cgroups import Cgroups
from modelyard.runtime.interpreter import prefixes
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.sandbox import Bubblewrap
from modelyard.runtime.trusted import Trusted

pytestmark = pytest.mark.sandbox

DEADLINE_S = 60.0
NOBODY = 65534


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    between = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        between.wait(0.005)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sandbox")
    write_app(folder / "apps")
    write_environment(folder / "environments")
    (folder / "secret").write_text("the data folder's own")
    return folder


@pytest.fixture(
    params=[None, False] if os.geteuid() == 0 else [None], ids=lambda given: "nested" if given is None else "without-user-namespaces"
)
def world(base, request) -> Iterator[World]:
    folders = RuntimeFolders(base / "apps", base / "environments", base / "output")
    runtime = ProcessRuntime(folders, Bubblewrap(user_namespaces=request.param))
    try:
        yield World(folders, runtime)
    finally:
        runtime.close()


Inside = Callable[[str], object]


@pytest.fixture
def inside(world) -> Inside:
    """Runs code inside the sandbox, and returns what it put into `answer`."""
    at = world.ready("a")
    return lambda code: world.evaluate("a", at, code)


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def test_from_outside_the_app_has_no_right_on_this_machine(world, inside):
    members = world.runtime._instance("a").held().members()
    assert members
    for pid in members:
        status = status_of(pid)
        assert set(status["Uid"].split()) == {str(SANDBOX_UID if os.geteuid() == 0 else os.getuid())}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == int(status["CapPrm"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_inside_it_is_nobody_that_anyone_knows(inside):
    assert inside("import os; answer = [os.getuid(), os.getgid(), os.uname().nodename]") == [SANDBOX_UID, SANDBOX_UID, "app"]


def test_files_of_this_machine_are_not_there(inside, base):
    paths = [
        str(base / "secret"),
        str(base),
        "/etc/shadow",
        "/etc/hostname",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/home",
        "/var",
        "/mnt",
    ]
    assert inside(f"import os; answer = [path for path in {paths!r} if os.path.exists(path)]") == []


def test_of_roots_folder_no_more_than_the_interpreter_is_there(inside, base):
    needed = {Path(prefix).parts[2] for prefix in prefixes(base / "environments/e1") if prefix.startswith("/root/")}
    assert set(inside("import os; answer = os.listdir('/root') if os.path.exists('/root') else []")) == needed


def test_what_the_app_may_write(inside):
    code = """
import os
def writes(path):
    try:
        with open(path, "w") as file:
            file.write("x")
    except OSError as error:
        return error.strerror
    os.unlink(path)
    return "written"
answer = {path: writes(path) for path in ("/app/x", "/app/inner/x", "/tmp/x", "/dev/shm/x", "/x", "/env/x", "/usr/x", "/usr/local/x", "/etc/x", "/dev/x")}
import sys
answer[sys.base_prefix] = writes(sys.base_prefix + "/x")
"""
    told = inside(code)
    assert {path for path, what in told.items() if what == "written"} == {"/app/x", "/app/inner/x", "/tmp/x", "/dev/shm/x"}


def test_what_it_writes_has_an_end(inside):
    code = """
import errno, os
def fill(path):
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while written < 1 << 30:
                written += file.write(bytes(1 << 20))
    except OSError as error:
        return [written >> 20, errno.errorcode[error.errno]]
    finally:
        os.unlink(path)
answer = [fill("/app/filled"), fill("/dev/shm/filled")]
"""
    (app_mib, app_error), (shared_mib, shared_error) = inside(code)
    assert (app_error, shared_error) == ("ENOSPC", "ENOSPC")
    assert 60 <= app_mib <= 64
    assert shared_mib <= 16


def test_the_network_is_its_loopback_alone(inside):
    code = """
route = open("/proc/net/route").read().splitlines()[1:] + [line for line in open("/proc/net/ipv6_route").read().splitlines() if not line.endswith(" lo")]
devices = [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]]
answer = [devices, route]
"""
    devices, routes = inside(code)
    assert devices == ["lo"]
    assert routes == []
    dial = """
import errno, socket
def dial(address):
    with socket.socket() as dialled:
        dialled.settimeout(2)
        return errno.errorcode[dialled.connect_ex(address)]
answer = [dial(("192.0.2.1", 80)), dial(("127.0.0.1", 1))]
"""
    assert inside(dial) == ["ENETUNREACH", "ECONNREFUSED"]


def test_the_first_process_holds_no_secret(inside):
    code = """
import os
try:
    words = open("/proc/1/environ").read().split("\\0")
except PermissionError:
    words = []
answer = sorted({word.split("=")[0] for word in words if word} - set(os.environ))
"""
    assert inside(code) == []
    assert set(inside("import os; answer = [int(n) for n in os.listdir('/proc') if n.isdigit()]")) == {1, 2}


ATTACK = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def family(number):
    try:
        socket.socket(number, socket.SOCK_STREAM).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
column = 0 if os.uname().machine == "x86_64" else 1
number = lambda *pair: pair[column]
answer = {
    "vsock": family(40), "packet": family(17), "alg": family(38),
    "io_uring": call(425, 1, 0), "ptrace": call(number(101, 117), 16, 1, 0, 0), "keyctl": call(number(250, 219), 0, -3, 0),
    "unshare": call(number(272, 97), 0x10000000), "clone3": call(435, 0, 0), "bpf": call(number(321, 280), 0, 0, 0),
    "userfaultfd": call(number(323, 282), 0), "perf": call(number(298, 241), 0, 0, 0, 0, 0), "setns": call(number(308, 268), 0, 0),
    "mount": call(number(165, 40), 0, 0, 0, 0, 0), "chroot": call(number(161, 51), b"/"),
    "memory of 1": call(number(310, 270), 1, 0, 0, 0, 0, 0),
}
"""


def test_doors_into_the_kernel_are_shut(inside):
    told = inside(ATTACK)
    assert {told.pop(name) for name in ("vsock", "packet", "alg")} == {"EAFNOSUPPORT"}
    assert told.pop("clone3") == "ENOSYS"
    assert set(told.values()) == {"EPERM"}, told


def test_settings_of_this_machine_cannot_be_written(inside):
    code = """
import errno
def write(path):
    try:
        open(path, "w").write("1")
    except OSError as error:
        return errno.errorcode[error.errno]
    return "written"
answer = [write(path) for path in ("/proc/sys/kernel/panic", "/proc/sysrq-trigger", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/overcommit_memory")]
"""
    assert "written" not in inside(code)


def test_a_fork_bomb_stays_in_its_own_bounds(base):
    folders = RuntimeFolders(base / "apps", base / "environments", base / "output")
    runtime = ProcessRuntime(folders, Bubblewrap(), cgroups=Cgroups())  # held by the sandbox alone, where there is no group to help
    try:
        world = World(folders, runtime)
        small = Limits(pids=30)
        bomb, other = world.ready("bomb", limits=small), world.ready("other", limits=small)
        code = """
import os, time
answer = 0
try:
    while answer < 1000:
        if os.fork() == 0:
            time.sleep(600)
        answer += 1
except OSError:
    pass
"""
        assert 10 < int(str(world.evaluate("bomb", bomb, code))) < 30
        assert world.evaluate("other", other, "import os; pid = os.fork() or os._exit(0); answer = os.waitpid(pid, 0)[1]") == 0
        runtime.stop("bomb", 0)
        assert runtime.listening("bomb") == []
    finally:
        runtime.close()


# --- the platform is killed


PLATFORM = """
import random, sys
from pathlib import Path
from modelyard.domain.plan import Plan
from modelyard.runtime.cgroups import Cgroups
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.runtime import InstanceSpec, Role
from modelyard.runtime.sandbox import Bubblewrap
from modelyard.runtime.trusted import Trusted

base, token, kind, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
pick = random.Random(seed)
launcher = Trusted(scratch=base / "scratch") if kind == "trusted" else Bubblewrap()
found = Cgroups.found()._hierarchies
cgroups = {
    "trusted": Cgroups(found),
    "all groups": Cgroups(found),
    "v1 freezer": Cgroups(tuple(each for each in found if not each.unified)),
    "no groups": Cgroups(),
}[kind]
runtime = ProcessRuntime(RuntimeFolders(base / "apps", base / "environments", base / "output"), launcher, cgroups=cgroups)
plan = Plan(server="command", command=("python", "app.py"))
for name in ("a", "b"):
    runtime.create(InstanceSpec(f"{token}-{name}", Role.APP, "v1", "e1", plan))
print("begun", flush=True)
while True:
    name = f"{token}-{pick.choice('ab')}"
    pick.choice([runtime.start, runtime.start, runtime.freeze, runtime.freeze, runtime.thaw, lambda name: runtime.stop(name, 0)])(name)
"""


def of_platform(token: str) -> list[str]:
    """Every process of this machine that belongs to an instance whose name begins so: its holder, and all below."""
    holders, parents = set(), {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if token.encode() in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes():
                    holders.add(folder.name)
            except OSError:
                continue
    below = set(holders)
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below)


@pytest.mark.parametrize("kind", ["all groups", "v1 freezer", "no groups", "trusted"])
def test_a_killed_platform_leaves_nothing(base, kind, scaled):
    (base / "scratch").mkdir(exist_ok=True)
    write_app(base / "apps", token := f"kill-{os.getpid()}-{kind.replace(' ', '-')}")
    program = [sys.executable, "-c", PLATFORM.replace('"v1", "e1"', f'"{token}", "e1"'), str(base), token, kind]
    for seed in range(scaled(300)):
        pick = random.Random(seed)
        told = {"PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen([*program, str(seed)], stdout=subprocess.PIPE, env=told) as platform:
            assert platform.stdout is not None
            assert platform.stdout.readline() == b"begun\n"
            with pytest.raises(subprocess.TimeoutExpired):
                platform.wait(pick.uniform(0, 0.3))
            platform.kill()
        eventually(lambda: of_platform(token) == [], f"nothing is left (seed {seed})")
    # A platform that starts removes what one left that was killed before a holder took charge of it.
    Trusted(scratch=base / "scratch")
    assert list((base / "scratch").iterdir()) == []

    def groups() -> list[str]:
        Cgroups.found().close()
        # By `walk`: others' groups come and go meanwhile.
        found = ((folder, each) for folder, folders, _ in os.walk("/sys/fs/cgroup") if Path(folder).name == "modelyard" for each in folders)
        return [f"{folder}/{each}" for folder, each in found if each.startswith(token)]

    eventually(lambda: not groups(), "no group is left: a process leaves its own a moment after it has ended")


# --- an ordinary user


ORDINARY = """
import json, os, sys
from pathlib import Path
from evaluating_app import World, write_app, write_environment
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.sandbox import Bubblewrap

base = Path(sys.argv[1])
write_app(base / "apps")
write_environment(base / "environments")
runtime = ProcessRuntime(RuntimeFolders(base / "apps", base / "environments", base / "output"), Bubblewrap())
report = runtime.probe()
told = {"usable": report.usable, "why": report.why, "mend": report.mend, "notes": report.notes}
if report.usable:
    world = World(None, runtime)
    at = world.ready("a")
    told["listening"] = [[each.host, each.port] for each in runtime.listening("a")]
    told["inside"] = world.evaluate("a", at, "import os; open('made', 'w').close(); answer = [os.getuid(), sorted(os.listdir('/app'))]")
    told["outside"] = [Path(f"/proc/{pid}/status").read_text() for pid in runtime._instance("a").held().members()]
    runtime.freeze("a")
    runtime.thaw("a")
    told["thawed"] = world.evaluate("a", at, "answer = 1")
    runtime.stop("a", 5)
    told["detail"] = runtime.actual()[0].detail
runtime.close()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Path]:
    """What an ordinary user needs to run the platform: an interpreter and its packages where everybody may read them."""
    if os.geteuid() != 0:
        pytest.skip("every other test here runs as an ordinary user already")
    folder = Path(tempfile.mkdtemp(prefix="modelyard-ordinary-"))  # pytest closes its own folders to others
    folder.chmod(0o755)
    shutil.copytree(sys.base_prefix, folder / "python", symlinks=True, ignore=shutil.ignore_patterns("site-packages", "test", "*.a"))
    (folder / "packages").mkdir()
    for module in (modelyard, pydantic, pydantic_core, annotated_types, typing_inspection):
        shutil.copytree(Path(str(module.__file__)).parent, folder / "packages" / module.__name__)
    for file in (Path(str(typing_extensions.__file__)), Path(__file__).parents[1] / "evaluating_app.py"):
        shutil.copy(file, folder / "packages")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_nobody(folder: Path) -> dict[str, object]:
    home = folder / f"home-{len(list(folder.iterdir()))}"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    python = next((folder / "python/bin").glob(f"python3.{sys.version_info.minor}"))
    ran = subprocess.run(
        [python, "-c", ORDINARY, str(home)],
        env={"PYTHONPATH": str(folder / "packages")},
        cwd=home,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_an_ordinary_user_has_the_same_sandbox(ordinary):
    told = as_nobody(ordinary)
    assert told["usable"], told
    assert told["listening"] == [["127.0.0.1", 8080]]
    assert told["inside"] == [SANDBOX_UID, ["app.py", "inner", "made", "weights.bin"]]
    assert told["thawed"] == 1
    assert told["detail"] == "killed by signal 15"
    (text,) = told["outside"]
    outside = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert set(outside["Uid"].split()) == {str(NOBODY)}
    assert (int(outside["CapEff"], 16), int(outside["CapBnd"], 16), outside["NoNewPrivs"], outside["Seccomp"]) == (0, 0, "1", "2")


# --- what is missing is said


def test_a_machine_that_can_is_found_usable():
    report = Bubblewrap().probe()
    assert (report.usable, report.why, report.mend) == (True, "", "")
