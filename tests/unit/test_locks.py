"""Locks: what the real uv resolves, and what its words mean to the user when it cannot."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from parts import package_index
from uv import find_uv_bin

from modelyard.domain.plan import Plan
from modelyard.run.settings import BuildSettings
from upload_service.builders import BuildError
from upload_service.locks import FRESH_S, SERVER_MARK, Locks, _checked, diagnose, index_words, variables
from upload_service.tools import Tools

HASH = "--hash=sha256:" + "ab" * 32
NOWHERE = "http://ada:s3cret@127.0.0.1:9/simple"


@dataclass
class Lines:
    """The log of a build that nobody ends."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, *lines: str) -> None:
        self.lines += lines

    def check(self) -> None:
        """Go on."""


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    tools = Tools(60)
    yield tools
    tools.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv-cache")


Lock = Callable[..., str]


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture(scope="module")
def is_online(tools: Tools, cache: Path) -> bool:
    """Whether the package index of this machine answers."""
    try:
        return bool(Locks(tools, BuildSettings(), Path(sys.executable), cache).lock(plan("idna==3.10"), Lines()))
    except BuildError as error:
        if error.code != "index_unreachable":
            raise
        return False


@pytest.fixture
def lock(tools: Tools, cache: Path, log: Lines, *, is_online: bool) -> Lock:
    """Makes a lock with the real uv and the real index."""
    if not is_online:
        pytest.skip("the package index cannot be reached from this machine")
    return lambda *lines, server="command": Locks(tools, BuildSettings(), Path(sys.executable), cache).lock(
        plan(*lines, server=server), log
    )


def plan(*lines: str, server: str = "command") -> Plan:
    return Plan(server=server, target="" if server == "command" else "app:app", command=("python", "app.py"), requirements=lines)  # type: ignore[arg-type]


def test_a_lock_pins_the_requirements_and_the_server_with_hashes(lock: Lock) -> None:
    told = lock("flask==3.0.0", server="gunicorn").splitlines()
    names = [line.partition("==")[0] for line in told]

    assert {"flask", "gunicorn", "werkzeug"} <= set(names)
    assert names == sorted(names)
    assert all(" --hash=sha256:" in line for line in told)
    assert "flask==3.0.0" in [line.split(" ")[0] for line in told]


def test_the_same_requirements_give_the_same_lock(lock: Lock) -> None:
    assert lock("idna==3.10", "certifi==2024.8.30") == lock("certifi==2024.8.30", "idna==3.10")


def test_a_package_that_is_not_in_the_index_is_named(lock: Lock) -> None:
    with pytest.raises(BuildError) as refused:
        lock("modelyard-test-of-a-name-that-is-not-there==1")
    assert refused.value.code == "dependency_not_found"
    assert "modelyard-test-of-a-name-that-is-not-there" in str(refused.value)


@pytest.mark.parametrize("lines", [("flask==3.0.0", "werkzeug==2.0"), ("flask==99.0",)])
def test_pins_that_cannot_be_met_are_told_with_uv_s_reason_alone(lock: Lock, lines: tuple[str, ...]) -> None:
    with pytest.raises(BuildError) as refused:
        lock(*lines)
    assert refused.value.code == "dependencies_conflict"
    assert str(refused.value).startswith("The requirements cannot be met together: Because ")
    assert lines[-1] in str(refused.value)


def test_a_package_without_a_wheel_is_named_and_never_built(lock: Lock) -> None:
    with pytest.raises(BuildError) as refused:
        lock("docopt==0.6.2")
    assert refused.value.code == "needs_sdist"
    assert str(refused.value).startswith("docopt==0.6.2 has no wheel")


def test_the_user_s_pins_win_and_the_server_goes_into_a_folder_of_its_own(lock: Lock, log: Lines) -> None:
    own, _, server = lock("gunicorn==19.9.0", server="gunicorn").partition(SERVER_MARK + "\n")

    assert own.startswith("gunicorn==19.9.0 ")
    assert "gunicorn==2" in server
    assert any("a folder of its own" in line for line in log.lines)


def test_requirements_that_were_resolved_lately_are_resolved_again_without_the_index(tools: Tools, log: Lines, tmp_path: Path) -> None:
    now = [0.0]
    with package_index.serving() as index:
        index.add_wheel("speaker", "1.0", {"speaker.py": ""})
        settings = BuildSettings(index_url=index.url)
        locks = Locks(tools, settings, Path(sys.executable), tmp_path / "cache", clock=lambda: now[0])
        first = locks.lock(plan("speaker"), log)
        assert first.startswith("speaker==1.0 --hash=")
        index.add_wheel("speaker", "2.0", {"speaker.py": ""})

        index.asked.clear()
        now[0] = FRESH_S - 1
        assert locks.lock(plan("speaker"), log) == first
        assert index.asked == []
        assert locks.lock(plan("speaker>=2"), log).startswith("speaker==2.0 "), "others are asked for"

        now[0] = FRESH_S
        assert locks.lock(plan("speaker"), log).startswith("speaker==2.0 ")


