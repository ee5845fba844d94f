"""The page on apps names every key of `modelyard.toml` with its default, and nothing else."""

import re
from pathlib import Path

from modelyard.domain.plan import Idle, Limits
from modelyard.run.settings import CeilingSettings
from upload_service.app_settings import AppSettings, Ceilings, limits_within, read_app_settings

PAGE = (Path(__file__).parents[2] / "docs" / "apps.md").read_text()
TOLD = {tuple(key.split("] ")): cell for key, cell in re.findall(r"^\| `\[(\w+\] \w+)` \| (.*?) \|", PAGE, re.MULTILINE)}


def test_every_key_is_in_the_table_and_no_other_is() -> None:
    tables = {name: type(table) for name, table in AppSettings()}
    assert set(TOLD) == {(name, key) for name, table in tables.items() for key in table.model_fields}


def test_what_the_table_calls_the_default_is_what_an_app_without_the_file_gets() -> None:
    limits = "\n".join(f"{key} = {TOLD[table, key].strip('`')}" for table, key in TOLD if table == "limits")
    assert limits_within(read_app_settings(f"[limits]\n{limits}\n"), Ceilings(**CeilingSettings().model_dump())) == Limits()
    assert Idle() == Idle(**{key: float(TOLD[table, key]) for table, key in TOLD if table == "idle"})
