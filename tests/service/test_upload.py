"""Uploads over HTTP: what is taken in, what is refused, and that a refusal leaves nothing behind."""

import hashlib
import re
import shutil
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from sqlalchemy import select
from stage import Stage, app_zip, in_thread, until, zipped

from modelyard.domain.plan import MIB
from modelyard.store.account_tables import AccountRow
from modelyard.store.tables import AuditRow, BuildRow, IdempotencyRow, ModelRow, OutboxRow, VersionRow
from upload_service.builders import BuildError, Log

TYPE = "multipart/form-data; boundary=yard"
UPLOAD_KEYS = ["id", "username", "model_name", "description", "version", "status", "docker_image", "docker_container_id"]


def is_untouched(stage: Stage) -> bool:
    """Whether nothing of an upload was left: no row, no event, no file."""
    rows = [stage.count(table) for table in (ModelRow, VersionRow, BuildRow, OutboxRow, IdempotencyRow)]
    return (rows, usernames(stage), acts(stage), stage.staging(), stage.blobs()) == ([0] * 5, ["mia", "owner"], [], [], [])


def usernames(stage: Stage) -> list[str]:
    with stage.database.read() as session:
        return list(session.scalars(select(AccountRow.username).order_by(AccountRow.username)))


def acts(stage: Stage) -> list[AuditRow]:
    """What the trail says that callers did."""
    with stage.database.read() as session:
        return list(session.scalars(select(AuditRow).where(AuditRow.request_id != "").order_by(AuditRow.seq)))


def body(**parts: str | bytes) -> bytes:
    """A form's body, its parts in this order; `file` gets a file's name."""
    lines = []
    for name, content in parts.items():
        named = f'name="{name}"' + ('; filename="a.zip"' if name == "file" else "")
        told = content.encode() if isinstance(content, str) else content
        lines.append(f"--yard\r\nContent-Disposition: form-data; {named}\r\n\r\n".encode() + told + b"\r\n")
    return b"".join(lines) + b"--yard--\r\n"


def post(stage: Stage, content: bytes, kind: str | None = TYPE) -> httpx2.Response:
    headers = {} if kind is None else {"content-type": kind}
    return stage.http.post("/upload", content=content, headers=headers)


def test_the_guide_s_form_is_taken_at_once_and_recorded_in_full(stage: Stage) -> None:
    content = app_zip()
    answer = stage.upload(content=content)
    told = answer.json()

    assert answer.status_code == 202
    assert list(told)[:8] == UPLOAD_KEYS
    assert (told["username"], told["model_name"], told["description"], told["version"]) == ("ada", "fruit", "Sorts fruit", 1)
    assert (told["status"], told["docker_image"], told["docker_container_id"], told["runtime"]) == ("received", None, None, "process")
    assert (told["url"], told["log_url"]) == ("/m/ada/fruit/", f"/builds/{told['build_id']}/log")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", told["created_at"])
    version = stage.version(told["id"])
    assert (version.sha256, version.size_bytes, version.state) == (hashlib.sha256(content).hexdigest(), len(content), "received")
    assert stage.kernel.blobs.path(stage.kernel.blobs.digests().__next__()).read_bytes() == content
    assert (stage.build(told["build_id"]).state, stage.staging(), stage.events()) == ("queued", [], [])
    opened, audited = acts(stage)
    assert (audited.actor, audited.action, audited.object) == ("owner", "upload", told["id"])
    assert (opened.actor, opened.action) == ("owner", "create_account")
    assert {opened.request_id, audited.request_id} == {answer.headers["x-request-id"]}


def test_a_description_may_be_left_out(stage: Stage) -> None:
    answer = post(stage, body(username="ada", model_name="fruit", file=app_zip()))

    assert (answer.status_code, answer.json()["description"]) == (202, "")


def test_prefer_wait_answers_when_the_build_has_ended(stage: Stage) -> None:
    answer = in_thread(lambda: stage.upload(prefer="wait=20"))
    until(lambda: stage.step("builds"), "there is a build")
    told = answer.result(60).json()

    assert (told["status"], told["reason"], told["docker_image"]) == ("ready", None, None)


def test_prefer_wait_tells_why_a_build_failed(stage: Stage) -> None:
    def fail(_: Log) -> None:
        raise BuildError("dependency_not_found", "The package nowhere is not in the index.", "Correct its name.")

    stage.builder.acts["lock"] = fail
    answer = in_thread(lambda: stage.upload(prefer="respond-async, wait=20"))
    until(lambda: stage.step("builds"), "there is a build")
    told = answer.result(60)

    assert told.status_code == 202
    assert (told.json()["status"], told.json()["reason"], told.json()["mend"]) == ("failed", "dependency_not_found", "Correct its name.")


def test_prefer_wait_answers_as_it_stands_once_the_time_is_over(stage: Stage) -> None:
    assert stage.upload(prefer="wait=1").json()["status"] == "received"


