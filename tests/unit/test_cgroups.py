"""Groups over folders that stand in for both versions of cgroup: where they are made, and what is written."""

import os
import random
import subprocess
import threading

import pytest

from modelyard.domain.plan import MIB, Limits
from modelyard.runtime.cgroups import Cgroups, Hierarchy
from modelyard.runtime.group import Group

LIMITS = Limits(memory_bytes=64 * MIB, cpus=0.5, pids=20)


def read(folder):
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_v1_limits_are_written_below_the_platforms_own_group(tmp_path):
    trees = {name: tmp_path / name for name in ("memory", "pids", "cpu")}
    for folder in trees.values():
        folder.mkdir()
    groups = Cgroups(tuple(Hierarchy(folder, frozenset({name})) for name, folder in trees.items()))
    groups.make("a", LIMITS)
    made = f"modelyard/a.{os.getpid()}"
    assert read(trees["memory"] / made)["memory.limit_in_bytes"] == str(64 * MIB)
    assert read(trees["pids"] / made) == {"pids.max": "28"}
    assert read(trees["cpu"] / made) == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}


def test_v2_limits_are_written_into_one_group(tmp_path):
    groups = Cgroups((Hierarchy(tmp_path, frozenset({"unified", "memory", "pids", "cpu"})),))
    groups.make("a", LIMITS)
    told = read(tmp_path / f"modelyard/a.{os.getpid()}")
    assert told["memory.max"] == str(64 * MIB)
    assert (told["memory.swap.max"], told["memory.oom.group"], told["pids.max"], told["cpu.max"]) == ("0", "1", "28", "50000 100000")


def test_every_start_has_its_group_though_other_platforms_end_meanwhile(tmp_path):
    groups, theirs = (Cgroups((Hierarchy(tmp_path, frozenset({"freezer"})),)) for _ in range(2))
    over = threading.Event()

    def end_again_and_again():
        pauses = random.Random(1)
        while not over.wait(pauses.uniform(0, 0.0003)):
            theirs.close()

    other = threading.Thread(target=end_again_and_again)
    other.start()
    try:
        for _ in range(2000):
            group = groups.make("a", LIMITS)
            assert (tmp_path / f"modelyard/a.{os.getpid()}").is_dir()
            group.remove()
    finally:
        over.set()
        other.join()


def test_what_is_soft_is_named():
    assert Cgroups().notes == ("limits on memory, pids, cpu are soft: no cgroup can be made for them here",)


def test_trees_are_found_as_the_kernel_lists_them(tmp_path):
    (tmp_path / "cgroup").write_text("4:memory:/mine\n3:pids:/\n0::/mine\n")
    for folder in ("memory/mine", "pids", "unified/mine"):
        (tmp_path / folder / "modelyard").mkdir(parents=True)
        (tmp_path / folder / "modelyard/cgroup.procs").touch()
    lines = [
        f"30 20 0:1 / {tmp_path}/memory rw - cgroup cgroup rw,memory",
        f"31 20 0:2 / {tmp_path}/pids rw - cgroup cgroup rw,pids",
        f"32 20 0:3 / {tmp_path}/unified rw - cgroup2 cgroup2 rw",
        "33 20 0:4 / /tmp rw - tmpfs tmpfs rw",
    ]
    (tmp_path / "mountinfo").write_text("\n".join(lines) + "\n")
    groups = Cgroups.found(tmp_path)
    groups.make("a", LIMITS)
    assert groups.notes == ("limits on cpu are soft: no cgroup can be made for them here",)
    assert (tmp_path / f"memory/mine/modelyard/a.{os.getpid()}").is_dir()
    assert (tmp_path / f"unified/mine/modelyard/a.{os.getpid()}").is_dir()


def test_groups_of_a_platform_that_is_gone_are_swept(tmp_path):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    mine, theirs = tmp_path / f"modelyard/a.{os.getpid()}", tmp_path / f"modelyard/a.{gone.pid}"
    for folder in (mine, theirs):
        folder.mkdir(parents=True)
    Cgroups((Hierarchy(tmp_path, frozenset({"memory"})),))
    assert mine.is_dir()
    assert not theirs.exists()


@pytest.mark.parametrize(("folders", "name"), [({"memory": "m"}, "memory.oom_control"), ({"memory": "m", "unified": "m"}, "memory.events")])
def test_kills_for_want_of_memory_are_counted(tmp_path, folders, name):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / name).write_text("under_oom 0\noom 7\noom_kill 2\n")
    assert Group({key: tmp_path / value for key, value in folders.items()}).oom_kills() == 2


def test_no_group_counts_nothing_and_freezes_nothing():
    group = Group()
    assert (group.oom_kills(), group.memory_bytes(), group.freeze(), group.counts_memory) == (0, None, False, False)
    group.remove()
