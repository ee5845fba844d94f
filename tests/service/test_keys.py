"""API keys: made with what their maker has, shown once, revoked for good."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx2
import pytest
from sqlalchemy import select, update
from stage import Stage, until

from auth_service.keys import MOST_KEYS
from modelyard.domain.accounts import ALL_SCOPES, Role, Scope
from modelyard.domain.api_keys import new_key, parse_key
from modelyard.store import doorbell
from modelyard.store.account_tables import ApiKeyRow
from modelyard.store.tables import AuditRow, IdempotencyRow


def make(client: httpx2.Client, name: str = "camera", **more: object) -> httpx2.Response:
    return client.post("/auth/keys", json={"name": name, **more})


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json().get("code", ""))


@pytest.fixture
def mia(stage: Stage) -> httpx2.Client:
    """A member, with all scopes."""
    return stage.client(stage.member.text)


def test_a_key_is_shown_once_and_is_good(stage: Stage, mia: httpx2.Client) -> None:
    answer = make(mia)

    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    key = parse_key(answer.json()["key"])
    assert key is not None
    assert answer.json() | {"created_at": ""} == {
        "id": key.id,
        "name": "camera",
        "scopes": ["models:read", "models:write", "predict"],
        "created_at": "",
        "expires_at": None,
        "last_used_at": None,
        "key": key.text,
    }
    assert stage.client(key.text).get("/auth/me").json() == {
        "username": "mia",
        "role": "member",
        "scopes": ["models:read", "models:write", "predict"],
    }
    listed = mia.get("/auth/keys")
    assert [each["name"] for each in listed.json()["keys"]] == ["test", "camera"]
    assert key.secret not in listed.text
    assert "key" not in listed.json()["keys"][1]
    assert all(key.secret.encode() not in path.read_bytes() for path in stage.folder.glob("modelyard.db*"))


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"scopes": []}, (422, "scope_missing")),
        ({"scopes": ["everything"]}, (422, "scope_unknown")),
        ({"scopes": ["predict:"]}, (422, "scope_unknown")),
        ({"scopes": ["predict:ada"]}, (422, "scope_unknown")),
        ({"scopes": ["predict:Ada/Fruit"]}, (422, "scope_unknown")),
        ({"scopes": ["predict:ada/fruit/x"]}, (422, "scope_unknown")),
        ({"scopes": ["admin"]}, (403, "scope_not_held")),
        ({"scopes": "predict"}, (422, "invalid_request")),
        ({"name": ""}, (422, "invalid_request")),
        ({"name": "x" * 101}, (422, "invalid_request")),
        ({"name": "two\nlines"}, (422, "invalid_request")),
        ({"expires_in_s": 0}, (422, "invalid_request")),
        ({"expires_in_s": -1}, (422, "invalid_request")),
        ({"expires_in_s": "NaN"}, (422, "invalid_request")),
        ({"expires_in_s": 1e300}, (422, "invalid_request")),
        ({"owner": "ada"}, (422, "invalid_request")),
    ],
)
def test_what_is_no_key_is_refused(stage: Stage, mia: httpx2.Client, asked: dict[str, object], refused: tuple[int, str]) -> None:
    assert code(make(mia, **asked)) == refused
    assert stage.count(ApiKeyRow) == 2


@pytest.fixture(scope="module")
def lasting(prepare_stage: Callable[..., Stage]) -> Stage:
    """A stage on which every test has a key of its own."""
    return prepare_stage()


GIVEN = [
    (ALL_SCOPES, Role.ADMIN, {"admin"}, 201),
    (ALL_SCOPES, Role.ADMIN, {"admin", "account", "predict:ada/fruit"}, 201),
    (ALL_SCOPES, Role.MEMBER, {"admin"}, 403),
    (ALL_SCOPES, Role.MEMBER, {"account", "models:write"}, 201),
    ({"account", "models:read"}, Role.ADMIN, {"models:read"}, 201),
    ({"account", "models:read"}, Role.ADMIN, {"admin"}, 403),
    ({"account", "models:read"}, Role.MEMBER, {"models:write"}, 403),
    ({"account", "models:read"}, Role.MEMBER, {"predict"}, 403),
    ({"account", "models:read"}, Role.MEMBER, {"predict:ada/fruit"}, 403),
    ({"account", "predict"}, Role.MEMBER, {"predict:ada/fruit"}, 201),
    ({"account", "predict:ada/fruit"}, Role.MEMBER, {"predict:ada/fruit"}, 201),
    ({"account", "predict:ada/fruit"}, Role.MEMBER, {"predict:ada/other"}, 403),
    ({"account", "predict:ada/fruit"}, Role.MEMBER, {"predict"}, 403),
    ({"models:read", "models:write", "predict"}, Role.MEMBER, {"predict"}, 403),
]


@pytest.mark.parametrize(("held", "role", "wanted", "status"), GIVEN)
def test_nobody_gives_what_they_do_not_have(lasting: Stage, held: set[str], role: Role, wanted: set[str], status: int) -> None:
    client = lasting.client(lasting.key({Role.ADMIN: "ann", Role.MEMBER: "max"}[role], held, role).text)
    answer = make(client, scopes=sorted(wanted))

    assert answer.status_code == status
    if status == 201:
        assert set(answer.json()["scopes"]) == wanted
    else:
        assert answer.json()["code"] == ("scope_not_held" if Scope.ACCOUNT in held else "scope_too_small")


def test_a_key_for_one_model_reaches_that_model_alone(stage: Stage, mia: httpx2.Client) -> None:
    narrow = stage.client(make(mia, scopes=["predict:mia/fruit"]).json()["key"])

    assert [code(narrow.get(path)) for path in ("/models/mia", "/auth/me", "/auth/keys")] == [(403, "scope_too_small")] * 3


def test_a_key_ends_when_it_was_told_to(stage: Stage, mia: httpx2.Client) -> None:
    made = make(mia, expires_in_s=3600).json()
    client = stage.client(made["key"])
    life = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])

    assert (life.total_seconds(), client.get("/auth/me").status_code) == (3600, 200)
    stage.ahead_s = 3601
    assert client.get("/auth/me").status_code == 401


def test_a_revoked_key_is_refused_at_once_and_for_good(stage: Stage, mia: httpx2.Client) -> None:
    made = make(mia).json()
    client = stage.client(made["key"])
    assert client.get("/auth/me").status_code == 200
    rings = stage.kernel.bell.count(doorbell.CREDENTIALS)

    assert mia.delete(f"/auth/keys/{made['id']}").status_code == 204
    assert stage.kernel.bell.count(doorbell.CREDENTIALS) != rings
    stage.credentials.refresh()  # the loop's step, which that ring wakes
    assert client.get("/auth/me").status_code == 401
    stage.ahead_s = 3 * 86400
    stage.step("prune_credentials")
    stage.credentials.refresh()
    assert client.get("/auth/me").status_code == 401
    assert code(mia.delete(f"/auth/keys/{made['id']}")) == (404, "not_found")
    assert [each["name"] for each in mia.get("/auth/keys").json()["keys"]] == ["test"]


def test_a_process_that_hears_no_ring_refuses_a_revoked_key_within_its_step(stage: Stage, make_stage: Callable[..., Stage]) -> None:
    other = make_stage(beside=True)
    made = make(stage.http).json()
    client = other.client(made["key"])
    assert client.get("/auth/me").status_code == 200

    stage.http.delete(f"/auth/keys/{made['id']}")
    until(lambda: not other.credentials.refresh() and client.get("/auth/me").status_code == 401, "it is refused")


def shown(answer: httpx2.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    kept = [(name, value) for name, value in answer.headers.items() if name not in {"x-request-id", "date"} and "ratelimit" not in name]
    return answer.status_code, answer.content, sorted(kept)


def test_other_people_s_keys_look_as_if_they_were_not_there(stage: Stage, mia: httpx2.Client) -> None:
    theirs = stage.key("ada")

    assert shown(mia.delete(f"/auth/keys/{theirs.id}")) == shown(mia.delete(f"/auth/keys/{new_key().id}"))
    assert shown(mia.get("/auth/keys?username=ada")) == shown(mia.get("/auth/keys?username=nobody"))
    assert stage.client(theirs.text).get("/auth/me").status_code == 200
    assert [each["id"] for each in mia.get("/auth/keys?username=mia").json()["keys"]] == [stage.member.id]


def test_an_administrator_sees_and_revokes_everybody_s_keys(stage: Stage, mia: httpx2.Client) -> None:
    assert [each["id"] for each in stage.http.get("/auth/keys?username=mia").json()["keys"]] == [stage.member.id]
    assert code(stage.http.get("/auth/keys?username=nobody")) == (404, "not_found")
    assert stage.http.delete(f"/auth/keys/{stage.member.id}").status_code == 204
    stage.credentials.refresh()

    assert mia.get("/auth/me").status_code == 401
    with stage.database.read() as session:
        row = session.scalars(select(AuditRow).where(AuditRow.action == "key_revoke")).one()
    assert (row.actor, row.object) == ("owner", f"key:{stage.member.id}")


def test_a_second_call_with_the_same_idempotency_key_makes_no_second_key_and_shows_none(stage: Stage, mia: httpx2.Client) -> None:
    told = {"idempotency-key": "k-1"}
    first, again = (mia.post("/auth/keys", json={"name": "camera"}, headers=told) for _ in range(2))

    assert first.status_code == 201
    assert code(again) == (409, "key_shown")
    assert first.json()["id"] in again.json()["detail"]
    assert first.json()["key"] not in again.text
    assert code(mia.post("/auth/keys", json={"name": "other"}, headers=told)) == (422, "idempotency_key_reused")
    assert stage.count(ApiKeyRow) == 3
    with stage.database.read() as session:
        assert first.json()["key"].split("_")[2] not in str(session.scalars(select(IdempotencyRow)).one().answer)


def test_of_many_calls_with_one_idempotency_key_one_makes_a_key(stage: Stage, mia: httpx2.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        calls = [
            pool.submit(stage.client(stage.member.text).post, "/auth/keys", json={"name": "a"}, headers={"idempotency-key": "k"})
            for _ in range(8)
        ]
        answers = [call.result().status_code for call in calls]

    assert sorted(answers) == [201] + [409] * 7
    assert stage.count(ApiKeyRow) == 3


def test_an_account_has_a_hundred_keys_at_the_most(stage: Stage, mia: httpx2.Client) -> None:
    for _ in range(MOST_KEYS - 2):
        stage.key("mia")
    last = make(mia)

    assert last.status_code == 201
    assert code(make(mia)) == (409, "too_many_keys")
    mia.delete(f"/auth/keys/{last.json()['id']}")
    assert make(mia).status_code == 201


def test_the_last_use_is_told(stage: Stage, mia: httpx2.Client) -> None:
    made = make(mia).json()
    stage.client(made["key"]).get("/auth/me")

    used = mia.get("/auth/keys").json()["keys"][1]["last_used_at"]
    assert abs((datetime.fromisoformat(used) - datetime.fromisoformat(made["created_at"])).total_seconds()) < 10


def test_a_page_of_another_site_makes_no_key(stage: Stage) -> None:
    browser = stage.client(cookie=stage.cookie())
    before = stage.count(ApiKeyRow)

    for headers in ({"origin": "http://evil.test"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {}):
        assert browser.post("/auth/keys", json={"name": "x"}, headers=headers).status_code == 403
    assert stage.count(ApiKeyRow) == before
    assert browser.post("/auth/keys", json={"name": "x"}, headers={"sec-fetch-site": "same-origin"}).status_code == 201


def test_a_key_of_a_disabled_account_is_none(stage: Stage, mia: httpx2.Client) -> None:
    with stage.database.write() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == stage.member.id).values(revoked_at=1.0))

    assert mia.get("/auth/me").status_code == 401