def test_prefer_wait_ends_when_the_process_drains(stage: Stage) -> None:
    answer = in_thread(lambda: stage.upload(prefer="wait=300"))
    until(lambda: stage.count(BuildRow), "it was taken in")
    stage.kernel.stopping.set()

    assert answer.result(60).json()["status"] == "received"


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    ("sent", "status", "code", "field"),
    [
        (body(username="ada", file=app_zip()), 422, "form_invalid", "model_name"),
        (body(username="  ", model_name="fruit", file=app_zip()), 422, "form_invalid", "username"),
        (body(username="ada", model_name="fruit"), 422, "form_invalid", "file"),
        (body(username="ada", model_name="fruit", owner="eve", file=app_zip()), 422, "form_invalid", "owner"),
        (
            body(username="ada", model_name="fruit", file=app_zip())[: -len(b"--yard--\r\n")] + body(username="eve"),
            422,
            "form_invalid",
            "username",
        ),
        (body(username="ada", model_name="fruit", file=b""), 422, None, None),
        (body(username="ada", model_name="fruit", file=b"PK no zip at all"), 422, None, None),
        (body(username="ada", model_name="fruit", file=app_zip()[:-30]), 422, None, None),
        (body(username="ada", model_name="fruit", description="x" * 2001, file=app_zip()), 422, "description_too_long", None),
        (b"", 400, "multipart_broken", None),
        (b"--other\r\n", 400, "multipart_broken", None),
    ],
)
def test_a_broken_form_is_refused_and_leaves_nothing(stage: Stage, sent: bytes, status: int, code: str | None, field: str | None) -> None:
    answer = post(stage, sent)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert code is None or answer.json()["code"] == code
    assert field is None or answer.json()["errors"][0]["field"] == field
    assert answer.json()["mend"]
    assert is_untouched(stage)


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("kind", [None, "application/json", "application/zip", "multipart/form-data", "text/plain; boundary=yard"])
def test_another_media_type_is_415(stage: Stage, kind: str | None) -> None:
    answer = post(stage, body(username="ada", model_name="fruit", file=app_zip()), kind)

    assert (answer.status_code, answer.json()["code"]) == (415, "not_multipart")
    assert is_untouched(stage)


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    ("owner", "name", "code", "suggestion"),
    [
        ("Ada", "fruit", "name_invalid", "ada"),
        ("ada", "My Fruit", "name_invalid", "my-fruit"),
        ("ada", "a--b", "name_invalid", "a-b"),
        ("../ada", "fruit", "name_invalid", "ada"),
        ("ada", "x" * 41, "name_invalid", "x" * 40),
        ("admin", "fruit", "name_reserved", None),
        ("modelyard", "fruit", "name_reserved", None),
    ],
)
def test_names_out_of_the_rule_are_refused_with_a_suggestion(
    stage: Stage, owner: str, name: str, code: str, suggestion: str | None
) -> None:
    answer = stage.upload(name, owner=owner)

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["errors"][0].get("suggestion") == suggestion
    assert is_untouched(stage)


@pytest.mark.leaves_nothing
def test_what_is_wrong_inside_the_zip_is_named(stage: Stage) -> None:
    answer = stage.upload(content=zipped({"../evil.py": b"x", "app.py": b"x"}))

    assert answer.status_code == 422
    assert "../evil.py" in answer.text
    assert is_untouched(stage)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_body_that_breaks_off_leaves_nothing_and_is_no_fault_of_ours(
    stage: Stage, part: float, capsys: pytest.CaptureFixture[str]
) -> None:
    content = body(username="ada", model_name="fruit", file=app_zip() + bytes(300_000))
    head = f"POST /upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {stage.auth.key.text}\r\nIdempotency-Key: k\r\n"
    head += f"Content-Type: {TYPE}\r\nContent-Length: {len(content)}\r\n\r\n"
    printed = ""
    with stage.live() as url:
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as caller:
            caller.sendall(head.encode() + content[: int(len(content) * part)])
            until(stage.staging, "the body is being read")

        def told() -> bool:
            nonlocal printed
            printed += capsys.readouterr().out
            return '"status": 400' in printed

        until(told, "the request has ended")

    assert "request failed" not in printed
    assert is_untouched(stage)


def test_a_file_over_the_limit_is_413_and_leaves_nothing(make_stage: Callable[..., Stage]) -> None:
    content = app_zip()
    stage = make_stage(upload__max_bytes=len(content) + 1000)

    answer = stage.upload(content=content + bytes(1001))
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert str(len(content) + 1000) in answer.json()["detail"]
    assert "upload.max_bytes" in answer.json()["mend"]
    assert is_untouched(stage)
    assert stage.upload(content=content).status_code == 202


def test_a_disk_at_its_reserve_is_507_and_leaves_nothing(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(upload__reserve_bytes=shutil.disk_usage("/").total * 1000)

    answer = stage.upload()
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert is_untouched(stage)


def test_the_memory_that_an_upload_takes_does_not_grow_with_it(stage: Stage, tmp_path: Path, scaled: Callable[[int], int]) -> None:
    path = tmp_path / "large.zip"
    path.write_bytes(zipped({"app.py": b"from flask import Flask\napp = Flask(__name__)\n", "weights.bin": bytes(scaled(200) * MIB)}))
    size = path.stat().st_size
    head, tail = body(username="ada", model_name="fruit", file=b"").rsplit(b"\r\n--yard--", 1)

    def pieces() -> Iterator[bytes]:
        yield head
        with path.open("rb") as file:
            while piece := file.read(65536):
                yield piece
        yield b"\r\n--yard--" + tail

    with stage.live() as url, httpx2.Client(base_url=url, headers=stage.http.headers, timeout=60) as caller:
        caller.get("/health")
        tracemalloc.start()
        answer = caller.post("/upload", content=pieces(), headers={"content-type": TYPE})
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert answer.status_code == 202, answer.text
    assert stage.version(answer.json()["id"]).size_bytes == size
    assert size >= 10 * MIB
    assert peak_bytes < 7 * MIB
