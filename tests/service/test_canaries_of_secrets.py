"""Canary secrets: used well, used badly, put where they do not belong, and found again nowhere but with their holder."""

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx2
import pytest
from kept import refused, rows
from sqlalchemy import text
from stage import Stage, app_zip, form

PASSWORD = "Canary under Seven blue stones 4711"
NEW_PASSWORD = "Canary over Nine grey rivers 1147"
OWN_PAGE = {"sec-fetch-site": "same-origin"}
MISTAKEN_HEADERS = ("x-api-key", "x-access-token", "x-auth-token", "x-modelyard-user", "x-forwarded-user", "proxy-authorization", "referer")
MAY_HOLD_SECRETS = ("owner.token", "server.secret", "keys/")
"""Files of the data folder that are secrets, for its user alone."""
"""The form shows its user once more what they typed as a name; they read it there before they sent it."""


class Yard:
    """A stage whose every refusal is remembered."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.refusals: list[httpx2.Response] = []

    def ask(self, method: str, path: str, *, token: str | None = None, cookie: str | None = None, **told: object) -> httpx2.Response:
        """One request; its answer, where it is an error, must tell no secret."""
        answer = self.stage.client(token, cookie=cookie).request(method, path, **told)  # type: ignore[arg-type]
        if answer.status_code >= 400:
            self.refusals.append(answer)
        return answer

    def program(self, **told: str) -> httpx2.Response:
        """Ask for tokens."""
        return self.ask("POST", "/auth/token", data=told)


@pytest.fixture
def yard(stage: Stage, caplog: pytest.LogCaptureFixture) -> Yard:
    caplog.set_level(logging.INFO)
    # The client of the test is no part of the server: its own log shows every address that it asks.
    caplog.set_level(logging.WARNING, logger="httpx2")
    return Yard(stage)


def used_well(yard: Yard) -> dict[str, str]:
    """A day in the life of an account; every secret that it was given or chose."""
    owner = yard.stage.auth.key.text
    made = yard.ask("POST", "/auth/users", token=owner, json={"username": "ada", "password": PASSWORD})
    tokens = yard.program(grant_type="password", username="ada", password=PASSWORD).json()
    renewed = yard.program(grant_type="refresh_token", refresh_token=tokens["refresh_token"]).json()
    yard.stage.credentials.refresh()
    wish = {"name": "laptop", "scopes": ["models:read", "models:write", "predict"]}
    key = yard.ask("POST", "/auth/keys", token=renewed["access_token"], json=wish).json()
    page = yard.ask("POST", "/login", data={"username": "ada", "password": PASSWORD, "next": "/"}, headers=OWN_PAGE)
    assert (made.status_code, page.status_code) == (201, 303)
    secrets = {
        "the owner's key": owner,
        "an API key": key["key"],
        "an access token": renewed["access_token"],
        "the access token before it": tokens["access_token"],
        "a refresh token": renewed["refresh_token"],
        "a refresh token that was used": tokens["refresh_token"],
        "a browser's cookie": page.cookies["__Host-modelyard"],
        "a device's cookie": page.cookies["__Host-modelyard-device"],
        "a password": PASSWORD,
        "a new password": NEW_PASSWORD,
    }
    for token in (owner, secrets["an API key"], secrets["an access token"]):
        assert yard.ask("GET", "/models/ada", token=token).status_code == 200
        assert yard.ask("GET", "/m/ada/fruit/predict", token=token).status_code == 200
        assert yard.ask("POST", "/upload", token=token, **form(owner="ada")).status_code == 202
    assert yard.ask("GET", "/auth/me", cookie=secrets["a browser's cookie"]).status_code == 200
    yard.stage.step("builds")
    yard.stage.step("relay")
    return secrets


def put_in_the_wrong_place(yard: Yard, secret: str) -> None:
    """As people and programs do by mistake: each of these is refused, or does nothing with it."""
    owner = yard.stage.auth.key.text
    shown = quote(secret, safe="")
    for path in ("/models/ada", "/m/ada/fruit/predict", "/auth/me"):
        yard.ask("GET", f"{path}?token={shown}&access_token={shown}")
        for name in MISTAKEN_HEADERS:
            yard.ask("GET", path, headers={name: secret})
        for authorization in (f"Basic {secret}", f"Bearer {secret}x", f"Bearer {secret} {secret}", f"Token {secret}", secret):
            yard.ask("GET", path, headers={"authorization": authorization})
        for cookie in (f"token={secret}", f"__Host-modelyard=x{secret}", f"session={secret}", f"__Host-modelyard-app={secret}"):
            yard.ask("GET", path, headers={"cookie": cookie})
    for name in ("limit", "cursor"):
        yard.ask("GET", f"/auth/users?{name}={shown}", token=owner)
        yard.ask("GET", f"/models/ada?{name}={shown}", token=owner)
    for field in ("username", "password", "grant_type", "refresh_token"):
        yard.program(**{"grant_type": "password", "username": "ada", "password": "wrong wrong wrong", field: secret})
    yard.program(grant_type="refresh_token", refresh_token=secret)
    for field in ("username", "password", "invite"):
        yard.ask("POST", "/auth/signup", json={"username": "bob", "password": "x", field: secret})
    yard.ask("POST", "/login", data={"username": secret, "password": "wrong wrong wrong"}, headers=OWN_PAGE)
    yard.ask("POST", "/auth/users", token=owner, json={"username": secret, "role": secret, "password": {"is": secret}})
    yard.ask("POST", "/auth/users", token=owner, content=f'{{"username": "{secret}', headers={"content-type": "application/json"})
    for fields in ({"owner": secret}, {"name": secret}):
        yard.ask("POST", "/upload", token=owner, **form(**{"owner": "ada", **fields}))
    yard.ask("POST", "/auth/password", token=yard.stage.member.text, json={"old_password": secret, "password": secret[:9]})
    yard.ask("GET", f"/signup?invite={shown}")


def made_to_fail(yard: Yard, secrets: dict[str, str]) -> None:
    """The database refuses to write just when secrets are in hand; what is logged of that has a traceback."""
    acts = [f"{act} on {table}" for table in ("sessions", "api_keys", "passwords") for act in ("insert", "update")]
    with refused(yard.stage, *acts):
        failed = [
            yard.program(grant_type="password", username="ada", password=PASSWORD),
            yard.program(grant_type="refresh_token", refresh_token=secrets["a refresh token"]),
            yard.ask("POST", "/auth/keys", token=secrets["an access token"], json={"name": "x", "scopes": ["predict"]}),
            yard.ask("PUT", "/auth/users/ada/password", token=secrets["the owner's key"], json={"password": NEW_PASSWORD}),
            yard.ask("POST", "/auth/logout", cookie=secrets["a browser's cookie"], headers=OWN_PAGE),
        ]
    assert [answer.status_code for answer in failed] == [500] * len(failed)


def test_no_secret_is_found_where_it_does_not_belong(
    yard: Yard, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    secrets = used_well(yard)
    made_to_fail(yard, secrets)
    for secret in secrets.values():
        put_in_the_wrong_place(yard, secret)

    output = capsys.readouterr()
    places = {
        "log": f"{output.out}{output.err}{caplog.text}",
        "error bodies": "\n".join(f"{answer.headers}{answer.text}" for answer in yard.refusals),
        "events": repr(yard.stage.events()),
        **rows(yard.stage),
    }
    found = [
        (name, place) for name, secret in secrets.items() for place, told in places.items() if any(each in told for each in spelled(secret))
    ]
    assert found == []
    assert [
        (name, path) for path, content in files(yard.stage.folder) for name, secret in secrets.items() if core(secret).encode() in content
    ] == []
    assert len(yard.refusals) > 50 * len(secrets)
    assert "request failed" in places["log"]


def test_the_search_finds_a_secret_that_is_there(yard: Yard, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)  # where an earlier test has let the loggers write by the standard library
    secrets = used_well(yard)
    yard.stage.upload("pear", app_zip(PASSWORD), owner="ada")
    with yard.stage.database.write() as session:
        session.execute(text("update versions set description = :text"), {"text": f"see {PASSWORD}"})

    assert any(PASSWORD in told for told in rows(yard.stage).values())
    found = {name.partition("/")[0] for name, content in files(yard.stage.folder) if core(secrets["a password"]).encode() in content}
    assert "blobs" in found
    assert not yard.stage.database.is_sqlite or found & {"modelyard.db", "modelyard.db-wal"}
    assert "/models/ada" in capsys.readouterr().out + caplog.text


def test_the_private_half_of_the_signing_key_is_in_its_file_alone(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    used_well(yard)
    paths, told = list((yard.stage.folder / "keys").glob("*.pem")), f"{capsys.readouterr()}{rows(yard.stage)}"
    assert paths
    for path in paths:
        body = "".join(path.read_text().splitlines()[1:-1])
        for part in (body[:40], body[40:80]):
            assert part not in told
            assert [name for name, content in files(yard.stage.folder) if part.encode() in content] == []


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What lies in the data folder, the database's own files with what was deleted from them included."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(MAY_HOLD_SECRETS):
            yield name, path.read_bytes()


def core(secret: str) -> str:
    """The part that nobody may know: a key's, cookie's or token's last long word; of a password all of it."""
    if " " in secret:
        return secret
    return max(secret.replace(".", "_").split("_"), key=len) if secret.startswith("my") else secret.rpartition(".")[2]


def spelled(secret: str) -> set[str]:
    """The secret's core as it may be written down."""
    return {core(secret), quote(core(secret), safe=""), quote_plus(core(secret))}
