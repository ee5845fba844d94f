"""What every builder promises, over environments of processes and over images."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from builder_grounds import APP, Ground, Lines, plan, process_ground

from modelyard.domain.ids import instance_name
from modelyard.domain.plan import Plan
from modelyard.runtime.runtime import ActualState
from upload_service.builders import BuildCancelledError, BuildError, Built

GROUNDS = ["process", pytest.param("docker", marks=pytest.mark.docker), pytest.param("docker-without-loads", marks=pytest.mark.docker)]
QUICK = ["process", pytest.param("docker", marks=pytest.mark.docker)]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ground]]:
    """Each ground once for the module, made when it is first asked for."""
    made: dict[str, Ground] = {}
    with _closing() as held:
        made["_"] = held  # type: ignore[assignment]
        yield made


def _closing():  # type: ignore[no-untyped-def]
    from contextlib import ExitStack  # noqa: PLC0415

    return ExitStack()


@pytest.fixture
def ground(request: pytest.FixtureRequest, grounds: dict[str, Ground], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    kind = request.param
    if kind not in grounds:
        grounds[kind] = grounds["_"].enter_context(_made(kind, tmp_path_factory.mktemp(kind)))  # type: ignore[attr-defined]
    found = grounds[kind]
    found.log = Lines()
    yield found
    for version_id in found.builder.code():
        found.builder.remove_code(version_id)
    for reference in found.builder.references():
        found.builder.remove(reference)
    found.builder.sweep()


def _made(kind: str, folder: Path):  # type: ignore[no-untyped-def]
    if kind == "process":
        return process_ground(folder)
    from docker_builder_ground import docker_ground  # noqa: PLC0415 - its library is there only where an engine is

    return docker_ground(folder, loads=kind == "docker")


every = pytest.mark.parametrize("ground", GROUNDS, indirect=True)
quick = pytest.mark.parametrize("ground", QUICK, indirect=True)


def built(ground: Ground, told: Plan, version_id: str = "v1", code: str = APP) -> Built:
    """A version built up to its verification."""
    source = ground.source({"app.py": code}, version_id)
    ground.builder.unpack(source, told, ground.log)
    lock = ground.builder.lock(told, ground.log)
    reference = ground.builder.reference(lock, source)
    found = ground.builder.install(reference, lock, ground.log)
    return ground.builder.package(source, found, told, ground.log)


@every
def test_a_version_is_built_and_boots(ground: Ground) -> None:
    told = plan("greeting==2.0")
    made = built(ground, told)
    boot = ground.builder.verify(ground.source({"app.py": APP}), made, told, ground.log)

    assert boot.port > 0
    assert boot.boot_s > 0
    assert boot.peak_bytes > 0
    assert made.size_bytes > 0
    assert ground.is_clean()
    assert ground.runtime.actual() == []
    assert ground.builder.code() == ["v1"]
    assert ground.builder.references() == [made.reference]
    assert any("greeting==2.0" in line for line in ground.log.lines), "the tools' lines are in the log"


@every
def test_the_same_lock_is_one_environment_and_another_is_another(ground: Ground) -> None:
    one, two = built(ground, plan("greeting==1.0"), "v1"), built(ground, plan("greeting==1.0"), "v2")
    other = built(ground, plan("greeting==2.0"), "v3")

    assert one.reference == two.reference != other.reference
    assert sorted(ground.builder.references()) == sorted([one.reference, other.reference])
    assert ground.fresh().references() == ground.builder.references()


@quick
def test_the_second_build_finds_what_the_first_one_made(ground: Ground) -> None:
    built(ground, plan("greeting==1.0"), "v1")
    ground.log = Lines()
    built(ground, plan("greeting==1.0"), "v2")

    assert any("there already" in line for line in ground.log.lines)


@quick
def test_what_is_removed_is_told_in_bytes_and_once(ground: Ground) -> None:
    made = built(ground, plan("greeting==1.0"))
    code_bytes = ground.builder.remove_code("v1")
    environment_bytes = ground.builder.remove(made.reference)
    ground.builder.sweep()

    assert code_bytes >= len(APP)
    assert code_bytes + environment_bytes >= made.size_bytes > 0
    assert (ground.builder.remove_code("v1"), ground.builder.remove(made.reference)) == (0, 0)
    assert (ground.builder.code(), ground.builder.references()) == ([], [])
    assert ground.is_clean()


@quick
@pytest.mark.parametrize("word", ["Installed", "greeting==1.0"])
def test_a_build_that_must_end_leaves_nothing(ground: Ground, word: str) -> None:
    told = plan("greeting==1.0")
    source = ground.source({"app.py": APP})
    lock = ground.builder.lock(told, ground.log)
    ground.log.ends_at = word

    def install() -> None:
        ground.builder.install(ground.builder.reference(lock, source), lock, ground.log)
        ground.log.check()  # its last line may have come when there was nothing left to end

    with pytest.raises(BuildCancelledError):
        install()
    ground.builder.sweep()

    assert ground.is_clean()


@quick
@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        ("import nowhere", "missing_package", "'nowhere'"),
        ("raise SystemExit(3)", "crashed_at_start", "exit status 3"),
        ("import time; time.sleep(600)", "never_ready", "did not answer"),
        ("kept = bytearray(b'x') * 900_000_000", "oom_killed", "MiB"),
    ],
)
def test_an_app_that_does_not_boot_is_told_why(ground: Ground, code: str, reason: str, words: str) -> None:
    if reason == "oom_killed" and ground.runtime.name.startswith("process"):
        pytest.skip("without a sandbox no memory is limited")
    limits = {"start_deadline_s": 3.0 if reason == "never_ready" else 60.0, "memory_bytes": 64 * 1024 * 1024}
    told = plan("greeting==1.0", limits=limits)
    made = built(ground, told, code=code)
    with pytest.raises(BuildError) as refused:
        ground.builder.verify(ground.source({"app.py": code}), made, told, ground.log)

    assert refused.value.code == reason
    assert words in refused.value.message
    assert ground.is_clean()
    assert ground.runtime.actual() == []


@quick
def test_what_a_version_prints_while_it_fails_is_in_the_log(ground: Ground) -> None:
    code = "print('what a pity'); raise SystemExit(1)"
    told = plan("greeting==1.0")
    made = built(ground, told, code=code)
    with pytest.raises(BuildError):
        ground.builder.verify(ground.source({"app.py": code}), made, told, ground.log)

    assert "app: what a pity" in ground.log.lines


@quick
@pytest.mark.parametrize(
    ("line", "reason"),
    [("only-source==1.0", "needs_sdist"), ("nobody-has-it==1.0", "dependency_not_found"), ("greeting==9.0", "dependencies_conflict")],
)
def test_requirements_that_cannot_be_met_are_told(ground: Ground, line: str, reason: str) -> None:
    with pytest.raises(BuildError) as refused:
        ground.builder.lock(plan(line), ground.log)
    assert refused.value.code == reason


@quick
def test_a_package_whose_bytes_changed_since_the_lock_is_refused(ground: Ground) -> None:
    told = plan("greeting==1.0")
    source = ground.source({"app.py": APP})
    lock = ground.builder.lock(told, ground.log)
    forged = lock.replace("--hash=sha256:" + lock.split("--hash=sha256:")[1][:64], "--hash=sha256:" + "0" * 64)
    reference = ground.builder.reference(forged, source)
    with pytest.raises(BuildError) as refused:
        ground.builder.install(reference, forged, ground.log)

    ground.builder.sweep()
    assert refused.value.code == "install_failed"
    assert reference not in ground.builder.references()
    assert ground.is_clean()


@quick
def test_no_code_of_a_package_runs_while_it_is_installed(ground: Ground) -> None:
    canary = ground.folder / "fired"
    fires = f"import pathlib; [p.write_text('fired') for p in (pathlib.Path({str(canary)!r}), pathlib.Path('/out/env/fired'))]\n"
    ground.index.add_wheel("firing", "1.0", {"firing.pth": fires, "firing.py": "", "sitecustomize.py": fires})
    told = plan("firing==1.0", "greeting==1.0")
    built(ground, told)

    assert not canary.exists()
    assert "fired" not in " ".join(ground.log.lines)


@quick
def test_modules_of_another_python_are_left_as_they_are(ground: Ground) -> None:
    old = {"oldest/__init__.py": "", "oldest/of_two.py": "print 'two'\n", "oldest/template.py": "import {{ name }}\n"}
    ground.index.add_wheel("oldest", "1.0", old)
    told = plan("oldest==1.0", "greeting==1.0")
    code = f"import oldest, greeting\nassert greeting.__spec__.cached and __import__('os').path.exists(greeting.__spec__.cached)\n{APP}"
    made = built(ground, told, code=code)

    assert ground.builder.verify(ground.source({"app.py": code}), made, told, ground.log).port > 0


@quick
def test_what_a_call_starts_is_made_and_not_started(ground: Ground) -> None:
    told = plan("greeting==1.0")
    made = built(ground, told)
    source = ground.source({"app.py": APP})
    boot = ground.builder.verify(source, made, told, ground.log)
    container_id = ground.builder.settle(source, made, boot, told, ground.log)

    assert ground.is_clean()
    if container_id is None:
        assert ground.runtime.actual() == []
    else:
        (waiting,) = ground.runtime.actual()
        assert (waiting.name, waiting.state, waiting.container_id) == (instance_name("v1"), ActualState.CREATED, container_id)
    ground.builder.remove_code("v1")
    assert ground.runtime.actual() == []


@quick
def test_what_is_built_is_counted_and_a_cache_is_emptied(ground: Ground) -> None:
    before = ground.builder.usage()
    made = built(ground, plan("greeting==1.0"))
    after = ground.builder.usage()

    assert set(after) == {"code", "packages", "package cache"}
    assert after["code"] + after["packages"] - before["code"] - before["packages"] >= made.size_bytes > 0
    assert ground.builder.empty_cache() >= after["package cache"] > 0
    assert ground.builder.usage()["package cache"] == 0
    built(ground, plan("greeting==2.0"), "v2")