def test_a_cache_that_was_emptied_is_filled_again(tools: Tools, log: Lines, tmp_path: Path) -> None:
    with package_index.serving() as index:
        index.add_wheel("speaker", "1.0", {"speaker.py": ""})
        locks = Locks(tools, BuildSettings(index_url=index.url), Path(sys.executable), tmp_path / "cache")
        first = locks.lock(plan("speaker"), log)
        shutil.rmtree(tmp_path / "cache")
        log.lines.clear()
        assert locks.lock(plan("speaker"), log) == first
        assert log.lines == [], "the try without the index is nobody's concern"


def test_an_index_that_cannot_be_reached_is_told_and_its_password_is_not(tools: Tools, log: Lines, tmp_path: Path) -> None:
    settings = BuildSettings(index_url=NOWHERE)
    (tmp_path / "requirements.in").write_text("idna\n")
    words = [find_uv_bin(), "pip", "compile", "--no-config", "--quiet", *index_words(settings), "requirements.in"]
    # As `Locks` calls it, but for the pauses between its retries.
    told = variables(settings, tmp_path / "cache", str(tmp_path)) | {"UV_HTTP_RETRIES": "0"}
    outcome = tools.run(words, tmp_path, told, log)

    assert outcome.status != 0
    assert diagnose(outcome.output).code == "index_unreachable"
    assert "s3cret" not in outcome.output
    assert "s3cret" not in "\n".join(log.lines)


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (
            "No solution found when resolving dependencies:\n  ╰─▶ Because a==1 depends\n      on b>=2 ..., unsatisfiable.",
            "dependencies_conflict",
            "together: Because a==1 depends on b>=2",
        ),
        (
            "No solution found:\n  ╰─▶ Because nope was not found in the package registry and you require nope",
            "dependency_not_found",
            "package nope is",
        ),
        ("error: Failed to fetch: `https://x/simple/`\n  Caused by: dns error", "index_unreachable", "cannot be reached"),
        ("error: operation timed out", "index_unreachable", "cannot be reached"),
        ("Because torch==1.0.0 has no wheels with a matching Python ABI tag", "needs_sdist", "torch==1.0.0 has no wheel"),
        ("thread panicked at src/main.rs", "lock_failed", "thread panicked"),
        ("", "lock_failed", "cannot be resolved"),
    ],
)
def test_uv_s_words_of_other_versions_are_understood_as_well(output: str, code: str, words: str) -> None:
    error = diagnose(output)

    assert error.code == code
    assert words in str(error)
    assert error.mend


def test_a_lock_is_written_one_requirement_a_line() -> None:
    assert (
        _checked(f"flask==3.0.0 \\\n    {HASH} \\\n    {HASH}\n\nidna==3.10 {HASH}\n") == f"flask==3.0.0 {HASH} {HASH}\nidna==3.10 {HASH}\n"
    )
    assert _checked("") == ""


@pytest.mark.parametrize(
    "line",
    [
        "flask==3.0.0",
        f"flask @ https://evil.test/flask.whl {HASH}",
        f"git+https://evil.test/x {HASH}",
        f"-e . {HASH}",
        "--index-url https://evil.test/simple",
        f"flask>=3 {HASH}",
        f"../flask==3.0.0 {HASH}",
        f"flask==3.0.0 {HASH} --install-option=x",
        "flask==3.0.0 --hash=md5:00",
        f"flask==3.0.0 {HASH[:-1]}",
        f"flask==3.0.0; python_version<'4' {HASH}",
    ],
)
def test_nothing_but_a_name_a_version_and_hashes_passes_into_a_lock(line: str) -> None:
    with pytest.raises(BuildError) as refused:
        _checked(f"idna==3.10 {HASH}\n{line}\n")
    assert refused.value.code == "lock_refused"


def test_torch_is_taken_from_its_own_index_where_one_is_set() -> None:
    assert index_words(BuildSettings(index_url=None)) == []
    assert index_words(BuildSettings(index_url="https://i/simple", torch_index_url="https://t/cpu")) == [
        "--index",
        "https://t/cpu",
        "--default-index",
        "https://i/simple",
    ]


def test_uv_gets_no_variable_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UV_EXTRA_INDEX_URL", "https://evil.test/simple")
    told = variables(BuildSettings(ca_bundle=Path("/etc/ca.pem")), tmp_path, "/nowhere")

    assert set(told) == {"HOME", "PATH", "LANG", "UV_CACHE_DIR", "UV_NO_PROGRESS", "NO_COLOR", "SSL_CERT_FILE"}
    assert (told["HOME"], told["SSL_CERT_FILE"]) == ("/nowhere", "/etc/ca.pem")
