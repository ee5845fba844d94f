"""Pairs of containers in an engine that others use too: what they are from outside, and that rows and pairs stay equal whatever happens."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path

import pytest
from container_grounds import WITHIN_S, ContainerGround, eventually
from docker.errors import APIError, NotFound
from parts import engine
from parts.docker_world import DockerWorld, app_files

from inference_service.instances import back_off_s
from modelyard.domain.errors import ModelyardError
from modelyard.domain.plan import MIB
from modelyard.domain.states import ExitReason, InstanceState
from modelyard.runtime.container_group import group_of
from modelyard.runtime.engine_names import container_name
from modelyard.runtime.runtime import ActualState

pytestmark = pytest.mark.docker

APP, INLET = "app", "inlet"
MENDED_WITHIN_S = 30.0
LOOPING, R9_LASTS_S, BRIEFLY_S = 10, 1800, 16


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerWorld]:
    with closing(DockerWorld()) as made:
        made.add_app(app_files())
        yield made


@pytest.fixture
def ground(docker: DockerWorld, tmp_path: Path) -> Iterator[ContainerGround]:
    made = ContainerGround(tmp_path / "yard", docker)
    try:
        yield made
    finally:
        made.close()
        docker.clear()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_what_waits_for_a_call_is_created_and_not_started(ground: ContainerGround) -> None:
    iris = ground.add_model("iris")
    assert {ground.api.inspect_container(ground.container("iris", part))["State"]["Status"] for part in (APP, INLET)} == {"created"}
    assert ground.call(iris) == "here"
    assert {ground.api.inspect_container(ground.container("iris", part))["State"]["Status"] for part in (APP, INLET)} == {"running"}


@pytest.mark.parametrize("part", [APP, INLET])
def test_a_container_is_confined_as_seen_from_outside(ground: ContainerGround, part: str) -> None:
    ground.call(ground.add_model("iris"))
    found = ground.api.inspect_container(ground.container("iris", part))
    pids = [int(row[1]) for row in ground.api.top(found["Id"])["Processes"]]
    assert pids
    for status in map(status_of, pids):
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert 0 not in [int(each) for each in status["Uid"].split() + status["Gid"].split()]
    root = Path(f"/proc/{pids[0]}/mountinfo").read_text().splitlines()
    assert "ro" in next(line for line in root if line.split()[4] == "/").split()[5].split(",")
    assert [line.split(":")[0].strip() for line in Path(f"/proc/{pids[0]}/net/dev").read_text().splitlines()[2:]] == ["lo"]
    assert Path(f"/proc/{pids[0]}/net/route").read_text().splitlines()[1:] == []


def test_an_app_mounts_nothing_and_an_inlet_its_own_folder_alone(ground: ContainerGround) -> None:
    ground.call(ground.add_model("iris"))
    app, inlet = (ground.api.inspect_container(ground.container("iris", part)) for part in (APP, INLET))
    assert app["Mounts"] == []
    assert set(app["HostConfig"]["Tmpfs"]) == {"/tmp", "/app"}
    assert [(each["Source"], each["Destination"]) for each in inlet["Mounts"]] == [
        (str(Path(ground.pairs.inlet("app-v-iris")).parent), "/run/in")
    ]
    pid = app["State"]["Pid"]
    theirs = {line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    kernels = {"/", "/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    others = {path for path in theirs - kernels if not path.startswith(("/proc/", "/sys/"))}
    assert {path.removeprefix("/usr") for path in others} == {"/tmp", "/app", "/sbin/docker-init"}


def test_another_runner_finds_what_runs_and_keeps_it(ground: ContainerGround) -> None:
    models = {name: ground.add_model(name) for name in ("awake", "frozen")}
    for model_id in models.values():
        ground.call(model_id, "import builtins; builtins.kept = 7; answer = 1")
    with ground.lifecycle.held(models["frozen"], wait=True):
        ground.freeze("frozen")
    ground.end_runner()
    before = {name: ground.container(name, APP) for name in models}
    ground.begin_runner()
    eventually(lambda: len(ground.pairs.actual()) == 2, "both are found")
    assert {each.name: each.state for each in ground.pairs.actual()} == {
        "app-v-awake": ActualState.RUNNING,
        "app-v-frozen": ActualState.FROZEN,
    }
    for name, model_id in models.items():
        assert ground.call(model_id, "import builtins; answer = builtins.kept") == 7, "the same process answers"
        assert ground.container(name, APP) == before[name]


def test_a_frozen_app_goes_on_without_a_question_to_the_engine(ground: ContainerGround) -> None:
    iris = ground.add_model("iris")
    ground.call(iris)
    app = ground.api.inspect_container(ground.container("iris", APP))
    group = group_of(app["State"]["Pid"], app["Id"])
    if group is None or not group.freeze():
        pytest.skip("this machine's freezer is the engine's alone")
    group.thaw()
    before = ground.pairs._engine.calls
    with ground.lifecycle.held(iris, wait=True):
        ground.freeze("iris")
        assert group.is_frozen()
    assert ground.call(iris) == "here"
    assert (ground.state("iris"), group.is_frozen()) == (InstanceState.RUNNING, False)
    assert ground.pairs._engine.calls == before


def test_a_foreign_container_that_has_our_name_is_left_alone(ground: ContainerGround) -> None:
    iris = ground.add_model("iris")
    ground.end_runner()
    ground.api.remove_container(ground.container("iris", APP), force=True)
    called = container_name(ground.docker.yard, "app-v-iris", APP)
    theirs = ground.api.create_container(engine.PYTHON, name=called)["Id"]
    try:
        ground.begin_runner()
        with pytest.raises(ModelyardError, match="already in use"):
            ground.call(iris)
        assert ground.api.inspect_container(theirs)["State"]["Status"] == "created"
    finally:
        ground.api.remove_container(theirs)
    eventually(lambda: ground.answers(iris), "it starts once the name is free")


def test_inlets_of_the_last_used_models_stay_open(docker: DockerWorld, tmp_path: Path) -> None:
    ground = ContainerGround(tmp_path / "yard", docker, warm_inlets=2)
    try:
        names = ["one", "two", "three"]
        for name in names:
            ground.call(ground.add_model(name))
        for name in names:
            ground.pairs.stop(f"app-v-{name}", 0)
        runs = {name: ground.api.inspect_container(ground.container(name, INLET))["State"]["Running"] for name in names}
        assert runs == {"one": False, "two": True, "three": True}
    finally:
        ground.close()
        docker.clear()


WORKER = """
import os
child = os.fork()
if child == 0:
    kept = bytearray(b"x") * 500_000_000
    os._exit(0)
