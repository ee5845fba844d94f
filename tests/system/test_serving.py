"""How one process of several starts and ends: what it refuses, what it waits for, and what it says meanwhile."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from several import Part, Several
from yard import flask_app, until

if TYPE_CHECKING:
    from parts.postgres import Postgres

pytestmark = [pytest.mark.postgres, pytest.mark.kafka, pytest.mark.sandbox]

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="my-serving-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def lonely(folder: Path) -> Iterator[Several]:
    """Processes whose database and whose Kafka are nowhere."""
    several = Several(folder / "data", f"postgresql://nobody@{NOWHERE}/none", NOWHERE)
    yield several
    several.destroy()


def modelyard(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    named = {f"MODELYARD_{name.upper()}": value for name, value in variables.items()}
    return subprocess.run(
        [sys.executable, "-m", "modelyard", *words], capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **named}
    )


def health(several: Several, part: Part) -> tuple[int, dict[str, Any]]:
    """What the process says on its own socket; nothing in the moments in which it has none, or gives it its name."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(several.socket(part)))
        except OSError:
            return 0, {}
        asking.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        with asking.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("role", "variables", "code"),
    [
        (("auth",), {}, "database_url"),
        (("auth",), {"database_url": "sqlite:///x.db", "bus": "kafka"}, "modelyardup"),
        (("builder",), {"database_url": "postgresql://a@b/c"}, "kafka.bootstrap"),
        (("builder", "--port", "1"), {"database_url": "postgresql://a@b/c", "bus": "kafka"}, "modelyardservebuilder"),
    ],
)
def test_what_cannot_run_so_is_refused_with_the_mend(folder: Path, role: tuple[str, ...], variables: dict[str, str], code: str) -> None:
    ended = modelyard("serve", *role, "--data", str(folder / "data"), **variables)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert code in "".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert not (folder / "data").exists()


def test_a_process_says_what_it_waits_for_and_keeps_the_folder_from_up(lonely: Several) -> None:
    part, other = lonely.start("upload"), lonely.start("builder")
    status, told = until(lambda: health(lonely, part), "it answers")
    until(lambda: "database" in health(lonely, part)[1].get("waits_for", {}), "it has looked for the database")
    status, told = health(lonely, part)
    assert (status, told["status"], told["service"], told["dependencies"]) == (503, "starting", "upload_service", {"database": "down"})
    url = until(lambda: next((line for line in part.said.read_text().splitlines() if line.startswith("http://")), ""), "it says where")
    called = httpx2.get(f"{url}/models/ada", headers={"authorization": "Bearer x"}, timeout=60)
    assert (called.status_code, called.json()["code"], called.headers["retry-after"]) == (503, "starting", "1")
    assert httpx2.get(f"{url}/livez", timeout=60).status_code == 200
    assert '"waits for"' in part.said.read_text()

    refused = modelyard("up", "--port", "0", "--data", str(lonely.data))
    assert refused.returncode == 4
    assert "Another server uses" in refused.stderr
    assert (part.end(), other.end()) == (0, 0)
    assert list((lonely.data / "run").iterdir()) == []


def test_up_keeps_the_folder_from_serve(folder: Path) -> None:
    from yard import Yard  # noqa: PLC0415 - one test of this module starts a whole server

    with Yard(folder / "data"):
        refused = modelyard("serve", "builder", "--data", str(folder / "data"), database_url="postgresql://a@b/c", bus="kafka")
    assert refused.returncode == 4
    assert "Another server uses" in refused.stderr


def test_the_schema_is_waited_for_and_kafka_is_not(folder: Path, postgres_server: "Postgres") -> None:
    url = postgres_server.empty()
    several = Several(folder / "data", url, NOWHERE)
    try:
        part = several.start("upload")
        until(lambda: "schema" in health(several, part)[1].get("waits_for", {}), "it has looked at the schema")
        assert "modelyard migrate" in part.said.read_text()
        migrated = modelyard("migrate", "--data", str(several.data), database_url=url)
        assert migrated.returncode == 0, migrated.stderr
        several.start("auth")
        until(lambda: health(several, part)[1].get("dependencies", {}).get("kafka") == "down", "it serves, and has looked for Kafka")
        status, told = health(several, part)
        assert (status, told["status"]) == (200, "degraded")

        token = until(lambda: (several.data / "owner.token").exists() and (several.data / "owner.token").read_text(), "the owner has a key")
        with several.inside(part) as inside:
            files = {"file": ("a.zip", flask_app("a"), "application/zip")}
            bearer = {"authorization": f"Bearer {str(token).strip()}"}
            sent = inside.post("/upload", data={"username": "ada", "model_name": "app"}, files=files, headers=bearer)
        assert sent.status_code == 202, sent.text
        assert set(several.end().values()) == {0}, several.logs()
    finally:
        several.destroy()
        postgres_server.drop(url)
