"""What every test may ask for: parts of the machine, scaled counts, and short-lived folders."""

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from parts import engine, kafka, nginx, postgres, postgres_container, registry
from parts.model_modules import imported as model_modules_of

LEFT = pytest.StashKey[int]()
PARTS = ("sandbox", "browser", "docker", "kafka", "postgres", "nginx", "vision", "slow")

# How long an example takes tells how busy the machine is: no test fails for that.
settings.register_profile("modelyard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelyard")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", type=float, default=0.05, help="the part of each large count that is run; `make soak` runs all of it (1)")
    parser.addoption("--database", choices=("sqlite", "postgres"), default="sqlite", help="the database under the stages of tests/service")
    parser.addoption("--wycheproof", metavar="PATH", help="Wycheproof's json_web_signature_test.json; its tests are skipped without it")


def pytest_configure(config: pytest.Config) -> None:
    required = _required(config)
    unknown = required - set(PARTS)
    if unknown:
        raise pytest.UsageError(f"MODELYARD_REQUIRE names unknown parts: {', '.join(sorted(unknown))}. Known: {', '.join(PARTS)}, all.")
    missing = [f"{part}: {why}" for part in sorted(required) if (why := _missing(part))]
    if missing:
        pytest.exit("MODELYARD_REQUIRE names parts that this machine lacks. " + "; ".join(missing), returncode=4)


def pytest_collection_finish() -> None:
    # What was imported stays until the end: a collector that looks through it again and again takes a fifth of the whole run.
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    required = _required(config)
    sandbox = "in the sandbox" if not _missing("sandbox") else "without a sandbox, our own examples only"
    return f"modelyard: parts required: {', '.join(sorted(required)) or 'none'}; apps run {sandbox}; scale {config.getoption('--scale')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    required = _required(config)
    kept, left = [], []
    for item in items:
        parts = {mark.name for mark in item.iter_markers()} & set(PARTS)
        (kept if parts <= required else left).append(item)
    config.stash[LEFT] = len(left)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Where several processes share the work, each of them has left out the same tests, and the one that reports has seen none.
    if output := getattr(session.config, "workeroutput", None):
        output["left"] = session.config.stash[LEFT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LEFT] = getattr(node, "workeroutput", {}).get("left", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left := config.stash.get(LEFT, 0):
        terminalreporter.write_line(f"{left} tests left out: they need a part that MODELYARD_REQUIRE does not name")


@pytest.fixture
def scaled(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """The count to run now of a count that `make soak` runs in full; at least one."""
    scale = float(request.config.getoption("--scale"))
    return lambda full: max(1, int(full * scale))


@pytest.fixture
def wycheproof(request: pytest.FixtureRequest) -> Path:
    """The file of JWS vectors that --wycheproof names."""
    path = request.config.getoption("--wycheproof")
    if path is None:
        pytest.skip("--wycheproof names no file of vectors")
    return Path(path)


def _required(config: pytest.Config) -> set[str]:
    # A part counts as required where the variable or an option names it; the suite never guesses, so that a missing part cannot pass silently.
    named = {word.strip() for word in os.environ.get("MODELYARD_REQUIRE", "").split(",") if word.strip()}
    chosen = {"postgres"} & {config.getoption("--database")}
    return (set(BUILT) if "all" in named else named) | chosen


BUILT = ("sandbox", "browser", "postgres", "kafka", "nginx", "vision", "slow")
"""What `all` stands for: the parts of this version but `docker`, whose engine and images take root and minutes; it is named by itself."""


def _missing(part: str) -> str:
    why = {
        "sandbox": _missing_sandbox,
        "browser": lambda: "" if shutil.which("chromium") else "chromium is not installed",
        "docker": lambda: engine.missing(postgres.IMAGE, kafka.IMAGE, engine.PYTHON, engine.INLET) or registry.missing(),
        "kafka": kafka.missing,
        "postgres": postgres.missing,
        "nginx": nginx.missing,
        "vision": _missing_vision,
        # Every machine has the time; who only wants to know whether a change broke something has not.
        "slow": str,
    }.get(part)
    return why() if why else "no test of this version needs it"


def _missing_vision() -> str:
    absent = [name for name in ("torch", "transformers", "tritonclient") if find_spec(name) is None]
    return f"{', '.join(absent)} not installed: pip install -e '.[dev,vision]'" if absent else ""


def _missing_sandbox() -> str:
    bwrap = shutil.which("bwrap")
    if not bwrap:
        return "bubblewrap is not installed"
    trial = subprocess.run(
        [bwrap, "--unshare-user", "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False, timeout=60
    )
    return "" if trial.returncode == 0 else f"bubblewrap cannot make a sandbox: {trial.stderr.strip()}"


@pytest.fixture
def model_modules() -> Iterator[SimpleNamespace]:
    """What the built-in model apps share, imported."""
    with model_modules_of("mobilenet", "batching", "pictures", "preprocessing", "problems") as modules:
        yield modules


@pytest.fixture(scope="session")
def blank_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file at the newest revision, to be copied: to make one anew takes longer than most tests."""
    from modelyard.store.database import sqlite_url  # noqa: PLC0415 - only these tests need it
    from modelyard.store.migrations import migrate  # noqa: PLC0415 - as the line before

    path = tmp_path_factory.mktemp("blank") / "blank.db"
    migrate(sqlite_url(path))
    return path


@pytest.fixture
def short_folder() -> Iterator[str]:
    """A folder with a path short enough for Unix sockets."""
    import tempfile  # noqa: PLC0415 - only these tests need it

    folder = tempfile.mkdtemp(prefix="my-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """A Postgres server, started once; tests that kill one start their own."""
    with postgres.running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Postgres) -> Iterator[str]:
    """The URL of a fresh database at the newest revision."""
    url = postgres_server.fresh()
    yield url
    postgres_server.drop(url)


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[kafka.Kafka]:
    """A Kafka broker, started once; a test that stops it starts it again."""
    with kafka.running() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_container() -> Iterator[kafka.Kafka]:
    """A Kafka broker in a container, whatever else this machine has."""
    with kafka.contained() as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres_container_server() -> Iterator[postgres.Postgres]:
    """A Postgres server in a container, whatever else this machine has."""
    with postgres_container.contained() as server:
        yield server
