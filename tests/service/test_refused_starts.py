"""Starts that are refused: each names what is unsafe or taken and how to mend it, and leaves nothing that stands in the next one's way."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from auth_service.owner import FILE, owner_key
from modelyard.domain.errors import Conflict, Invalid, ModelyardError
from modelyard.embedded import started
from modelyard.run.settings import load_settings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that its user alone may enter."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def refusal(data: Path, kind: type[ModelyardError], **settings: object) -> ModelyardError:
    """What a start says that is refused."""
    told = load_settings(data, **{"port": 0, **settings})
    with pytest.raises(kind) as refused, started(told):
        pass
    return refused.value


def starts(data: Path) -> bool:
    with started(load_settings(data, port=0)) as running:
        return running.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o750, 0o755, 0o777])
def test_a_data_folder_with_files_that_others_may_enter(data: Path, mode: int) -> None:
    (data / "modelyard.db").touch()
    data.chmod(mode)

    error = refusal(data, Invalid)
    assert (error.code, f"chmod 700 {data}" in error.mend) == ("data_folder_shared", True)
    assert [path.name for path in data.iterdir()] == ["modelyard.db"], "nothing is written where others may look"


def test_the_command_says_so_and_ends_with_2(data: Path) -> None:
    (data / "modelyard.db").touch()
    data.chmod(0o755)
    words = [sys.executable, "-m", "modelyard", "up", "--port", "0", "--data", str(data)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.sub(r"\s+", "", f"chmod 700 {data}") in re.sub(r"\s+", "", ended.stderr)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1"])  # noqa: S104 - what is refused
def test_an_address_that_other_machines_reach(data: Path, host: str) -> None:
    error = refusal(data, Invalid, host=host)

    assert (error.code, host in error.message, "MODELYARD_EXPOSE=true" in error.mend) == ("address_exposed", True, True)
    assert list(data.iterdir()) == []


def test_a_key_that_others_can_read_until_it_is_mended(data: Path) -> None:
    key = owner_key(data)
    (data / FILE).chmod(0o644)
    error = refusal(data, Invalid)

    assert (error.code, f"chmod 600 {data / FILE}" in error.mend) == ("owner_token_unsafe", True)
    assert not (data / "server.json").exists()
    (data / FILE).chmod(0o600)
    assert starts(data)
    assert owner_key(data) == key


def test_a_key_file_that_holds_no_key(data: Path) -> None:
    (data / FILE).write_text("half a k")
    (data / FILE).chmod(0o600)
    error = refusal(data, Invalid)

    assert (error.code, str(data / FILE) in error.message) == ("owner_token_broken", True)
    assert (data / FILE).read_text() == "half a k", "it may be somebody's only copy"


def test_a_port_that_is_taken(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = refusal(data, Conflict, port=port)

    assert (error.code, f"127.0.0.1:{port}" in error.message) == ("port_in_use", True)
    assert starts(data)
