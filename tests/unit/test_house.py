"""The rules of the house that a program can check: who may import what, how long a module may be, who reads the environment."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("modelyard", "auth_service", "upload_service", "inference_service", "gateway")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "_bundled" not in path.parts)
KAFKA = set((ROOT / "modelyard" / "bus").glob("kafka*.py"))
WEB_FILES = {"routes.py", "pages.py", "schemas.py"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def speaks_web(path: Path) -> bool:
    inside = path.relative_to(ROOT).parts
    return (
        (path.name in WEB_FILES and inside[:2] != ("modelyard", "runtime")) or inside[0] == "gateway" or inside[:2] == ("modelyard", "web")
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_keeps_the_rules(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    names = set(imported(tree))
    assert len(text.splitlines()) <= 300, "a module does one job"
    assert ast.get_docstring(tree), "a module says its job"
    assert "torch" not in names
    assert "docker" not in names or path.name == "docker_engine.py"
    if path not in KAFKA:
        assert "confluent_kafka" not in names, "the broker's client stays within its bus"
    if not speaks_web(path):
        assert not names & {"fastapi", "starlette"}, "the web framework stays at the web's edge"
    if path.name not in {"settings.py", "image_launcher.py", "install_program.py"}:  # the latter two run in containers
        assert not any(isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ" for node in ast.walk(tree)), (
            "settings read the environment"
        )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


@pytest.fixture(scope="module")
def nodes() -> list[tuple[str, ast.AST]]:
    """What calls, assigns and literals there are, each with its module."""
    kinds = ast.Call | ast.Assign | ast.Constant
    trees = ((str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in MODULES)
    return [(name, node) for name, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def test_only_the_relay_publishes(nodes: list[tuple[str, ast.AST]]) -> None:
    callers = {
        name for name, node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "publish"
    }
    assert callers == {"modelyard/store/outbox_relay.py"}


def test_states_are_written_in_one_place_of_each_service(nodes: list[tuple[str, ast.AST]]) -> None:
    writers = {
        name
        for name, node in nodes
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Attribute) and target.attr == "state" for target in node.targets)
    }
    assert writers <= {"upload_service/repository.py", "upload_service/claims.py", "inference_service/repository.py"}


def test_no_event_or_topic_is_named_outside_the_events(nodes: list[tuple[str, ast.AST]]) -> None:
    from modelyard.domain.events import EVENTS, MODEL_EVENTS  # noqa: PLC0415 - the rule is about the text of the others

    words = {MODEL_EVENTS, *(event.wire_name for event in EVENTS)}
    found = {name for name, node in nodes if isinstance(node, ast.Constant) and node.value in words}
    assert found == {"modelyard/domain/events.py"}


def test_every_test_file_has_a_name_of_its_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert [name for name in names if names.count(name) > 1] == [], "two of one name end the collection of both"
