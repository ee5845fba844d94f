"""What the builder of images promises beside what every builder does: the same bytes, nothing of the build in them, nothing left."""

import errno
import fcntl
import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builder_grounds import APP, DEADLINE_S, Ground, Lines, plan
from docker_builder_ground import docker_ground
from parts.engine import INLET

from modelyard.domain.plan import Plan
from modelyard.runtime.engine_names import BUILD, ROLE, YARD, code_image, environment_image, label
from upload_service.base_image import look
from upload_service.build_locks import BuildLocks
from upload_service.builders import BuildError
from upload_service.docker_builder import DockerBuilder
from upload_service.docker_engine import DockerEngine
from upload_service.throw_away import Program, ThrowAways

pytestmark = pytest.mark.docker

PASSWORD, BASE = "canary-of-the-index-3f9c", "canary-of-the-path-71aa"
LARGE_BYTES = 300_000_000
"""Three times as much does not fit into the memory that a container has for it."""
AUTHORITY = "canary of the authority 5d1e"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A yard whose index has a password, and whose certificates are a canary."""
    folder = tmp_path_factory.mktemp("docker")
    bundle = folder / "ca.pem"
    bundle.write_text(f"# {AUTHORITY}\n" + Path("/etc/ssl/certs/ca-certificates.crt").read_text())
    with docker_ground(folder, base=BASE, password=PASSWORD, ca_bundle=bundle) as made:
        yield made


@pytest.fixture(autouse=True)
def cleared(ground: Ground) -> Iterator[None]:
    ground.log = Lines()
    yield
    for version_id in ground.builder.code():
        ground.builder.remove_code(version_id)
    for reference in ground.builder.references():
        ground.builder.remove(reference)
    ground.builder.sweep()
    assert ground.is_clean()


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    made = DockerEngine()
    yield made
    made.close()


def yard(ground: Ground) -> str:
    assert isinstance(ground.builder, DockerBuilder)
    return ground.builder.yard


def made(ground: Ground, told: Plan, version_id: str = "v1", number: int = 1, code: str = APP) -> str:
    """Build a version's image, and return the reference of its environment."""
    source = ground.source({"app.py": code, "sub/data.txt": "pears"}, version_id, number)
    lock = ground.builder.lock(told, ground.log)
    reference = ground.builder.reference(lock, source)
    built = ground.builder.install(reference, lock, ground.log)
    ground.builder.package(source, built, told, ground.log)
    return reference


def ids(engine: DockerEngine, ground: Ground, reference: str, version_id: str = "v1") -> tuple[str, ...]:
    """Of the environment's image and the version's, and of all their layers."""
    environment, code = engine.image(environment_image(yard(ground), reference)), engine.image(code_image(yard(ground), version_id))
    assert environment
    assert code
    return (environment["Id"], code["Id"], *code["RootFS"]["Layers"])


def remove_caches(engine: DockerEngine, ground: Ground) -> None:
    """Remove what may lie in the engine between two builds."""
    assert ground.is_clean()
    # An engine lets go of a container's volumes a moment after it has listed that container for the last time: this waits for that.
    ground.builder.empty_cache()
    for each in engine.volumes([label(YARD, yard(ground))]):
        engine.remove_volume(each["Name"])


def test_the_same_lock_and_code_are_the_same_image_with_every_cache_removed(ground: Ground, engine: DockerEngine) -> None:
    told = plan("greeting==2.0")
    first = ids(engine, ground, made(ground, told))
    ground.builder.remove_code("v1")
    for reference in ground.builder.references():
        ground.builder.remove(reference)
    remove_caches(engine, ground)
    ground.log = Lines()

    assert ids(engine, ground, made(ground, told)) == first
    assert any("cache lacks" in line for line in ground.log.lines), "the packages were fetched again"


def test_versions_with_one_lock_share_its_layer(ground: Ground, engine: DockerEngine) -> None:
    told = plan("greeting==1.0")
    one = ids(engine, ground, made(ground, told, "v1", 1), "v1")
    two = ids(engine, ground, made(ground, told, "v2", 2, APP + "# changed\n"), "v2")

    assert one[0] == two[0]
    assert one[1] != two[1]
    assert one[2:-1] == two[2:-1]


