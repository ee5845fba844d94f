"""The page on settings names every setting with its default, and nothing else."""

import os
import re
from pathlib import Path

import pytest

from modelyard.run.settings import explain, load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
TOLD = dict(re.findall(r"^\| `([a-z][a-z_.]+)` \| (.*?) \|", PAGE, re.MULTILINE))
OF_THIS_MACHINE = {"data", "build.index_url", "build.ca_bundle"}


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every setting's value where nothing is said."""
    for variable in [each for each in os.environ if each.startswith("MODELYARD_")]:
        monkeypatch.delenv(variable)
    return {each.name: each.value for each in explain(load_settings(tmp_path)) if each.source in {"default", "flag"} or each.name == "data"}


def test_every_setting_is_in_a_table_and_no_other_is(defaults: dict[str, str]) -> None:
    assert set(TOLD) == set(defaults)


def test_numbers_and_words_are_the_defaults(defaults: dict[str, str]) -> None:
    for name, value in defaults.items():
        cell = TOLD[name].split(";")[0].split(" (")[0].replace("`", "")
        if name in OF_THIS_MACHINE or value in {"", "()"}:
            continue
        expected = value.lower().removesuffix(".0").translate(str.maketrans("", "", "()'"))
        assert cell == expected, name
