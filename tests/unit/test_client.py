"""The client against a server on loopback that speaks the contract."""

import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina
from protocol_server import BUILD, KEY, VERSION, Yard, problem, row, serving

from modelyard.client import Client, ProblemError, UnreachableError

MIB = 1024 * 1024


@pytest.fixture
def yard() -> Iterator[Yard]:
    with serving() as yard:
        yield yard


@pytest.fixture
def client(yard: Yard) -> Iterator[Client]:
    with Client(yard.url, KEY, timeout_s=10) as client:
        yield client


@pytest.fixture
def at_once() -> Iterator[None]:
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


@pytest.fixture
def app_zip(tmp_path: Path) -> Path:
    path = tmp_path / "fruit.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("app.py", "app = 1\n")
    return path


def test_an_upload_carries_its_fields_its_key_and_the_very_bytes(client: Client, yard: Yard, app_zip: Path) -> None:
    taken = client.upload(app_zip, "ada", "fruit", "sorts fruit", wait_s=3, idempotency_key="k1")

    seen = yard.last("POST")
    assert (taken.id, taken.username, taken.model_name, taken.status, taken.build_id) == (VERSION, "ada", "fruit", "received", BUILD)
    assert (seen.headers["prefer"], seen.headers["idempotency-key"]) == ("wait=3", "k1")
    assert app_zip.read_bytes() in seen.body
    assert b'name="description"\r\n\r\nsorts fruit\r\n' in seen.body
    assert b'filename="fruit.zip"\r\nContent-Type: application/zip\r\n' in seen.body


def test_without_wait_and_key_neither_header_is_sent(client: Client, yard: Yard, app_zip: Path) -> None:
    client.upload(app_zip, "ada", "fruit")

    assert not {"prefer", "idempotency-key"} & set(yard.last("POST").headers)
    assert b"description" not in yard.last("POST").body


