"""The command line's log-ins, keys, users, sharing and events, against a server on loopback."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from protocol_accounts import KEY, PASSWORD
from protocol_server import Yard, problem, row, serving
from typer.testing import CliRunner, Result

from modelyard.cli.log_ins import LogIns
from modelyard.cli.main import app
from modelyard.client import Tokens

Run = Callable[..., Result]


@pytest.fixture
def yard() -> Iterator[Yard]:
    with serving() as yard:
        yield yard


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str | None]:
    nothing = dict.fromkeys(("MODELYARD_SERVER", "MODELYARD_TOKEN", "MODELYARD_OWNER", "FORCE_COLOR"))
    own = {"MODELYARD_DATA": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config"), "LOGNAME": "local", "NO_COLOR": "1"}
    return {**nothing, **own}


@pytest.fixture
def run(variables: dict[str, str | None]) -> Run:
    runner = CliRunner(env=variables)

    def run(*words: str, **more: object) -> Result:
        return runner.invoke(app, list(words), **more)

    return run


@pytest.fixture
def log_ins(tmp_path: Path) -> Path:
    return tmp_path / "config" / "modelyard" / "log-ins.json"


@pytest.fixture
def at(run: Run, yard: Yard) -> Run:
    """Runs commands at the server, with nothing but what they find."""
    return lambda *words, **more: run(*words, "--server", yard.url, **more)


@pytest.fixture
def logged_in(at: Run) -> Run:
    assert at("login", "--username", "ada", "--password-stdin", input=f"{PASSWORD}\n").exit_code == 0
    return at


@pytest.fixture
def here(run: Run, yard: Yard, tmp_path: Path) -> Run:
    """Runs commands on the machine that holds the data folder."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "server.json").write_text(json.dumps({"url": yard.url, "pid": 1}))
    (data / "owner.token").write_text(f"{KEY}\n")
    return run


def test_a_log_in_is_kept_for_its_user_alone_and_speaks_for_them(at: Run, yard: Yard, log_ins: Path) -> None:
    told = at("login", "--username", "ada", "--password-stdin", input=f"{PASSWORD}\n")

    assert (told.exit_code, told.stdout) == (0, f"logged in at {yard.url} as ada\n")
    assert stat.S_IMODE(log_ins.stat().st_mode) == 0o600
    assert stat.S_IMODE(log_ins.parent.stat().st_mode) == 0o700
    assert PASSWORD not in log_ins.read_text()
    assert PASSWORD not in told.output
    assert at("show", "fruit").exit_code == 0
    assert yard.last("GET").path == "/models/ada/fruit", "the default owner is whoever is logged in"
    assert at("token").stdout == "access-1\n"


@pytest.mark.parametrize("words", [("login",), ("login", "--username", "ada"), ("users", "password", "ada")])
def test_nothing_is_asked_off_a_terminal(at: Run, words: tuple[str, ...], yard: Yard) -> None:
    ended = at(*words)

    assert ended.exit_code == 2
    assert "--password-stdin" in ended.stderr.splitlines()[-1]
    assert yard.accounts.trades == 0


def test_a_wrong_password_is_told_and_keeps_nothing(at: Run, log_ins: Path) -> None:
    ended = at("login", "--username", "ada", "--password-stdin", input="guess\n")

    assert (ended.exit_code, ended.stderr) == (1, "Error: It is password_wrong.\nTry: Log in.\n")
    assert not log_ins.exists()


def test_a_token_that_is_about_to_end_is_renewed_and_kept(logged_in: Run, yard: Yard, log_ins: Path) -> None:
    entry = json.loads(log_ins.read_text())
    entry[yard.url]["ends_at"] = 0
    log_ins.write_text(json.dumps(entry))

    assert [logged_in("token").stdout for _ in range(2)] == ["access-2\n"] * 2
    assert yard.accounts.trades == 2
    assert json.loads(log_ins.read_text())[yard.url]["refresh_token"] == "refresh-2"


def test_a_token_that_the_server_refuses_is_renewed_once_and_the_call_repeated(logged_in: Run, yard: Yard) -> None:
    yard.accounts.refused = {"access-1"}

    assert logged_in("list").exit_code == 0
    assert (yard.accounts.trades, logged_in("token").stdout) == (2, "access-2\n")


