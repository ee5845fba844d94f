"""What every runtime of processes promises, over the sandbox and without one."""

import errno
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from evaluating_app import World, write_app, write_environment
from parts import engine
from parts.docker_world import ContainerWorld, DockerWorld, app_files

from modelyard.domain.plan import Limits, Plan
from modelyard.domain.states import ExitReason
from modelyard.runtime.cgroups import Cgroups
from modelyard.runtime.probe import NeverReadyError, ProbeStoppedError, wait_ready
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.runtime import Actual, ActualState, InstanceSpec, Listener, NoSuchInstanceError, Role, StartError
from modelyard.runtime.sandbox import Bubblewrap
from modelyard.runtime.trusted import Trusted

DEADLINE_S = 60.0

LAUNCHERS = [
    pytest.param(("trusted", True), id="trusted"),
    pytest.param(("bubblewrap", True), id="bubblewrap", marks=pytest.mark.sandbox),
    pytest.param(("bubblewrap", False), id="bubblewrap-without-cgroups", marks=pytest.mark.sandbox),
]
CONTAINERS = pytest.param(("docker", True), id="docker", marks=pytest.mark.docker)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    between = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        between.wait(0.005)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> RuntimeFolders:
    base = tmp_path_factory.mktemp("runtime")
    write_app(base / "apps")
    write_environment(base / "environments")
    return RuntimeFolders(base / "apps", base / "environments", base / "output", base / "weights")


@pytest.fixture
def changed() -> list[str]:
    return []


@pytest.fixture(scope="module")
def containers() -> Iterator[DockerWorld]:
    with closing(DockerWorld()) as made:
        made.add_app(app_files())
        yield made


def process_world(kind: str, *, grouped: bool, folders: RuntimeFolders, scratch: Path, changed: list[str]) -> World:
    launcher = Trusted(scratch=scratch) if kind == "trusted" else Bubblewrap()
    return World(folders, ProcessRuntime(folders, launcher, cgroups=None if grouped else Cgroups(), on_change=changed.append))


@pytest.fixture(params=[*LAUNCHERS, CONTAINERS])
def world(request, folders, tmp_path, tmp_path_factory, changed) -> Iterator[World]:
    kind, grouped = request.param
    if kind == "docker":
        docker = request.getfixturevalue("containers")
        made: World = ContainerWorld(
            docker, docker.runtime(tmp_path_factory.mktemp("output"), changed.append, weights=folders.weights, weights_at=folders.weights)
        )
    else:
        made = process_world(kind, grouped=grouped, folders=folders, scratch=tmp_path, changed=changed)
    try:
        yield made
    finally:
        made.runtime.close()
        shutil.rmtree(folders.output, ignore_errors=True)
        if kind == "docker":
            docker.clear()


@pytest.fixture(params=LAUNCHERS)
def of_processes(request, folders, tmp_path, changed) -> Iterator[World]:
    """What only instances without an inlet have."""
    kind, grouped = request.param
    made = process_world(kind, grouped=grouped, folders=folders, scratch=tmp_path, changed=changed)
    with closing(made.runtime):
        yield made


def actual(world: World, name: str) -> Actual:
    return next(each for each in world.runtime.actual() if each.name == name)


def test_this_machine_can_be_used(world):
    report = world.runtime.probe()
    assert report.usable, report
    assert world.runtime.probe() == report


def test_a_created_instance_is_not_running(world):
    world.create("a")
    world.create("a")
    assert world.runtime.actual() == [Actual("a", Role.APP, "v1", ActualState.CREATED, 0)]
    assert world.runtime.listening("a") == []
    assert world.runtime.port("a") == 8080
    with pytest.raises(NoSuchInstanceError):
        world.runtime.usage("a")


def test_a_started_instance_answers(world):
    at = world.ready("a")
    assert actual(world, "a") == Actual("a", Role.APP, "v1", ActualState.RUNNING, at[0])
    assert world.evaluate("a", at, "answer = 6 * 7") == 42
    assert at[1].port == world.runtime.port("a")
    assert [(each.host, each.port) for each in world.runtime.listening("a")] == [("127.0.0.1", at[1].port)]