os.waitpid(child, 0)
answer = "the parent lives"
"""


def test_out_of_memory_is_told_though_only_a_worker_died(ground: ContainerGround, scaled) -> None:
    names = [f"m{n}" for n in range(min(10, scaled(200)))]
    models = {name: ground.add_model(name, memory_bytes=64 * MIB) for name in names}
    for turn in range(scaled(50)):
        name = names[turn % len(names)]
        eventually(lambda name=name: ground.answers(models[name]), "it runs")  # type: ignore[misc]
        with suppress(OSError, ValueError, HTTPException):  # who lives on may still answer before it is ended
            ground.call(models[name], WORKER)
        eventually(lambda name=name: ground.state(name) == InstanceState.FAILED, "its end is told")  # type: ignore[misc]
        assert ground.row(name).reason == ExitReason.OOM_KILLED
        assert "64 MiB" in (ground.row(name).detail or "")
        ground.let_start(name)


def back_off_starts(lasts_s: float) -> int:
    """How often a model that crashes at once starts in this time: by its back-off, and once at the beginning."""
    ends = itertools.accumulate(back_off_s(crashes) for crashes in itertools.count(1))
    return 1 + sum(1 for _ in itertools.takewhile(lambda at: at < lasts_s, ends))


def test_models_that_crash_again_and_again_ask_the_engine_less_than_once_a_second(ground: ContainerGround, scaled) -> None:
    """R9: half an hour at its full count, else moments: the first of them hold most of the starts, so these are what is counted by."""
    models = [ground.add_model(f"loop{n}", "first=sys.exit(3)") for n in range(LOOPING)]
    lasts_s = R9_LASTS_S if scaled(R9_LASTS_S) == R9_LASTS_S else BRIEFLY_S
    before, began = ground.pairs._engine.calls, time.monotonic()
    pause = threading.Event()
    while time.monotonic() - began < lasts_s:
        for model_id in models:
            ground.answers(model_id)
        pause.wait(1.0)
    asked, took_s = ground.pairs._engine.calls - before, time.monotonic() - began
    starts = sum(ground.crashes(f"loop{n}") for n in range(LOOPING))
    told = f"{asked} questions for {starts} starts in {took_s:.0f} s: {asked / took_s:.2f} a second"
    print(told)
    assert LOOPING <= starts <= LOOPING * back_off_starts(took_s), told
    assert asked / starts * LOOPING * back_off_starts(R9_LASTS_S) < R9_LASTS_S, told


class Saboteur:
    """Does to containers of the yard what others could do, and leaves a container of others beside them."""

    def __init__(self, ground: ContainerGround, seed: int) -> None:
        self._ground = ground
        self._random = random.Random(seed)
        self.acts = {
            "kill": ground.api.kill,
            "stop": lambda each: ground.api.stop(each, timeout=0),
            "restart": lambda each: ground.api.restart(each, timeout=0),
            "remove": lambda each: ground.api.remove_container(each, force=True),
            "pause": ground.api.pause,
            "rename": lambda each: ground.api.rename(each, f"renamed-{self._random.randrange(10**9)}"),
            "start": ground.api.start,
        }

    def act(self, name: str) -> str:
        """Do one thing to one half of the model's pair; what was done."""
        part, act = self._random.choice([APP, INLET]), self._random.choice([*self.acts])
        container = self._ground.container(name, part)
        if container:
            try:
                self.acts[act](container)
            except (APIError, NotFound) as error:
                return f"{act} {part}: {error.explanation}"
        return f"{act} {part}"


