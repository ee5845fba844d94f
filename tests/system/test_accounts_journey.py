"""The guide's journey as a user of their own: with a JWT and with an API key, by plain HTTP, by the command line, by the Python client."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import httpx2
import pytest
from yard import ANSWER_S, Yard, flask_app, until

from modelyard import Client
from modelyard.client import Access, ProblemError

PASSWORD = "four quiet herons wade"
REVOKED_S = 30.0


class Served(Protocol):
    """Whatever answers at an address."""

    url: str


class Person:
    """Somebody at a machine of their own: no data folder, a configuration folder of theirs.

    Args:
        folder: Their home.
    """

    def __init__(self, yard: Served, folder: Path, name: str) -> None:
        self.yard = yard
        self.name = name
        self.home = folder / name
        self.home.mkdir()

    def run(self, *words: str, told: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """One command of theirs."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
        own = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"), "MODELYARD_SERVER": self.yard.url}
        return subprocess.run(
            [sys.executable, "-m", "modelyard", *words],
            input=told,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.home,
            env={**kept, **own, "MODELYARD_DATA": str(self.home / "data"), **variables},
        )

    def said(self, *words: str, told: str = "", **variables: str) -> str:
        """What a command of theirs printed, where it succeeded."""
        done = self.run(*words, told=told, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log_in(self) -> str:
        """Their access token, by the form that any program can post."""
        form = {"grant_type": "password", "username": self.name, "password": PASSWORD}
        answer = httpx2.post(f"{self.yard.url}/auth/token", data=form, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


def make(yard: Yard, folder: Path, name: str, role: str = "member") -> Person:
    """An account, made by the administrator on the machine that holds the data folder."""
    words = ["users", "create", name, "--role", role, "--password-stdin", "--data", str(yard.data), "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    environment["XDG_CONFIG_HOME"] = str(folder / "administrator")
    done = subprocess.run(
        [sys.executable, "-m", "modelyard", *words], input=f"{PASSWORD}\n", capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["username"] == name
    return Person(yard, folder, name)


def call(yard: Yard, token: str | None, model: str = "ada/fruit") -> httpx2.Response:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return httpx2.post(f"{yard.url}/m/{model}/predict", headers=headers, json={"input": "hello"}, timeout=60)


@pytest.fixture(scope="module")
def people(yard: Yard, tmp_path_factory: pytest.TempPathFactory) -> tuple[Person, Person]:
    folder = tmp_path_factory.mktemp("people")
    return make(yard, folder, "ada"), make(yard, folder, "bob")


@pytest.fixture(scope="module")
def ada(people: tuple[Person, Person]) -> Person:
    return people[0]


@pytest.fixture(scope="module")
def bob(people: tuple[Person, Person]) -> Person:
    return people[1]


@pytest.fixture(scope="module")
def token(ada: Person) -> str:
    """Ada's JWT, with which her model was uploaded."""
    token = ada.log_in()
    taken = httpx2.post(
        f"{ada.yard.url}/upload",
        headers={"authorization": f"Bearer {token}", "prefer": "wait=300"},
        data={"username": "ada", "model_name": "fruit"},
        files={"file": ("fruit.zip", flask_app("fruit"), "application/zip")},
        timeout=ANSWER_S,
    )
    assert (taken.status_code, taken.json()["status"]) == (202, "ready"), taken.text
    return token


def test_by_http_with_a_jwt_and_with_a_key_until_it_is_revoked(yard: Yard, ada: Person, token: str) -> None:
    bearer = {"authorization": f"Bearer {token}"}
    assert token.count(".") == 2
    assert call(yard, token).json() == {"prediction": "Processed: hello", "name": "fruit"}
    assert call(yard, None).status_code == 401

    made = httpx2.post(f"{yard.url}/auth/keys", headers=bearer, json={"name": "camera", "scopes": ["predict:ada/fruit"]}, timeout=60)
    key = made.json()["key"]
    assert made.status_code == 201
    assert call(yard, key).status_code == 200
    assert httpx2.get(f"{yard.url}/models/ada", headers={"authorization": f"Bearer {key}"}, timeout=60).status_code == 403

    assert httpx2.delete(f"{yard.url}/auth/keys/{made.json()['id']}", headers=bearer, timeout=60).status_code == 204
    until(lambda: call(yard, key).status_code == 401, "the key is refused", REVOKED_S)


@pytest.mark.slow
def test_by_the_command_line_with_a_log_in(yard: Yard, ada: Person, token: str) -> None:
    assert "logged in" in ada.said("login", "--username", "ada", "--password-stdin", told=f"{PASSWORD}\n")

    assert "ada/fruit" in ada.said("list")
    assert json.loads(ada.said("predict", "fruit", "-d", '{"input": "pear"}'))["prediction"] == "Processed: pear"
    assert call(yard, ada.said("token")).status_code == 200
    (ada.home / "box").mkdir()
    (ada.home / "box" / "app.py").write_bytes(b"from flask import Flask\napp = Flask(__name__)\n")
    (ada.home / "box" / "requirements.txt").write_text("flask==3.0.0\n")
    assert json.loads(ada.said("upload", "box", "--json"))["username"] == "ada"
    assert ada.run("users", "list").returncode == 1, "a member manages no accounts"
    assert f"{yard.url}/open/ada/fruit" == ada.said("open", "fruit")
    told = [each["event"] for each in json.loads(ada.said("events", "list", "--json"))]
    assert told.count("model.uploaded") == 2
    assert isinstance(json.loads(ada.said("logs", "fruit", "--json"))["lines"], list)
    assert "logged out" in ada.said("logout")
    assert ada.run("list").returncode == 1


def test_by_the_command_line_with_a_key_until_it_is_revoked(yard: Yard, ada: Person, token: str) -> None:
    key = ada.said("keys", "create", "laptop", MODELYARD_TOKEN=token)

    assert key.startswith("my_")
    assert "ada/fruit" in ada.said("list", MODELYARD_TOKEN=key)
    assert "Processed" in ada.said("predict", "fruit", "-d", "{}", MODELYARD_TOKEN=key)
    assert ada.run("keys", "list", MODELYARD_TOKEN=key).returncode == 1, "a key makes no further keys"
    listed = json.loads(ada.said("keys", "list", "--json", MODELYARD_TOKEN=token))
    made = next(each["id"] for each in listed if each["name"] == "laptop")
    ada.said("keys", "revoke", made, MODELYARD_TOKEN=token)
    until(lambda: call(yard, key).status_code == 401, "the key is refused", REVOKED_S)
    assert ada.run("list", "--owner", "ada", MODELYARD_TOKEN=key).returncode == 1


def test_by_the_python_client(yard: Yard, ada: Person, token: str) -> None:
    with Client(yard.url) as client:
        client.log_in("ada", PASSWORD)
        assert (client.me().username, client.me().role) == ("ada", "member")
        assert client.predict("ada", "fruit", json={"input": "plum"}).json()["prediction"] == "Processed: plum"
        key = client.create_key("notebook", expires_in_s=3600)
        with Client(yard.url, key.key) as by_key:
            assert [each.model_name for each in by_key.models("ada")][-1] == "fruit"
            assert by_key.predict("ada", "fruit", json={}).status_code == 200
        client.revoke_key(key.id)
        until(lambda: call(yard, key.key).status_code == 401, "the key is refused", REVOKED_S)
        events = client.events()
        assert {each.event for each in events} >= {"model.uploaded", "model.started"}
        assert next(iter(client.follow_events(events[0].cursor))).id == events[1].id
        client.log_out()

        def over() -> bool:
            try:
                client.me()
            except ProblemError as refused:
                return refused.status == 401
            return False

        until(over, "the log-in is over", REVOKED_S)


def test_a_model_is_shared_with_another_and_taken_back(yard: Yard, ada: Person, bob: Person, token: str) -> None:
    other = bob.log_in()
    missing = call(yard, other, "ada/nothing")
    hidden = call(yard, other)
    assert (hidden.status_code, hidden.content) == (404, missing.content)

    ada.said("share", "fruit", "--with", "bob", MODELYARD_TOKEN=token)
    until(lambda: call(yard, other).status_code == 200, "bob may call it")
    assert httpx2.get(f"{yard.url}/models/ada/fruit", headers={"authorization": f"Bearer {other}"}, timeout=60).status_code == 404
    assert bob.run("share", "ada/fruit", "--public", MODELYARD_TOKEN=other).returncode == 3

    with Client(yard.url, token) as client:
        assert client.access("ada", "fruit") == Access(users=("bob",))
        client.set_access("ada", "fruit", Access())
    until(lambda: call(yard, other).status_code == 404, "bob may not any more")

    ada.said("share", "fruit", "--public", MODELYARD_TOKEN=token)
    until(lambda: call(yard, None).status_code == 200, "anybody may call it")
    ada.said("share", "fruit", "--private", MODELYARD_TOKEN=token)
    until(lambda: call(yard, None).status_code == 401, "and nobody without a credential")


def test_nobody_uploads_for_another(yard: Yard, bob: Person, token: str) -> None:
    taken = bob.run("login", "--username", "bob", "--password-stdin", told=f"{PASSWORD}\n")
    assert taken.returncode == 0, taken.stderr
    (bob.home / "app.py").write_text("app = 1\n")

    assert bob.run("upload", ".", "--model", "ada/fruit").returncode != 0
    with Client(yard.url, token) as client:
        assert [each.version for each in client.model("ada", "fruit").versions] == [1]


def test_what_a_disabled_account_had_is_over_within_seconds(yard: Yard, tmp_path: Path) -> None:
    carol = make(yard, tmp_path, "carol", "viewer")
    token = carol.log_in()
    bearer = {"authorization": f"Bearer {token}"}
    assert httpx2.get(f"{yard.url}/auth/me", headers=bearer, timeout=60).json()["role"] == "viewer"

    with Client(yard.url, yard.token) as owner:
        owner.set_user("carol", state="disabled")
    until(lambda: httpx2.get(f"{yard.url}/auth/me", headers=bearer, timeout=60).status_code == 401, "the token is refused", REVOKED_S)