def test_commands_at_once_do_not_burn_the_log_in(logged_in: Run, yard: Yard, log_ins: Path, variables: dict[str, str | None]) -> None:
    entry = json.loads(log_ins.read_text())
    entry[yard.url]["ends_at"] = 0
    log_ins.write_text(json.dumps(entry))
    environment = {**os.environ, **{name: value for name, value in variables.items() if value is not None}}
    words = [sys.executable, "-m", "modelyard", "token", "--server", yard.url]

    began = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {each.communicate(timeout=60)[0] for each in began}

    assert (said, yard.accounts.trades) == ({"access-2\n"}, 2)


def test_a_log_in_that_has_ended_is_told_with_the_command_that_mends_it(logged_in: Run, yard: Yard) -> None:
    yard.accounts.generation = 0

    ended = logged_in("list")

    assert (ended.exit_code, ended.stderr.splitlines()[0]) == (1, f"Error: The log-in at {yard.url} has ended.")
    assert f"modelyard login --server {yard.url}" in ended.stderr.splitlines()[-1]


def test_a_server_that_is_ill_does_not_end_a_log_in(logged_in: Run, yard: Yard, log_ins: Path) -> None:
    before = log_ins.read_text()
    yard.refusals["GET", "/models"] = problem(503, "unavailable")

    assert logged_in("list").exit_code == 5
    assert log_ins.read_text() == before


def test_logout_ends_it_there_and_here(logged_in: Run, yard: Yard, log_ins: Path) -> None:
    assert logged_in("logout").stdout == f"logged out at {yard.url}\n"

    assert (yard.last("POST").path, yard.accounts.generation) == ("/auth/logout", 0)
    assert json.loads(log_ins.read_text()) == {}
    assert logged_in("logout").exit_code == 3


def test_a_log_in_that_others_can_read_is_refused(logged_in: Run, log_ins: Path) -> None:
    log_ins.chmod(0o644)

    ended = logged_in("list")

    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (1, f"Try: chmod 600 {log_ins}")


@pytest.mark.parametrize("content", ["{", "[]", '{"URL": {"what": 1}}'])
def test_a_file_of_log_ins_that_holds_none_is_told(logged_in: Run, yard: Yard, log_ins: Path, content: str) -> None:
    log_ins.write_text(content.replace("URL", yard.url))

    ended = logged_in("list")

    assert (ended.exit_code, "log-ins" in ended.stderr) == (1, True)
    assert ended.stderr.splitlines()[-1] == f"Try: rm {log_ins}, then modelyard login"


def test_tokens_are_found_in_their_order(here: Run, yard: Yard) -> None:
    assert here("token").stdout == f"{KEY}\n"
    assert here("login", "--username", "ada", "--password-stdin", input=f"{PASSWORD}\n").exit_code == 0
    assert here("token").stdout == "access-1\n"
    assert here("token", env={"MODELYARD_TOKEN": "my_set"}).stdout == "my_set\n"
    assert here("token", "--token", "my_said", env={"MODELYARD_TOKEN": "my_set"}).stdout == "my_said\n"
    assert json.loads(here("token", "--json").stdout) == {"token": "access-1"}


def test_the_owner_s_key_is_shown_to_no_other_server(here: Run, yard: Yard) -> None:
    with serving() as other:
        ended = here("list", "--server", other.url, "--owner", "ada")
        assert (ended.exit_code, [each.headers.get("authorization") for each in other.seen]) == (1, [None])
        assert here("token", "--server", other.url).exit_code == 5
    assert here("list", "--server", f"{yard.url}/", "--owner", "ada").exit_code == 0


def test_on_the_machine_with_the_data_folder_the_default_owner_is_the_local_user(here: Run, yard: Yard) -> None:
    yard.models = [row("local")]

    assert "local/fruit" in here("show", "fruit").stdout
    assert [each.path for each in yard.seen] == ["/models/local/fruit"]