def test_whatever_others_do_is_mended_and_others_are_left_alone(ground: ContainerGround, scaled) -> None:
    names = [f"m{n}" for n in range(3)]
    models = {name: ground.add_model(name) for name in names}
    foreign = ground.api.create_container(engine.PYTHON, ["sleep", "600"], labels={"modelyard.yard": "ffffffffffff", "modelyard.name": "x"})
    ground.api.start(foreign["Id"])
    seed = random.randrange(10**9)
    saboteur = Saboteur(ground, seed)
    done: list[str] = []
    try:
        for turn in range(scaled(500)):
            name = names[turn % len(names)]
            if turn % 3:
                ground.answers(models[name])
            done.append(saboteur.act(name))
            eventually(
                lambda name=name: ground.answers(models[name]) and ground.state(name) == InstanceState.RUNNING,  # type: ignore[misc]
                f"mended after {done[-3:]}, seed {seed}",
                MENDED_WITHIN_S,
            )
            assert ground.container(name, APP)
            assert ground.container(name, INLET)
        assert ground.api.inspect_container(foreign["Id"])["State"]["Running"]
        assert len(ground.docker.containers()) == 2 * len(names)
        names_now = {
            each["Names"][0].lstrip("/")
            for each in ground.api.containers(all=True, filters={"label": f"modelyard.yard={ground.docker.yard}"})
        }
        assert names_now == {container_name(ground.docker.yard, f"app-v-{name}", part) for name in names for part in (APP, INLET)}
    finally:
        ground.api.remove_container(foreign["Id"], force=True)


def test_what_was_taken_away_while_it_waited_is_made_anew(ground: ContainerGround) -> None:
    ground.add_model("iris")
    for part in (INLET, APP):
        ground.api.remove_container(ground.container("iris", part), force=True)
    eventually(lambda: ground.container("iris", APP) and ground.container("iris", INLET), "both halves are there again", WITHIN_S)