def test_a_second_start_is_the_first(world):
    world.create("a")
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(world.runtime.start("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 8
    assert len(set(numbers)) == 1


def test_the_app_sees_its_own_variables_and_no_others(world, monkeypatch):
    monkeypatch.setenv("MODELYARD_CANARY", "of the platform")
    seen = world.evaluate("a", world.ready("a"), "import os; answer = dict(os.environ)")
    threads = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"}
    caches = {"HF_HOME", "TORCH_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"}
    python = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}
    ours = {"MODELYARD_VERSION", "MODELYARD_MODEL", "MODELYARD_CPUS"}
    assert set(seen) - {"PWD"} == {"PORT", "HOME", "TMPDIR", "LANG", "PATH"} | ours | threads | caches | python
    assert (seen["MODELYARD_MODEL"], seen["MODELYARD_CPUS"]) == ("someone/evaluating", "1")
    assert seen["MODELYARD_VERSION"] == "v1"
    assert seen["OMP_NUM_THREADS"] == "1"


def test_an_app_reads_the_weights_that_it_names_and_no_others(world, folders):
    for name in ("mobilenet", "clip"):
        (folders.weights / name).mkdir(parents=True, exist_ok=True)
        (folders.weights / name / "weights.json").write_text(name)
    code = """
import os, pathlib
folder = pathlib.Path(os.environ["MODELYARD_WEIGHTS"])
answer = (folder / "mobilenet" / "weights.json").read_text()
"""
    at = world.ready("a", weights=("mobilenet",))
    assert world.evaluate("a", at, code) == "mobilenet"
    if world.runtime.probe().name in {"process", "docker"}:  # without a sandbox an app reads whatever its user may
        assert world.evaluate("a", at, "import os; answer = os.listdir('/weights')") == ["mobilenet"]
        refused = """
answer = []
for act in (lambda: open("/weights/mobilenet/new", "w"), lambda: open("/weights/mobilenet/weights.json", "a"), lambda: open("/weights/new", "w")):
    try:
        act()
    except OSError as error:
        answer.append(error.errno)
"""
        assert set(world.evaluate("a", at, refused)) <= {errno.EACCES, errno.EROFS}


def test_weights_that_come_later_are_seen_by_a_running_app(world, folders):
    shutil.rmtree(folders.weights, ignore_errors=True)
    at = world.ready("a", weights=("clip",))
    look = "import os; answer = os.listdir(os.environ['MODELYARD_WEIGHTS'] + '/clip')"
    assert world.evaluate("a", at, look) == []
    (folders.weights / "clip" / "weights.json").write_text("{}")
    assert world.evaluate("a", at, look) == ["weights.json"]


def test_no_descriptor_but_its_own_reaches_the_app(world):
    code = "import os; answer = [os.readlink(f'/proc/self/fd/{n}') for n in range(64) if os.path.lexists(f'/proc/self/fd/{n}')]"
    at = world.ready("a")

    def kinds() -> list[str]:
        return [name.split(":")[0] for name in world.evaluate("a", at, code)]

    # Its listener, and this very call; the app may still be closing the connection by which it was found ready.
    eventually(lambda: kinds() == ["/dev/null", "pipe", "pipe", "socket", "socket"], "nothing else is open")


def test_what_the_app_writes_is_gone_with_it(world):
    code = """
with open("weights.bin", "r+b") as file:
    file.write(b"CHANGED!")
for path in ("made", "inner/made"):
    with open(path, "w") as file:
        file.write("new")
answer = open("weights.bin", "rb").read().decode()
"""
    assert world.evaluate("a", world.ready("a"), code) == "CHANGED!"
    assert world.original("v1", "weights.bin") == b"original"
    assert world.original("v1", "made") is None
    world.runtime.stop("a", 0)
    at = (world.runtime.start("a"), Listener("127.0.0.1", world.runtime.port("a")))
    wait_ready(world.runtime, "a", at[0], world.create("a"), DEADLINE_S)
    again = "import os; answer = [os.path.exists('made'), os.path.exists('inner/made'), open('weights.bin').read()]"
    assert world.evaluate("a", at, again) == [False, False, "original"]


def test_the_working_folder_may_lie_below_the_root(world):
    plan = world.create("b", role=Role.VERIFY, program="../app.py", folder="inner")
    start = world.runtime.start("b")
    at = (start, wait_ready(world.runtime, "b", start, plan, DEADLINE_S))
    assert world.evaluate("b", at, "import os; answer = os.getcwd()").endswith("/app/inner")


def test_sockets_are_handed_out_for_this_start_alone(of_processes):
    world = of_processes
    start, address = world.ready("a")
    many = world.runtime.dial("a", start, 64)
    assert len(many) == 64
    for each in many:
        with each:
            assert each.family == socket.AF_INET
            assert not each.get_inheritable()
            if each in many[-2:]:
                each.connect((address.host, address.port))
    for name, number in (("a", start + 1), ("a", start - 1), ("unknown", 1)):
        with pytest.raises(NoSuchInstanceError):
            world.runtime.dial(name, number)
    world.runtime.stop("a", 0)
    with pytest.raises(NoSuchInstanceError):
        world.runtime.dial("a", start)


def test_threads_may_dial_at_once(world):
    at = world.ready("a")
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.extend(world.evaluate("a", at, f"answer = {n}") for _ in range(10))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted([*range(8)] * 10)


def test_an_app_may_listen_on_ipv6(world):
    start, address = world.ready("a", "host=::1")
    assert address.host == "::1"
    assert world.evaluate("a", (start, address), "answer = 'six'") == "six"


def test_where_nobody_listens_nobody_answers(world):
    at = world.ready("a")
    with pytest.raises(OSError):  # noqa: PT011 - refused at once, or hung up by the inlet, in one of several ways
        world.evaluate("a", (at[0], Listener("127.0.0.1", 1)), "answer = 1")
    assert world.evaluate("a", at, "answer = 1") == 1


def test_connections_are_to_this_start_alone(world):
    start, address = world.ready("a")
    for name, number in (("a", start + 1), ("a", start - 1), ("unknown", 1)):
        with pytest.raises(NoSuchInstanceError):
            world.runtime.connect(name, number, address, 1)
    world.runtime.stop("a", 0)
    with pytest.raises(NoSuchInstanceError):
        world.runtime.connect("a", start, address, 1)


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    while True:
        pass
os.wait()
"""


def test_a_frozen_instance_uses_no_processor(world):
    at = world.ready("a", f"first={DAEMON}")
    eventually(lambda: world.runtime.usage("a").processes == 2, "the daemon runs")
    world.runtime.freeze("a")
    world.runtime.freeze("a")
    assert actual(world, "a").state is ActualState.FROZEN
    before = world.runtime.usage("a").cpu_s
    with pytest.raises(TimeoutError):
        world.evaluate("a", at, "answer = 1", timeout_s=0.3)
    assert world.runtime.usage("a").cpu_s == before
    world.runtime.thaw("a")
    world.runtime.thaw("a")
    assert actual(world, "a").state is ActualState.RUNNING
    assert world.evaluate("a", at, "answer = 1") == 1
    eventually(lambda: world.runtime.usage("a").cpu_s > before, "the daemon runs on")


@pytest.mark.parametrize("frozen", [False, True])
def test_a_stop_lets_the_app_say_goodbye(world, frozen, changed):
    goodbye = "import signal; signal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), os._exit(0)))"
    start, _ = world.ready("a", f"first={goodbye}")
    if frozen:
        world.runtime.freeze("a")
    world.runtime.stop("a", DEADLINE_S)
    world.runtime.stop("a", DEADLINE_S)
    assert actual(world, "a") == Actual("a", Role.APP, "v1", ActualState.EXITED, start, None, "exit status 0")
    assert world.runtime.logs("a") == b"starting\ngoodbye\n"
    assert world.runtime.listening("a") == []
    eventually(lambda: changed == ["a"], "the caller is told")


def test_an_app_that_will_not_go_is_ended(world):
    world.ready("a", "first=import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    world.runtime.stop("a", 0.2)
    assert actual(world, "a").reason is None
    assert actual(world, "a").detail == "killed by signal 9"


def alive(token: str) -> list[int]:
    """Every process of this machine whose environment names the token."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("end", ["stop", "exit", "close"])
def test_nothing_is_left_of_an_instance(world, folders, end, tmp_path):
    version = f"gone-{end}"
    world.add_version(version)
    at = world.ready("a", f"first={DAEMON}", version=version)
    eventually(lambda: world.runtime.usage("a").processes == 2, "the daemon runs")
    assert alive(version)
    if end == "stop":
        world.runtime.stop("a", 0)
    elif end == "close":
        world.runtime.close()
    else:
        with pytest.raises(OSError):  # noqa: PT011 - cut off, in one of several ways
            world.evaluate("a", at, "import os; os._exit(0)")
        eventually(lambda: actual(world, "a").state is ActualState.EXITED, "it ends")
    assert alive(version) == []
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(folders.apps / version, ignore_errors=True)


def test_a_crash_is_told_with_its_exit(world, changed):
    world.create("a", "first=print('no good'); sys.exit(3)")
    start = world.runtime.start("a")
    eventually(lambda: changed == ["a"], "the caller is told")
    assert actual(world, "a") == Actual("a", Role.APP, "v1", ActualState.EXITED, start, ExitReason.CRASHED, "exit status 3")
    assert world.runtime.logs("a") == b"starting\nno good\n"
    assert world.runtime.start("a") > start


def test_a_removed_instance_is_forgotten_and_its_output_kept(world):
    start, _ = world.ready("a")
    world.runtime.remove("a")
    world.runtime.remove("a")
    assert world.runtime.actual() == []
    assert world.runtime.logs("a") == b"starting\n"
    with pytest.raises(NoSuchInstanceError):
        world.runtime.start("a")
    assert world.ready("a")[0] > start


def test_a_flood_of_output_keeps_its_end_and_the_app_alive(world):
    at = world.ready("a")
    world.evaluate("a", at, "import sys; sys.stdout.write('x' * 99 + '\\n'); [sys.stdout.write('y' * 99 + '\\n') for _ in range(60000)]")
    world.evaluate("a", at, "print('the end', flush=True)")
    eventually(lambda: world.runtime.logs("a").endswith(b"the end\n"), "the end is kept")
    assert len(world.runtime.logs("a", 1000)) == 1000
    assert len(world.runtime.logs("a", 10_000_000)) < 3 * 1024 * 1024


def test_an_instance_without_its_code_cannot_be_started(world, tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StartError):
        create_and_start(world)
    assert not [each for each in world.runtime.actual() if each.state is ActualState.RUNNING]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + world.connections
    assert list(tmp_path.iterdir()) == []


def create_and_start(world: World) -> None:
    world.create("a", version="never-unpacked")
    world.runtime.start("a")


def test_a_name_that_could_leave_its_folder_is_refused(world):
    with pytest.raises(ValueError, match="not a name"):
        world.create("../a")


def test_many_starts_leave_no_descriptor_and_no_zombie(world):
    world.ready("a")
    world.runtime.stop("a", 0)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(world.many):
        world.runtime.start("a")
        world.runtime.stop("a", 0)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + world.connections
    children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split()
    assert "Z" not in map(state_of, children)


def state_of(pid: str) -> str:
    """A letter, see proc(5); empty where it has gone meanwhile."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_memory_and_processes_are_counted(world):
    at = world.ready("a")
    world.evaluate("a", at, "import builtins; builtins.kept = bytearray(b'x') * 50_000_000")
    usage = world.runtime.usage("a")
    assert 50_000_000 < usage.memory_bytes < 150_000_000
    assert usage.processes == 1


SERVER = """
import sys
import app
app.Server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), app.Evaluating).serve_forever()
"""


def test_a_server_of_its_own_folder_comes_after_everything_of_the_apps(of_processes, folders):
    world = of_processes
    environment = folders.environments / "with-server"
    if not environment.exists():
        shutil.copytree(folders.environments / "e1", environment, symlinks=True)
        package = environment / "server/lib/python3/site-packages/uvicorn"
        package.mkdir(parents=True)
        (package / "__main__.py").write_text(SERVER)
    plan = Plan(server="uvicorn", target="app:app")
    world.runtime.create(InstanceSpec("a", Role.APP, "v1", "with-server", plan))
    start = world.runtime.start("a")
    at = (start, wait_ready(world.runtime, "a", start, plan, DEADLINE_S))
    first, last, words = world.evaluate("a", at, "import sys; answer = [sys.path[0], sys.path[-1], sys.argv[1:]]")
    assert first == ""
    assert last.endswith("/server/lib/python3/site-packages")
    assert words == [
        "app:app",
        "--host",
        "127.0.0.1",
        "--port",
        str(world.runtime.port("a")),
        "--timeout-keep-alive",
        "75",
        "--no-server-header",
        "--no-access-log",
    ]


class TestReadiness:
    """When an app counts as ready, and where."""

    def wait(self, world: World, *options: str, deadline_s: float = DEADLINE_S, **plan: object) -> Listener:
        told = world.create("a", *options, **plan)
        return wait_ready(world.runtime, "a", world.runtime.start("a"), told, deadline_s)

    @pytest.mark.parametrize("status", [200, 401, 404, 405, 501])
    def test_an_app_without_a_health_path_is_ready_when_it_answers(self, world, status):
        assert self.wait(world, f"health={status}").port == world.runtime.port("a")

    def wait_for_a_listener(self, world: World, option: str) -> None:
        """Wait for an app that is not ready, for a moment from when it listens on: how long it takes to is the machine's."""
        told = world.create("a", option)
        start = world.runtime.start("a")
        eventually(lambda: world.runtime.listening("a"), "it listens")
        wait_ready(world.runtime, "a", start, told, 3.0)

    def test_an_app_that_says_500_is_not(self, world):
        with pytest.raises(NeverReadyError, match="answered 503") as caught:
            self.wait_for_a_listener(world, "health=503")
        assert caught.value.reason is ExitReason.NEVER_READY

    def test_another_port_than_the_declared_one_is_found(self, world):
        (port,) = engine.free_ports(1)
        assert self.wait(world, f"port={port}") == Listener("127.0.0.1", port)

    def test_any_address_is_reached_by_loopback(self, world):
        assert self.wait(world, "host=0.0.0.0").host == "127.0.0.1"

    def test_a_crash_ends_the_wait(self, world):
        with pytest.raises(NeverReadyError, match="exit status 7") as caught:
            self.wait(world, "first=sys.exit(7)")
        assert caught.value.reason is ExitReason.CRASHED

    def test_an_app_that_never_listens_is_told(self, world):
        with pytest.raises(NeverReadyError, match="nothing listens"):
            self.wait(world, "first=import time; time.sleep(60)", deadline_s=0.5)

    def test_what_is_no_http_is_told(self, world):
        code = "s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\nwhile True: s.accept()[0].sendall(b'220 mail\\r\\n')"
        with pytest.raises(NeverReadyError, match="did not answer HTTP"):
            self.wait_for_a_listener(world, f"first={code}")

    def test_the_caller_may_end_the_wait(self, world):
        told = world.create("a", "first=import time; time.sleep(60)")
        start = world.runtime.start("a")
        looks = iter([False, False, True])
        with pytest.raises(ProbeStoppedError):
            wait_ready(world.runtime, "a", start, told, DEADLINE_S, lambda: next(looks))


def test_more_memory_than_allowed_is_told(world):
    limits = Limits(memory_bytes=64 * 1024 * 1024)
    if any("memory" in note for note in world.runtime.probe().notes):
        pytest.skip("no hard limit on memory here")
    at = world.ready("a", limits=limits)
    with pytest.raises(OSError):  # noqa: PT011 - cut off, in one of several ways
        world.evaluate("a", at, "kept = bytearray(b'x') * 500_000_000")
    eventually(lambda: actual(world, "a").state is ActualState.EXITED, "it ends")
    assert actual(world, "a").reason is ExitReason.OOM_KILLED
    assert "64 MiB" in actual(world, "a").detail