def test_nothing_of_the_build_is_in_the_image(ground: Ground, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CANARY", "canary-of-the-process-88b2")
    reference = made(ground, plan("greeting==2.0"))
    tags = [code_image(yard(ground), "v1"), environment_image(yard(ground), reference)]
    canaries = [PASSWORD, BASE, AUTHORITY, "canary-of-the-process-88b2", f":{ground.index.port}", ".cache", "uv-cache", str(ground.folder)]
    history = subprocess.run(["docker", "history", "--no-trunc", tags[0]], capture_output=True, text=True, check=True).stdout
    config = json.dumps([engine.image(tag) for tag in tags])

    assert not [canary for canary in canaries if canary in history + config.replace(str(tags), "")]
    saved = subprocess.run(["docker", "save", *tags], capture_output=True, check=True).stdout
    base = engine.image("python:3.11-slim-bookworm")
    assert base
    seen = 0
    with tarfile.open(fileobj=io.BytesIO(saved)) as whole:
        for member in whole:
            content = whole.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
            if f"sha256:{hashlib.sha256(content).hexdigest()}" in base["RootFS"]["Layers"]:
                continue
            seen += member.name.endswith("layer.tar") and member.isreg()
            assert not [canary for canary in canaries if canary.encode() in content], member.name
    assert seen == 2


def test_the_image_runs_by_itself_as_nobody_and_says_so(ground: Ground, engine: DockerEngine) -> None:
    made(ground, plan("greeting==1.0"))
    tag = code_image(yard(ground), "v1")
    ask = "import urllib.request as r, time\nfor _ in range(200):\n try: print(r.urlopen('http://127.0.0.1:8080/').read().decode()); break\n except OSError: time.sleep(0.05)"
    image = engine.image(tag)
    assert image
    assert (image["Config"]["User"], image["Created"]) == ("65532:65532", "1970-01-01T00:00:00Z")
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == ground.label
    for flags in ([], ["--read-only"], ["--read-only", "--tmpfs", "/app:rw,exec,mode=1777,size=8m"]):
        started = ["docker", "run", "--rm", "-d", "--network", "none", "--label", label(YARD, yard(ground)), *flags, tag]
        container = subprocess.run(started, capture_output=True, text=True, check=True).stdout.strip()
        try:
            told = subprocess.run(["docker", "exec", container, "python3", "-c", ask], capture_output=True, text=True, check=True).stdout
            assert told == "one\n", flags
        finally:
            engine.remove(container)


def test_people_s_names_lead_to_the_version_that_serves_and_go_with_it(ground: Ground, engine: DockerEngine) -> None:
    told = plan("greeting==1.0")
    made(ground, told, "v1", 1)
    made(ground, told, "v2", 2, APP + "# changed\n")
    names = [f"ml-models/{ground.label}:{tag}" for tag in ("latest", "v1", "v2")]
    found = {name: (engine.image(name) or {"Id": ""})["Id"] for name in names[1:]}
    for version_id, name in (("v1", names[1]), ("v2", names[2])):
        ground.builder.serve(ground.label, version_id)
        assert (engine.image(names[0]) or {"Id": ""})["Id"] == found[name]
    ground.builder.remove_code("v2")
    assert [engine.image(name) is not None for name in names] == [False, True, False]


def test_a_name_that_another_yard_has_taken_since_is_left_to_it(ground: Ground, engine: DockerEngine) -> None:
    told = plan("greeting==1.0")
    made(ground, told, "v1", 1)
    ground.builder.serve(ground.label, "v1")
    name, theirs = f"ml-models/{ground.label}:latest", "modelyard-code/ffffffffffff:theirs"
    engine.tag("python:3.11-slim-bookworm", theirs)
    engine.tag(theirs, name)
    try:
        ground.builder.serve(ground.label, None)
        ground.builder.remove_code("v1")
        assert engine.image(name) == engine.image(theirs)
    finally:
        engine.untag(name)
        engine.untag(theirs)


def test_what_a_dead_builder_left_is_swept_and_what_a_living_one_uses_is_not(ground: Ground, engine: DockerEngine) -> None:
    dead = {YARD: yard(ground), ROLE: "build", BUILD: "build-of-one-that-died"}
    foreign = {YARD: "ffffffffffff", ROLE: "build", BUILD: "build-of-one-that-died"}
    names = [f"modelyard-test-{yard(ground)}-{kind}" for kind in ("dead", "foreign", "unlabelled")]
    try:
        for name, labels in zip(names, (dead, foreign, {}), strict=True):
            engine.volume(name, labels)
            engine.create(name, {"Image": "python:3.11-slim-bookworm", "Cmd": ["true"], "Labels": labels})
        assert ground.builder.sweep() == 2
        assert [engine.inspect(name) is not None for name in names] == [False, True, True]

        told = plan("greeting==1.0")
        swept: list[int] = []
        other = ground.fresh()

        class Sweeping(Lines):
            """Another builder sweeps at every line."""

            def __call__(self, *lines: str) -> None:
                super().__call__(*lines)
                swept.append(other.sweep())

        ground.log = Sweeping()
        made(ground, told)
        assert swept
        assert not any(swept)
    finally:
        for name in names:
            engine.remove(name)
            engine.remove_volume(name)


def test_what_a_first_boot_printed_goes_though_its_builder_died_and_its_pair_is_gone(ground: Ground) -> None:
    output, locks = ground.folder / "output", ground.folder / "builds" / "locks"
    names = ["verify-of-one-that-died", "verify-of-one-that-lives"]
    for name in names:
        (output / f"{name}.log").write_text("its last words")
        (locks / f"{name}.lock").touch()
    with (locks / f"{names[1]}.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ground.builder.sweep()
        left = [(output / f"{name}.log").exists() for name in names], [(locks / f"{name}.lock").exists() for name in names]
    (output / f"{names[1]}.log").unlink()
    assert left == ([False, True], [False, True])


@pytest.mark.parametrize("user", ["65532:65532"])
def test_the_phases_are_closed_in_and_only_the_first_has_a_network(ground: Ground, engine: DockerEngine, user: str) -> None:
    seen: dict[str, dict[str, object]] = {}

    class Looking(Lines):
        """Looks at the containers of the build at every line."""

        def __call__(self, *lines: str) -> None:
            super().__call__(*lines)
            for each in engine.containers([label(YARD, yard(ground)), label(ROLE, "build")]):
                found = engine.inspect(each["Id"])
                if found and found["Config"]["Cmd"][4] in {"fetch", "install"}:  # what asked the base image may still be there
                    seen[found["Config"]["Cmd"][4]] = dict(found)

    remove_caches(engine, ground)
    ground.log = Looking()
    made(ground, plan("greeting==1.0"))

    assert set(seen) == {"fetch", "install"}
    for phase, found in seen.items():
        host = found["HostConfig"]
        assert isinstance(host, dict)
        assert host["NetworkMode"] == ("host" if phase == "fetch" else "none")
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"], host["Binds"]) == (True, ["ALL"], False, None)
        assert "no-new-privileges" in host["SecurityOpt"]
        assert found["Config"].get("NetworkDisabled", False) == (phase == "install")  # type: ignore[attr-defined]
        assert found["Config"]["User"] == user  # type: ignore[index]
        assert {mount["Type"] for mount in found["Mounts"]} == {"volume"}  # type: ignore[attr-defined]


def test_what_runs_without_a_network_is_in_one_of_its_own_that_holds_nothing(ground: Ground, engine: DockerEngine, tmp_path: Path) -> None:
    asks = (
        "import os, socket\nnames = [name for _, name in socket.if_nameindex()]\nprint(os.readlink('/proc/self/ns/net'), *names)\n"
        # Nothing is dialled where there might be a way to it.
        "assert names == ['lo'] and len(open('/proc/net/route').readlines()) <= 1\n"
        "for address in ('127.0.0.1', '10.0.0.1'):\n"
        " try: socket.create_connection((address, 9), 1)\n"
        " except OSError as error: print(error.errno)\n"
    )
    throw_aways = ThrowAways(engine, BuildLocks(tmp_path), yard(ground), DEADLINE_S)
    try:
        with throw_aways.made(ground.log) as parts:
            outcome = parts.run(Program("python:3.11-slim-bookworm", ("python3", "-I", "-S", "-c", asks)), ground.log)
    finally:
        throw_aways.close()
    (own, *interfaces), *errors = (line.split() for line in outcome.output.splitlines())
    assert own != str(Path("/proc/self/ns/net").readlink())
    assert interfaces == ["lo"]
    assert errors == [[str(errno.ECONNREFUSED)], [str(errno.ENETUNREACH)]]


def test_packages_that_find_no_room_in_memory_or_are_no_python_are_installed_all_the_same(ground: Ground, engine: DockerEngine) -> None:
    ground.index.add_wheel("large", "1.0", {"large/__init__.py": "WORD = 'large'\n", "large/zeros": "0" * LARGE_BYTES})
    ground.index.add_wheel("templates", "1.0", {"templates/__init__.py": "", "templates/one.py": "{{ name }} = class\n"})
    reference = made(ground, plan("large==1.0", "templates==1.0"))
    image, base = engine.image(environment_image(yard(ground), reference)), engine.image("python:3.11-slim-bookworm")
    assert image
    assert base
    assert image["Size"] - base["Size"] > LARGE_BYTES


def test_a_container_that_is_killed_while_it_installs_fails_the_build_and_nothing_else(ground: Ground, engine: DockerEngine) -> None:
    class Killing(Lines):
        """Kills every container of the build at its first line."""

        def __call__(self, *lines: str) -> None:
            super().__call__(*lines)
            for each in engine.containers([label(YARD, yard(ground)), label(ROLE, "build")]):
                if "install" in each["Command"]:
                    engine.kill(each["Id"], "KILL")

    ground.index.add_wheel("slow", "1.0", {f"slow/m{number}.py": f"def f{number}(a): return a\n" * 1_000 for number in range(60)})
    made(ground, plan("slow==1.0"))  # so that the cache has it
    ground.builder.remove_code("v1")
    for reference in ground.builder.references():
        ground.builder.remove(reference)
    ground.log = Killing()
    with pytest.raises(BuildError) as failed:
        made(ground, plan("slow==1.0"))
    assert failed.value.code == "install_failed"
    assert (ground.builder.references(), ground.is_clean()) == ([], True)


def test_what_is_counted_is_what_the_engine_counts(ground: Ground, engine: DockerEngine) -> None:
    one, two = made(ground, plan("greeting==1.0"), "v1", 1), made(ground, plan("greeting==2.0"), "v2", 2)
    base = engine.image("python:3.11-slim-bookworm")
    assert base
    counted = 0
    for tag in (environment_image(yard(ground), one), environment_image(yard(ground), two)):
        image = engine.image(tag)
        assert image
        counted += image["Size"] - base["Size"]
    code = 0
    for version_id, reference in (("v1", one), ("v2", two)):
        image, below = engine.image(code_image(yard(ground), version_id)), engine.image(environment_image(yard(ground), reference))
        assert image
        assert below
        code += image["Size"] - below["Size"]

    told = ground.builder.usage()
    assert (told["packages"], told["code"]) == (counted, code)


def test_a_base_image_is_asked_what_it_is(engine: DockerEngine) -> None:
    found = look(engine, "python:3.11-slim-bookworm")
    assert found
    assert found.python[:2] == (3, 11)
    assert found.uv_platform.endswith(f"-manylinux_2_{found.uv_platform.rpartition('_')[2]}")
    assert set(found.interpreters) >= {found.executable}
    assert look(engine, "modelyard-test-of-a-name-that-is-not-there:1") is None
    with pytest.raises(BuildError) as refused:
        look(engine, INLET)
    assert (refused.value.code, "python3" in refused.value.message) == ("base_image_unfit", True)


def test_builds_of_one_lock_at_once_make_one_environment(ground: Ground, engine: DockerEngine) -> None:
    told = plan("greeting==2.0")
    logs = [Lines() for _ in range(4)]

    def build(number: int) -> str:
        builder, source = ground.fresh(), ground.source({"app.py": APP}, f"v{number}", number + 1)
        lock = builder.lock(told, logs[number])
        reference = builder.reference(lock, source)
        builder.package(source, builder.install(reference, lock, logs[number]), told, logs[number])
        return reference

    with ThreadPoolExecutor(4) as pool:
        (reference,) = set(pool.map(build, range(4)))
    assert ground.builder.references() == [reference]
    assert ground.builder.code() == ["v0", "v1", "v2", "v3"]
    assert sum("there already" in line for log in logs for line in log.lines) == 3, "three waited for the first"
    assert len({ids(engine, ground, reference, f"v{number}")[-2] for number in range(4)}) == 1


def test_a_builder_that_is_killed_leaves_nothing_that_a_sweep_does_not_find(ground: Ground, scaled: Callable[[int], int]) -> None:
    archive = ground.source({"app.py": APP}, "killed").archive
    words = [
        sys.executable,
        str(Path(__file__).with_name("killed_builder.py")),
        str(ground.folder),
        yard(ground),
        ground.index.url,
        str(archive),
    ]
    chance, between = random.Random(6), threading.Event()
    for _ in range(scaled(40)):
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"building\n"
            between.wait(chance.uniform(0, 4))  # the moment of the kill is what is random
            process.kill()
        made(ground, plan("greeting==2.0"), "after")

    def swept() -> bool:
        for version_id in ground.builder.code():
            ground.builder.remove_code(version_id)
        for reference in ground.builder.references():
            ground.builder.remove(reference)
        ground.builder.sweep()
        return not [*ground.left(), *ground.builder.code(), *ground.builder.references()]

    deadline = time.monotonic() + DEADLINE_S
    while not swept():  # a load, or a container's start, completes after its client died
        assert time.monotonic() < deadline, ground.left()
        between.wait(0.2)


def test_a_python_that_the_base_image_has_not_is_told(ground: Ground) -> None:
    with pytest.raises(BuildError) as refused:
        ground.builder.lock(plan("greeting==1.0", python="3.99"), ground.log)
    assert (refused.value.code, "3.99" in refused.value.message, "3.11" in refused.value.mend) == ("python_version", True, True)
