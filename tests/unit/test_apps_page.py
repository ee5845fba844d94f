"""The page on apps names every key of `modelyard.toml` with its default, every reason of a failed build, and nothing else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from modelyard.domain.plan import Idle, Limits
from modelyard.run.settings import CeilingSettings
from upload_service.app_settings import AppSettings, Ceilings, limits_within, read_app_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "apps.md").read_text()
TOLD = {tuple(key.split("] ")): cell for key, cell in re.findall(r"^\| `\[(\w+\] \w+)` \| (.*?) \|", PAGE, re.MULTILINE)}


def test_every_key_is_in_the_table_and_no_other_is() -> None:
    tables = {name: type(table) for name, table in AppSettings()}
    assert set(TOLD) == {(name, key) for name, table in tables.items() for key in table.model_fields}


def test_what_the_table_calls_the_default_is_what_an_app_without_the_file_gets() -> None:
    limits = "\n".join(f"{key} = {TOLD[table, key].strip('`')}" for table, key in TOLD if table == "limits")
    assert limits_within(read_app_settings(f"[limits]\n{limits}\n"), Ceilings(**CeilingSettings().model_dump())) == Limits()
    assert Idle() == Idle(**{key: float(TOLD[table, key]) for table, key in TOLD if table == "idle"})


def reasons() -> Iterator[str]:
    """What builds fail with: the codes that stand in the calls of these two."""
    for path in (ROOT / "upload_service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"BuildError", "Reading"}:
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    yield str(code.value)


def test_every_reason_of_a_failed_build_is_in_the_table_and_no_other_is() -> None:
    table = PAGE.partition("## When a build fails")[2].partition("\n## ")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(first))) == set(reasons())
