"""What a model's app printed, as its owner reads it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from stage import Stage, app_zip

from modelyard.runtime.output import OutputFile

LOGS = "/models/ada/fruit/logs"


def output(stage: Stage, version_id: str) -> OutputFile:
    folder: Path = stage.folder / "output"
    folder.mkdir(exist_ok=True)
    return OutputFile(folder, f"app-{version_id}", file_bytes=4000)


def test_the_output_of_what_serves_is_text_without_control_characters(stage: Stage) -> None:
    taken = stage.ready()
    output(stage, taken["id"]).append("\x1b[31mred\ttab\r\nä 😀\x00\x9b\u202e\u2028end\n".encode() + b"\xff\n<script>\n")
    answer = stage.http.get(LOGS)

    assert answer.text == "[31mred\ttab\nä 😀end\n\N{REPLACEMENT CHARACTER}\n<script>\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")


def test_the_last_lines_are_told_also_over_a_change_of_files(stage: Stage) -> None:
    taken = stage.ready()
    kept = output(stage, taken["id"])
    for n in range(600):
        kept.append(f"line {n}\n".encode())

    assert stage.http.get(f"{LOGS}?lines=3").text == "line 597\nline 598\nline 599\n"
    assert len(stage.http.get(f"{LOGS}?lines=500").text.splitlines()) == 500
    for wrong in ("0", "-1", "10001", "x", ""):
        assert stage.http.get(f"{LOGS}?lines={wrong}").status_code == 422


def test_what_never_printed_and_what_does_not_serve_is_empty(stage: Stage) -> None:
    stage.ready()
    stage.upload("pears")

    assert [(stage.http.get(path).status_code, stage.http.get(path).text) for path in (LOGS, "/models/ada/pears/logs")] == [(200, "")] * 2


def test_the_serving_version_s_output_is_told_and_not_that_of_the_one_before(stage: Stage) -> None:
    first, second = stage.ready(content=app_zip("a")), stage.ready(content=app_zip("b"))
    for taken, word in ((first, b"first\n"), (second, b"second\n")):
        output(stage, taken["id"]).append(word)

    assert stage.http.get(LOGS).text == "second\n"


@pytest.fixture(scope="module")
def adas(prepare_stage: Callable[..., Stage]) -> Stage:
    """A stage with a model of ada's that printed something."""
    stage = prepare_stage()
    output(stage, stage.ready()["id"]).append(b"secret\n")
    return stage


@pytest.mark.parametrize("path", [LOGS, "/models/ada/nothing/logs", "/models/nobody/fruit/logs", "/models/../fruit/logs"])
def test_another_s_output_looks_as_if_it_were_not_there(adas: Stage, path: str) -> None:
    mia = adas.client(adas.member.text)

    assert mia.get(path).status_code == 404
    assert mia.get(path).content == mia.get("/models/mia/nothing/logs").content


def test_a_deleted_model_s_output_is_not_told(stage: Stage) -> None:
    taken = stage.ready()
    output(stage, taken["id"]).append(b"secret\n")
    stage.delete("/models/ada/fruit")

    assert stage.http.get(LOGS).status_code == 404