def test_a_list_is_of_all_models_that_the_caller_sees_unless_an_owner_is_named(here: Run, yard: Yard) -> None:
    yard.models = [row("ada"), row("bob")]

    told = here("list")

    assert [line.split()[0] for line in told.stdout.splitlines()] == ["MODEL", "ada/fruit", "bob/fruit"]
    assert "ada/fruit" not in here("list", "--owner", "bob").stdout
    assert [each.path for each in yard.seen] == ["/models", "/models/bob"]


def test_a_list_of_nothing_says_how_it_begins(here: Run, yard: Yard) -> None:
    yard.models = []

    assert "You see no models yet. Try: modelyard upload DIR" in here("list").stderr
    assert "bob has no models yet." in here("list", "--owner", "bob").stderr


def test_a_token_that_was_named_says_who_the_default_owner_is(at: Run, yard: Yard) -> None:
    assert at("show", "fruit", "--token", KEY).exit_code == 0
    assert [each.path for each in yard.seen] == ["/auth/me", "/models/ada/fruit"]


def test_a_key_for_calls_alone_needs_the_owner_to_be_named(at: Run, yard: Yard) -> None:
    yard.refusals["GET", "/auth/me"] = problem(403, "scope_too_small")

    ended = at("predict", "fruit", "-d", "{}", "--token", KEY)

    assert (ended.exit_code, "--owner" in ended.stderr) == (2, True)
    assert at("predict", "ada/fruit", "-d", "{}", "--token", KEY).exit_code == 0


def test_keys_are_made_shown_once_listed_and_revoked(here: Run, yard: Yard) -> None:
    made = here("keys", "create", "camera", "--scope", "predict:ada/fruit", "--scope", "models:read", "--expires", "30d")

    assert (made.exit_code, made.stdout) == (0, "my_new_key\n")
    assert json.loads(yard.last("POST").body) == {"name": "camera", "scopes": ["predict:ada/fruit", "models:read"], "expires_in_s": 2592000}
    listed = here("keys", "list")
    assert listed.stdout.splitlines()[1].split()[:2] == ["key0", "camera"]
    assert "my_new_key" not in listed.stdout
    assert here("keys", "list", "--user", "ada").exit_code == 0
    assert yard.last("GET").query == {"username": ["ada"]}
    assert here("keys", "revoke", "key0").stdout == "revoked key0\n"
    assert yard.accounts.keys == []


@pytest.mark.parametrize("time", ["30", "d", "0d", "-1d", "1w", "1.5h", "9999999d"])
def test_a_length_of_time_that_is_none_is_told(here: Run, yard: Yard, time: str) -> None:
    ended = here("keys", "create", "--expires", time)

    assert (ended.exit_code, yard.accounts.keys) == (2, [])
    assert ended.stderr.splitlines()[-1].startswith("Try: ")


def test_accounts_are_made_and_changed_by_administrators(here: Run, yard: Yard) -> None:
    made = here("users", "create", "bob", "--role", "viewer", "--password-stdin", input=f"{PASSWORD}\n")
    assert (made.exit_code, made.stdout) == (0, "bob  viewer\n")
    assert json.loads(yard.last("POST").body) == {"username": "bob", "role": "viewer", "password": PASSWORD}

    waiting = here("users", "create", "carol")
    assert "Try: modelyard users invite carol" in waiting.stderr
    assert here("users", "invite", "carol").stdout == "http://localhost/signup?invite=carol\n"
    assert here("users", "set-role", "bob", "member").stdout == "bob  member  active\n"
    assert here("users", "disable", "bob").stdout == "bob  member  disabled\n"
    assert here("users", "enable", "bob").stdout == "bob  member  active\n"
    assert here("users", "password", "bob", "--password-stdin", input=f"{PASSWORD}\n").exit_code == 0
    assert yard.last("PUT").path == "/auth/users/bob/password"
    assert [line.split()[0] for line in here("users", "list").stdout.splitlines()] == ["USERNAME", "ada", "bob", "carol"]
    assert here("users", "set-role", "bob", "king").exit_code == 2


