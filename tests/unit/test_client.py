"""The client against a server on loopback that speaks the contract."""

import io
import itertools
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stamina
from protocol_accounts import KEY, PASSWORD, event
from protocol_server import BUILD, VERSION, Yard, problem, row, serving

from modelyard.client import Access, Client, ProblemError, UnreachableError
from modelyard.client.bearer import Renewing

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


def test_without_a_name_the_list_is_of_all_models_that_the_caller_sees(client: Client, yard: Yard) -> None:
    yard.models = [row(username) for username in ("ada", "bob", "eve")]
    yard.page = 2

    assert [each.username for each in client.models()] == ["ada", "bob", "eve"]
    assert {each.path for each in yard.seen} == {"/models"}


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


def test_the_client_is_there_by_the_package_s_name_and_loaded_only_when_asked_for() -> None:
    program = "import sys, modelyard; light = 'httpx2' not in sys.modules; from modelyard import Client; print(light, Client.__module__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", "modelyard.client.calls"]


def test_a_log_in_calls_as_that_user_and_ends(yard: Yard) -> None:
    with Client(yard.url) as client:
        tokens = client.log_in("ada", PASSWORD)
        assert b"grant_type=password&username=ada" in yard.last("POST").body
        assert client.me().username == "ada"
        assert yard.last("GET").headers["authorization"] == "Bearer access-1"
        assert "access-1" not in repr(tokens)
        client.log_out()
        with pytest.raises(ProblemError) as refused:
            client.me()
    assert refused.value.status == 401


def test_a_wrong_password_is_told_and_leaves_the_client_as_it_was(client: Client) -> None:
    with pytest.raises(ProblemError, match="password_wrong"):
        client.log_in("ada", "guess")
    assert client.me().username == "ada"


def test_an_access_token_that_has_ended_is_replaced_and_the_call_sent_again_whole(yard: Yard, app_zip: Path) -> None:
    with Client(yard.url) as client:
        client.log_in("ada", PASSWORD)
        yard.accounts.refused = {"access-1"}
        assert client.upload(app_zip, "ada", "fruit").username == "ada"

    sent = [each for each in yard.seen if each.path == "/upload"]
    assert [each.headers["authorization"] for each in sent] == ["Bearer access-1", "Bearer access-2"]
    assert all(app_zip.read_bytes() in each.body for each in sent)


def test_a_token_is_replaced_once_and_then_the_refusal_stands(yard: Yard) -> None:
    with Client(yard.url) as client:
        client.log_in("ada", PASSWORD)
        yard.accounts.refused = {"access-1", "access-2", "access-3"}
        with pytest.raises(ProblemError) as refused:
            client.me()
    assert (refused.value.status, yard.accounts.trades) == (401, 2)


def test_a_token_about_to_end_is_replaced_before_it_does(yard: Yard) -> None:
    yard.accounts.expires_in = 20
    with Client(yard.url) as client:
        client.log_in("ada", PASSWORD)
        client.me()
    assert yard.last("GET").headers["authorization"] == "Bearer access-2"
    assert yard.accounts.trades == 2


def test_threads_that_share_a_log_in_do_not_use_a_refresh_token_twice(yard: Yard) -> None:
    with Client(yard.url) as client:
        tokens = client.log_in("ada", PASSWORD)
        source = Renewing(tokens, client.refresh)
        with ThreadPoolExecutor(8) as threads:
            got = list(threads.map(lambda _: source.renewed("access-1"), range(8)))
    assert (set(got), yard.accounts.trades) == ({"access-2"}, 2)


def test_a_model_s_own_401_is_its_answer_and_is_not_asked_for_again(yard: Yard) -> None:
    with Client(yard.url) as client:
        client.log_in("ada", PASSWORD)
        yard.refusals["POST", "/m/ada/fruit/predict"] = (401, {"no": "entry"}, {"Content-Type": "application/json"})
        assert client.predict("ada", "fruit", json={}).json() == {"no": "entry"}
    assert yard.accounts.trades == 1


def test_keys_are_made_listed_and_revoked(client: Client, yard: Yard) -> None:
    made = client.create_key("camera", ["predict:ada/fruit"], expires_in_s=60)

    assert (made.key, made.scopes) == ("my_new_key", ("predict:ada/fruit",))
    assert "my_new_key" not in repr(made)
    assert yard.last("POST").body == b'{"name":"camera","scopes":["predict:ada/fruit"],"expires_in_s":60}'
    listed = client.keys()
    assert [each.name for each in listed] == ["camera"]
    client.revoke_key(made.id)
    assert yard.accounts.keys == []


def test_accounts_are_made_invited_changed(client: Client, yard: Yard) -> None:
    assert client.create_user("bob", PASSWORD, role="viewer").role == "viewer"
    assert PASSWORD.encode() in yard.last("POST").body
    client.create_user("carol")
    assert b"password" not in yard.last("POST").body
    assert client.invite("bob").url.endswith("invite=bob")
    assert client.set_user("bob", state="disabled").state == "disabled"
    assert yard.last("PATCH").body == b'{"state":"disabled"}'
    client.set_password("bob", PASSWORD)
    assert yard.last("PUT").path == "/auth/users/bob/password"
    assert [each.username for each in client.users()] == ["ada", "bob", "carol"]


def test_access_is_shown_and_changed_and_a_model_s_log_read(client: Client, yard: Yard) -> None:
    assert client.access("ada", "fruit").users == ("bob",)
    assert client.set_access("ada", "fruit", Access(public=True, users=("carol",))).public
    assert yard.last("PUT").body == b'{"public":true,"users":["carol"]}'
    assert client.logs("ada", "fruit", lines=2).startswith("one\ntwo")
    assert yard.last("GET").query == {"lines": ["2"]}


def test_events_come_page_by_page_and_behind_a_cursor(client: Client, yard: Yard) -> None:
    yard.accounts.page = 2

    assert [each.cursor for each in client.events()] == ["c1", "c2", "c3"]
    assert [each.cursor for each in client.events("c2")] == ["c3"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("cuts", [[], [1, 1], [2, 0, 1]])
def test_followed_events_come_once_each_however_often_the_stream_breaks(client: Client, yard: Yard, cuts: list[int]) -> None:
    yard.cuts = cuts
    yard.accounts.events = [event(n) for n in range(1, 6)]

    assert [each.id for each in itertools.islice(client.follow_events("c1"), 4)] == ["e2", "e3", "e4", "e5"]


def test_waiting_tells_the_lines_and_how_the_build_ended(client: Client, yard: Yard, app_zip: Path) -> None:
    lines: list[str] = []
    taken = client.upload(app_zip, "ada", "fruit")

    assert client.wait(taken, on_line=lambda line: lines.append(line.text)).status == "ready"
    assert lines == yard.log
    yard.build = {"status": "failed", "reason": "no_entry", "message": "No app.", "mend": "Add app.py."}
    failed = client.wait(taken)
    assert (failed.status, failed.reason, failed.mend) == ("failed", "no_entry", "Add app.py.")
