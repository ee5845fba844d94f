"""What is told and what is read of containers, without an engine: numbers of starts, ends, groups, profiles, warm inlets, reports."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelyard.domain.plan import MIB, Limits, Plan
from modelyard.domain.states import ExitReason
from modelyard.runtime import engine_names
from modelyard.runtime.container import Container, how, read, start_number
from modelyard.runtime.container_group import group_of
from modelyard.runtime.endings import Endings
from modelyard.runtime.engine import EngineAway
from modelyard.runtime.engine_report import report
from modelyard.runtime.listeners import of_tables
from modelyard.runtime.pair import Pair
from modelyard.runtime.runtime import InstanceSpec, Listener, Role
from modelyard.runtime.seccomp import FAMILIES, NEW_NAMESPACES, REFUSED
from modelyard.runtime.seccomp_profile import profile
from modelyard.runtime.warm_inlets import WarmInlets

YARD = "0123456789ab"
ID = "c" * 64


def container(start: int = 5, *, exit_code: int = 1, oom_killed: bool = False) -> Container:
    return Container(ID, "called", "app-v", "app", Role.APP, "v", "spec", "exited", start, 0, exit_code, oom_killed, "")


def spec(**more: Any) -> InstanceSpec:
    plan = Plan(server="uvicorn", target="app:app", weights=("mobilenet",), limits=Limits(memory_bytes=64 * MIB))
    return InstanceSpec("app-v", Role.APP, "v", "e1", plan, "ann/iris", **more)


def pair(told: InstanceSpec | None = None) -> Pair:
    return Pair(told or spec(), YARD, "sha256:inlet", "65533:65533", "/volume/short", Path("/weights"))


@pytest.mark.parametrize(
    ("first", "second"),
    [("2026-11-30T12:00:00.05Z", "2026-11-30T12:00:00.15Z"), ("2026-11-30T12:00:00Z", "2026-11-30T12:00:01.000000001Z")],
)
def test_each_start_has_another_number(first: str, second: str) -> None:
    assert 0 < start_number(first) < start_number(second) < 1 << 31


def test_what_never_started_has_no_number() -> None:
    assert start_number("0001-01-01T00:00:00Z") == 0


def test_a_container_of_another_yard_is_none_of_ours() -> None:
    labels = pair().app("inlet")["Labels"]
    found = {"Id": ID, "Name": "/x", "Config": {"Labels": labels}, "HostConfig": {"NetworkMode": "container:inlet"}}
    found["State"] = {"Status": "running", "StartedAt": "2026-11-30T12:00:00Z", "Pid": 7}
    seen = read(found, YARD)
    assert seen is not None
    assert (seen.name, seen.part, seen.role, seen.network_of, seen.runs) == ("app-v", "app", Role.APP, "inlet", True)
    assert read(found, "ba9876543210") is None
    assert read({**found, "Config": {"Labels": None}}, YARD) is None


def test_an_end_is_told_by_what_was_heard_of_it() -> None:
    for heard, told in (
        (lambda ends: ends.ask(container()), None),
        (lambda ends: ends.starve(container()), ExitReason.OOM_KILLED),
        (lambda ends: ends.signal(ID), ExitReason.RUNNER_GONE),
        (lambda _ends: None, ExitReason.CRASHED),
    ):
        ends = Endings()
        heard(ends)
        ends.tell(container(), 5, 137)
        assert (ends.of(container()).reason, ends.of(container()).detail) == (told, "killed by signal 9")


def test_an_end_that_nobody_told_is_no_crash_unless_memory_ran_out() -> None:
    assert Endings().of(container()).reason is ExitReason.RUNNER_GONE
    assert Endings().of(container(oom_killed=True, exit_code=137)).reason is ExitReason.OOM_KILLED
    # A worker died for want of memory, and the app was stopped cleanly later: the engine tells the first and means the second.
    assert Endings().of(container(oom_killed=True, exit_code=0)).reason is ExitReason.RUNNER_GONE


def test_the_end_of_an_older_start_says_nothing_of_a_newer_one() -> None:
    ends = Endings()
    ends.ask(container(start=5))
    ends.tell(container(start=5), 5, 0)
    ends.tell(container(start=6), 6, 1)
    assert ends.of(container(start=6)).reason is ExitReason.CRASHED


def test_an_exit_status_in_words() -> None:
    assert [how(code) for code in (0, 3, 137)] == ["exit status 0", "exit status 3", "killed by signal 9"]


def test_builder_and_runner_make_the_same_pair() -> None:
    assert pair().digest == pair(spec(build="b1", fence=3)).digest
    assert pair().digest != pair(spec(listens=Listener("::1", 9000))).digest
    assert pair(spec(build="b1", fence=3)).app("inlet")["Labels"][engine_names.BUILD] == "b1"


def test_an_app_is_denied_what_the_rules_deny() -> None:
    host = pair().app("inlet")["HostConfig"]
    assert (host["CapDrop"], host["ReadonlyRootfs"], host["NetworkMode"], host["IpcMode"]) == (["ALL"], True, "container:inlet", "private")
    assert host["Memory"] == host["MemorySwap"] == 64 * MIB
    assert host["SecurityOpt"] == ["no-new-privileges", f"seccomp={profile()}"]
    assert [(each["Target"], each["ReadOnly"]) for each in host["Mounts"]] == [("/weights/mobilenet", True)]
    assert "noexec" in host["Tmpfs"]["/tmp"]
    assert host["RestartPolicy"] == {"Name": "no"}


def test_an_inlet_is_told_an_address_and_a_port_and_nothing_else() -> None:
    made = pair(spec(listens=Listener("::1", 9000))).inlet()
    assert made["Cmd"] == ["serve", "::1", "9000"]
    assert made["HostConfig"]["NetworkMode"] == "none"
    assert [each["Source"] for each in made["HostConfig"]["Mounts"]] == ["/volume/short"]


def test_the_profile_refuses_what_the_sandbox_refuses() -> None:
    rules = json.loads(profile())["syscalls"]
    named = {name for rule in rules for name in rule["names"]}
    assert set(REFUSED) <= named
    flags = {rule["args"][0]["value"] for rule in rules if rule["names"] == ["clone"]}
    assert sum(flags) == NEW_NAMESPACES
    families = {rule["args"][0].get("valueTwo") for rule in rules if rule["names"] == ["socket"]}
    assert not families & {int(family) for family in FAMILIES}
    assert int(socket.AF_VSOCK) in families


def test_the_inlets_that_were_used_last_stay_warm() -> None:
    warm = WarmInlets(2)
    assert [warm.put(name) for name in ("a", "b", "a", "c")] == [[], [], [], ["b"]]
    warm.take("a")
    assert ("a" in warm, "c" in warm) == (False, True)
    assert WarmInlets(0).put("a") == ["a"]


def test_listeners_of_both_tables_at_once() -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532 0 1\n"
    busy = "   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 65532 0 2\n"
    v6 = f"   0: {'0' * 32}:0050 {'0' * 32}:0000 0A 00000000:00000000 00:00000000 00000000 65532 0 3\n"
    assert of_tables(head + v4 + busy + head + v6) == [Listener("::", 80), Listener("127.0.0.1", 8080)]


@pytest.mark.parametrize("unified", [False, True])
def test_a_group_is_found_by_the_container_it_carries(tmp_path: Path, *, unified: bool) -> None:
    cgroups, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "7").mkdir(parents=True)
    if unified:
        folder = cgroups / "system.slice" / f"docker-{ID}.scope"
        folder.mkdir(parents=True)
        for name, text in {"cgroup.freeze": "0", "memory.stat": "", "memory.events": "oom_kill 2\n", "cgroup.procs": "7\n8\n"}.items():
            (folder / name).write_text(text)
        (proc / "7/cgroup").write_text(f"0::/system.slice/docker-{ID}.scope\n")
    else:
        for name, file, text in (
            ("memory", "memory.oom_control", "oom_kill 2\n"),
            ("freezer", "freezer.state", "FROZEN\n"),
            ("pids", "cgroup.procs", "7\n8\n"),
        ):
            folder = cgroups / name / "docker" / ID
            folder.mkdir(parents=True)
            (folder / file).write_text(text)
        (proc / "7/cgroup").write_text("".join(f"{n}:{name}:/docker/{ID}\n" for n, name in enumerate(("memory", "freezer", "pids"), 1)))
    group = group_of(7, ID, proc=proc, cgroups=cgroups)
    assert group is not None
    assert (group.oom_kills(), group.processes()) == (2, 2)
    assert group.is_frozen() is not unified
    assert group_of(7, "d" * 64, proc=proc, cgroups=cgroups) is None, "the number was given to somebody else"
    assert group_of(8, ID, proc=proc, cgroups=cgroups) is None


class Asked:
    """An engine that says this of itself."""

    def __init__(self, facts: Mapping[str, Any] | None, *, has_inlet: bool = True) -> None:
        self._facts = facts
        self._has_inlet = has_inlet

    def facts(self) -> Mapping[str, Any]:
        if self._facts is None:
            raise EngineAway("no such file")
        return self._facts

    def image(self, reference: str) -> Mapping[str, Any] | None:
        return {"Id": reference} if self._has_inlet else None


def facts(
    engine: str = "20.10.24+dfsg1", runc: str = "1.1.5+ds1-1+deb12u1", seccomp: str = "name=seccomp,profile=default"
) -> dict[str, Any]:
    components = [{"Name": "runc", "Version": runc.partition("-")[0], "Details": {"GitCommit": runc}}]
    told = {"ServerVersion": engine, "OSType": "linux", "SecurityOptions": [seccomp], "CgroupVersion": "1"}
    return told | {"version": {"ApiVersion": "1.41", "Components": components}}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Asked(None), "no such file"),
        (Asked(facts(engine="19.03.15")), "older than 20.10.10"),
        (Asked(facts(engine="20.10.9")), "older than 20.10.10"),
        (Asked(facts(seccomp="name=apparmor")), "without seccomp"),
        (Asked(facts() | {"OSType": "windows"}), "not Linux"),
        (Asked(facts(), has_inlet=False), "no image modelyard/inlet:1"),
        (Asked(facts() | {"DockerRootDir": "/nowhere/docker"}), "of another machine"),
    ],
)
def test_an_engine_that_cannot_carry_pairs_is_told_with_its_mend(asked: Asked, why: str) -> None:
    told = report(asked, "modelyard/inlet:1")  # type: ignore[arg-type]
    assert not told.usable
    assert why in told.why
    assert told.mend


def test_a_volume_that_is_not_where_it_is_said_to_be_is_told(tmp_path: Path) -> None:
    asked: Any = Asked(facts() | {"DockerRootDir": "/nowhere/docker"})
    assert report(asked, "modelyard/inlet:1", tmp_path).usable, "this process sees it elsewhere"
    told = report(asked, "modelyard/inlet:1", tmp_path / "absent")
    assert (told.usable, "absent" in told.why) == (False, True)
    assert "docker.sockets_at" in told.mend


@pytest.mark.parametrize(("runc", "notes"), [("1.1.5+ds1-1+deb12u1", 0), ("1.1.5+ds1-1+b1", 1), ("1.1.12", 0), ("1.0.3", 1), ("1.3.0", 0)])
def test_a_runc_that_lets_apps_out_is_named_unless_the_package_is_mended(runc: str, notes: int) -> None:
    told = report(Asked(facts(runc=runc)), "modelyard/inlet:1")  # type: ignore[arg-type]
    assert told.usable
    assert len(told.notes) == notes