def test_a_model_is_shared_and_shown(here: Run, yard: Yard) -> None:
    assert here("share", "ada/fruit").stdout.splitlines() == ["model      ada/fruit", "called by  ada, bob"]
    assert {each.method for each in yard.seen} == {"GET"}

    here("share", "ada/fruit", "--with", "carol", "--with", "bob", "--without", "dora")
    assert yard.accounts.access == {"public": False, "users": ["bob", "carol"]}
    here("share", "ada/fruit", "--without", "bob", "--public")
    assert yard.accounts.access == {"public": True, "users": ["carol"]}
    assert "anybody" in here("share", "ada/fruit").stdout
    here("share", "ada/fruit", "--private")
    assert yard.accounts.access == {"public": False, "users": ["carol"]}
    assert here("share", "ada/fruit", "--with", "bob", "--without", "bob").exit_code == 2


def test_a_model_s_log_and_its_pages_address(here: Run, yard: Yard) -> None:
    assert here("logs", "ada/fruit", "-n", "2").stdout == "one\ntwo [2J\n"
    assert yard.last("GET").query == {"lines": ["2"]}
    assert json.loads(here("logs", "ada/fruit", "--json").stdout)["lines"] == ["one", "two \x1b[2J"]
    assert here("open", "ada/fruit").stdout == f"{yard.url}/open/ada/fruit\n"


def test_events_are_listed_and_followed(here: Run, yard: Yard) -> None:
    assert here("events", "list").stdout.splitlines()[1].split() == ["2026-01-02T03:04:05Z", "model.uploaded", "ada/fruit", "version=1"]
    assert [each["cursor"] for each in json.loads(here("events", "list", "--after", "c2", "--json").stdout)] == ["c3"]


@pytest.mark.parametrize(
    ("words", "cursors"), [((), ["c1", "c2", "c3"]), (("-n", "1"), ["c3"]), (("-n", "0"), []), (("--after", "c1", "--all"), ["c2", "c3"])]
)
def test_a_tail_that_does_not_follow_ends_with_what_is_there(here: Run, words: tuple[str, ...], cursors: list[str]) -> None:
    ended = here("events", "tail", "--no-follow", "--json", *words)

    assert (ended.exit_code, [json.loads(line)["cursor"] for line in ended.stdout.splitlines()]) == (0, cursors)


def test_a_tail_begins_with_the_last_events_and_goes_on_behind_them(here: Run, yard: Yard, variables: dict[str, str | None]) -> None:
    environment = {**os.environ, **{name: value for name, value in variables.items() if value is not None}}
    words = [sys.executable, "-m", "modelyard", "events", "tail", "--json", "-n", "2"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        assert [json.loads(tail.stdout.readline())["cursor"] for _ in range(2)] == ["c2", "c3"]
        yard.accounts.events.append(yard.accounts.events[0] | {"cursor": "c4", "id": "e4"})
        assert json.loads(tail.stdout.readline())["cursor"] == "c4"
        tail.kill()


@pytest.mark.parametrize(
    "words",
    [
        ("keys", "list"),
        ("keys", "create"),
        ("keys", "revoke", "key0"),
        ("users", "list"),
        ("users", "create", "bob"),
        ("users", "invite", "ada"),
        ("users", "disable", "ada"),
        ("share", "ada/fruit"),
        ("logs", "ada/fruit"),
        ("open", "ada/fruit"),
        ("events", "list"),
        ("logout",),
    ],
)
def test_json_stands_alone_on_standard_output(here: Run, words: tuple[str, ...]) -> None:
    if words == ("logout",):
        here("login", "--username", "ada", "--password-stdin", input=f"{PASSWORD}\n")

    ended = here(*words, "--json")

    assert ended.exit_code == 0, ended.output
    assert isinstance(json.loads(ended.stdout), dict | list)


def test_a_crash_while_writing_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    kept = LogIns(tmp_path)
    kept.keep("http://one", "ada", Tokens(access_token="a", refresh_token="r", expires_in=600))
    (tmp_path / f"log-ins.{os.getpid()}").write_text("half of some")

    kept.keep("http://two", "bob", Tokens(access_token="b", refresh_token="s", expires_in=600))

    assert sorted(json.loads((tmp_path / "log-ins.json").read_text())) == ["http://one", "http://two"]
    found = kept.find("http://one")
    assert found is not None
    assert "token" not in repr(found)
