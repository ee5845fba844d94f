"""The page on the API names every call, every state and every status, and nothing else."""

import re
from pathlib import Path

from stage import Stage

from modelyard.cli.failures import ExitCode
from modelyard.domain.states import BuildState, InstanceState, VersionState
from modelyard.web.problems import STATUS

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
OWN = {("ANY", "/m/{username}/{model_name}/{path}")}
"""What goes past the web framework, to an app."""
TO_PAGES = {"/open/{label}"}
"""What only redirects of our own lead to."""


def told() -> set[tuple[str, str]]:
    calls = set()
    for cell in re.findall(r"^\| (`[A-Z]+.*?) \|", PAGE, re.MULTILINE):
        methods: list[str] = []
        for method, path in re.findall(r"`([A-Z]+)(?: (/[^`]*))?`", cell):
            methods.append(method)
            if path:
                calls |= {(each, path) for each in methods}
                methods = []
    return calls


def test_every_call_is_in_a_table_and_no_other_is(stage: Stage) -> None:
    described = stage.http.get("/openapi.json").json()["paths"]
    ours = {(method.upper(), path) for path, methods in described.items() for method in methods if path not in TO_PAGES}
    assert told() - OWN == ours


def test_every_status_and_every_exit_status_is_in_a_table() -> None:
    statuses = {int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert statuses == set(STATUS.values()) | set(ExitCode)


def test_every_state_is_told_of() -> None:
    states = set(re.findall(r"`([a-z_]+)`", PAGE.partition("## States")[2].partition("\n## ")[0]))
    assert states - {"status", "state", "reason", "message", "mend"} == {*VersionState, *BuildState, *InstanceState}