def test_a_large_upload_is_streamed_and_its_progress_told(client: Client, yard: Yard, tmp_path: Path) -> None:
    large = tmp_path / "large.zip"
    with large.open("wb") as file:
        file.truncate(96 * MIB)
    told: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        client.upload(large, "ada", "large", on_bytes=lambda done, total: told.append((done, total)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert yard.last("POST").body_length > 96 * MIB
    assert peak < 16 * MIB
    assert len(told) >= 10
    assert told == sorted(told)
    assert told[-1] == (96 * MIB, 96 * MIB)


def test_a_folder_is_packed_on_the_way(client: Client, yard: Yard, tmp_path: Path) -> None:
    folder = tmp_path / "fruit"
    folder.mkdir()
    (folder / "app.py").write_text("app = 1\n")

    client.upload(folder, "ada", "fruit")

    body = yard.last("POST").body
    start = body.index(b"PK\x03\x04")
    with zipfile.ZipFile(io.BytesIO(body[start : body.rindex(b"\r\n--")])) as sent:
        assert sent.namelist() == ["app.py"]
    assert b'filename="fruit.zip"' in body


def test_all_pages_of_a_list_are_read_and_a_foreign_next_link_gets_no_token(client: Client, yard: Yard) -> None:
    yard.models = [row(model_name=f"fruit-{n}") for n in range(5)]
    yard.page = 2

    assert [each.model_name for each in client.models("ada")] == [f"fruit-{n}" for n in range(5)]
    assert [each.query.get("cursor") for each in yard.seen] == [None, ["2"], ["4"]]


def test_one_model_comes_with_its_versions(client: Client) -> None:
    model = client.model("ada", "fruit")

    assert ([each.version for each in model.versions], model.serving, model.build_id) == ([2, 1], 2, BUILD)
    assert model.model_extra == {"runtime": "process"}


@pytest.mark.parametrize(("purge", "query"), [(False, {}), (True, {"purge": ["true"]})])
def test_deletions_name_their_target(client: Client, yard: Yard, purge: bool, query: dict[str, list[str]]) -> None:  # noqa: FBT001 - a case
    gone = client.delete("ada", "fruit", purge=purge)
    assert (gone.status, gone.bytes_freed, gone.bytes_kept) == ("deleted", 7, 5)
    assert (yard.last("DELETE").path, yard.last("DELETE").query) == ("/models/ada/fruit", query)

    client.delete_version(VERSION, purge=purge)
    assert (yard.last("DELETE").path, yard.last("DELETE").query) == (f"/models/{VERSION}", query)


def test_build_log_health_and_first_link(client: Client, yard: Yard) -> None:
    assert client.build(BUILD).status == "succeeded"
    assert client.build_log(BUILD) == "found: Flask app\ninstalling\nready\n"
    assert client.health().status == "healthy"
    assert client.first_link() == f"{yard.url}/first/ticket"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("cuts", [[], [2], [1, 3, 1], [-1, 2, -1], [0, 0, 4], [4, 0, 0, 4]])
@pytest.mark.parametrize("overlap", [0, 2])
def test_a_followed_log_has_every_line_once_however_often_it_breaks(client: Client, yard: Yard, cuts: list[int], overlap: int) -> None:
    yard.log = [f"line {n} \N{SNOWMAN}" for n in range(1, 13)]
    # A server that repeats lines needs room for a new one in each connection.
    yard.cuts, yard.overlap = [cut + overlap if cut > 0 else cut for cut in cuts], overlap

    lines = list(client.follow_build_log(BUILD))

    assert [line.n for line in lines] == list(range(1, 13))
    assert [line.text for line in lines] == yard.log
    assert yard.cuts == []


@pytest.mark.usefixtures("at_once")
def test_a_resumed_log_names_the_last_line_that_was_seen(client: Client, yard: Yard) -> None:
    yard.cuts = [2]

    assert len(list(client.follow_build_log(BUILD))) == 3
    assert [each.headers.get("last-event-id") for each in yard.seen] == [None, "2"]


@pytest.mark.usefixtures("at_once")
def test_a_log_that_never_brings_a_line_ends_in_an_error(client: Client, yard: Yard) -> None:
    yard.cuts = [0] * 50

    with pytest.raises(UnreachableError, match="broke off"):
        list(client.follow_build_log(BUILD))
    assert len(yard.cuts) == 47


@pytest.mark.usefixtures("at_once")
def test_an_unknown_build_is_not_asked_for_again(client: Client, yard: Yard) -> None:
    with pytest.raises(ProblemError) as refused:
        list(client.follow_build_log("nothing"))
    assert (refused.value.status, len(yard.seen)) == (404, 1)


def test_a_prediction_takes_json_files_and_fields(client: Client, yard: Yard) -> None:
    assert client.predict("ada", "fruit", json={"input": "hello"}).json() == {"prediction": "application/json 17"}
    assert yard.last("POST").path == "/m/ada/fruit/predict"
    client.predict("ada", "fruit", files={"image": ("apple.jpg", io.BytesIO(b"JPEG"))}, data={"top": "3"})
    assert yard.last("POST").headers["content-type"].startswith("multipart/form-data")
    assert b'name="top"\r\n\r\n3\r\n' in yard.last("POST").body
    assert client.predict("ada", "fruit", "/picture", method="GET").content == b"\x89PNG\x00\xff"


def test_an_apps_own_error_passes_and_the_platforms_refusal_raises(client: Client, yard: Yard) -> None:
    assert client.predict("ada", "fruit", "/teapot").status_code == 418
    yard.refusals["POST", "/m/ada/fruit/predict"] = problem(503, "not_ready", "Wait.", {"Retry-After": "2"}, state="starting", phase="boot")

    with pytest.raises(ProblemError) as refused:
        client.predict("ada", "fruit", json={})

    told = refused.value
    assert (told.status, told.code, told.detail, told.mend, told.retry_after_s) == (503, "not_ready", "It is not_ready.", "Wait.", 2)
    assert told.extra == {"state": "starting", "phase": "boot"}


def test_an_answer_that_is_no_problem_document_is_refused_by_its_status(yard: Yard) -> None:
    yard.refusals["GET", "/models/ada"] = (500, {"oops": True}, {"Content-Type": "text/html"})

    with Client(yard.url, KEY) as client, pytest.raises(ProblemError) as refused:
        client.models("ada")
    assert (refused.value.status, refused.value.code) == (500, "unexpected_answer")


def test_a_wrong_key_is_told_and_health_needs_none(yard: Yard) -> None:
    with Client(yard.url) as client:
        assert client.health().service == "upload_service"
        with pytest.raises(ProblemError) as refused:
            client.models("ada")
    assert refused.value.code == "unauthenticated"


def test_no_server_is_an_error_of_its_own() -> None:
    with Client("http://127.0.0.1:1", KEY, timeout_s=2) as client, pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        client.models("ada")


def test_names_cannot_leave_their_place_in_the_path(client: Client, yard: Yard) -> None:
    with pytest.raises(ProblemError):
        client.model("../..", "a?b/c#d")
    assert (yard.last("GET").path, yard.last("GET").query) == ("/models/..%2F../a%3Fb%2Fc%23d", {})
