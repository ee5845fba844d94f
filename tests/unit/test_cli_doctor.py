"""What the doctor says of each part, for machines that are well and machines that are not."""

import socket
from pathlib import Path

import pytest

from modelyard.cli.doctor import check_database, check_disk, check_kafka, check_port, check_python, check_sandbox, check_sqlite, check_uv
from modelyard.runtime.runtime import Report


@pytest.mark.parametrize(("version", "state"), [((3, 10, 14), "fail"), ((3, 11, 0), "ok"), ((3, 14, 1), "ok")])
def test_python(version: tuple[int, ...], state: str) -> None:
    assert check_python(version).state == state


@pytest.mark.parametrize(("version", "state"), [((3, 34, 1), "fail"), ((3, 35, 0), "ok"), ((4, 0, 0), "ok")])
def test_sqlite(version: tuple[int, ...], state: str) -> None:
    assert check_sqlite(version).state == state


def test_uv_is_found_beside_this_python() -> None:
    found = check_uv()

    assert found.state == "ok"
    assert Path(found.detail).is_file()


def test_the_disk_is_looked_at_before_the_data_folder_exists(tmp_path: Path) -> None:
    assert str(tmp_path) in check_disk(tmp_path / "not" / "yet").detail


def test_a_taken_port_fails_unless_our_own_server_has_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        foreign = check_port("127.0.0.1", port, tmp_path)
        beside = check_port("127.0.0.1", port, tmp_path, has_stack=True)
        (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:1"}')
        elsewhere = check_port("127.0.0.1", port, tmp_path)
        (tmp_path / "server.json").write_text(f'{{"url": "http://127.0.0.1:{port}"}}')
        ours = check_port("127.0.0.1", port, tmp_path)

    assert (foreign.state, foreign.mend) == ("fail", f"modelyard up --port {port + 1}")
    assert beside.state == "warn", "the stack has that port, and nobody needs another server"
    assert (elsewhere.state, ours.state) == ("fail", "ok")
    assert check_port("127.0.0.1", port, tmp_path).detail.endswith("is free")


def test_a_sandbox_that_works_is_ok_and_its_weak_points_are_told() -> None:
    checks = list(check_sandbox(Report(usable=True, name="process", notes=("memory limits are soft",)), trusted=False))

    assert [(check.name, check.state, check.detail) for check in checks] == [
        ("sandbox", "ok", "process"),
        ("limits", "warn", "memory limits are soft"),
    ]


@pytest.mark.parametrize(("trusted", "state"), [(False, "fail"), (True, "warn")])
def test_a_missing_sandbox_fails_unless_uploads_are_trusted(*, trusted: bool, state: str) -> None:
    report = Report(usable=False, name="process", why="bwrap is missing", mend="apt-get install bubblewrap")

    (check,) = check_sandbox(report, trusted=trusted)

    assert (check.state, check.detail, check.mend) == (state, "bwrap is missing", "apt-get install bubblewrap")


def test_a_sandbox_that_hangs_fails() -> None:
    (check,) = check_sandbox(None, trusted=False)

    assert check.state == "fail"


def test_a_database_and_a_broker_are_needed_where_the_settings_name_them() -> None:
    assert (check_database(None).state, check_kafka("").state) == ("ok", "ok")
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_server(("127.0.0.1", 0)) as other:
        port, free = there.getsockname()[1], other.getsockname()[1]
        other.close()
        assert check_database(f"postgresql://yard:secret@127.0.0.1:{port}/yard").detail == f"127.0.0.1:{port} takes connections"
        assert check_kafka(f"127.0.0.1:{free}, 127.0.0.1:{port}").state == "ok"
        away = check_database(f"postgresql://yard:secret@127.0.0.1:{free}/yard"), check_kafka(f"127.0.0.1:{free}")

    assert [check.state for check in away] == ["fail", "fail"]
    assert all(check.detail.startswith(f"no connection to 127.0.0.1:{free}: ") and "secret" not in check.detail for check in away)
    assert ["docker compose logs db" in away[0].mend, "docker compose logs kafka" in away[1].mend] == [True, True]
