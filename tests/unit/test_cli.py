"""The command line against a server on loopback: what it prints where, and what it ends with."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from protocol_accounts import KEY
from protocol_server import BUILD, VERSION, Yard, problem, row, serving
from typer.testing import CliRunner, Result

from modelyard import __version__
from modelyard.cli.invocation import local_username
from modelyard.cli.main import app

Run = Callable[..., Result]
COMMANDS = (
    *("up", "demo", "upload", "list", "show", "predict", "build-log", "delete", "doctor", "token", "config show", "migrate"),
    *("login", "logout", "keys create", "keys list", "keys revoke", "share", "logs", "open", "events list", "events tail"),
    *("disk", "gc"),
    *("users create", "users list", "users invite", "users set-role", "users disable", "users enable", "users password"),
)


@pytest.fixture
def yard() -> Iterator[Yard]:
    with serving() as yard:
        yield yard


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def own_folder(data: Path) -> dict[str, str]:
    """Log-ins of the test's own: those of whoever runs it are none of its business."""
    return {"XDG_CONFIG_HOME": str(data.parent / "config")}


@pytest.fixture
def run(data: Path) -> Run:
    nothing = dict.fromkeys(("MODELYARD_SERVER", "MODELYARD_TOKEN", "FORCE_COLOR"))
    runner = CliRunner(env={**nothing, "MODELYARD_DATA": str(data), "MODELYARD_OWNER": "ada", "NO_COLOR": "1", **own_folder(data)})

    def run(*words: str, **more: object) -> Result:
        return runner.invoke(app, list(words), **more)

    return run


@pytest.fixture
def yarded(run: Run, yard: Yard, data: Path) -> Run:
    data.mkdir()
    (data / "server.json").write_text(json.dumps({"url": yard.url, "pid": 1}))
    (data / "owner.token").write_text(f"{KEY}\n")
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "Fruit Sorter"
    root.mkdir()
    (root / "app.py").write_text("app = 1\n")
    (root / ".git").mkdir()
    return root


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_two_examples(run: Run, name: str) -> None:
    told = run(*name.split(), "-h")

    before_options = told.stdout.partition("Options")[0]
    assert told.exit_code == 0
    assert before_options.partition("Examples:")[2].count(f"modelyard {name}") == 2


def test_version_and_the_list_of_commands(run: Run) -> None:
    assert run("--version").stdout == f"modelyard {__version__}\n"
    told = run().stdout
    assert all(name.split()[0] in told for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "has"),
    [
        (("list",), {"model_name": "fruit"}),
        (("show", "fruit"), {"id": VERSION}),
        (("predict", "fruit", "-d", "{}"), {"prediction": "application/json 2"}),
        (("build-log", "fruit"), {"lines": ["found: Flask app", "installing", "ready"]}),
        (("build-log", "-f", BUILD), {"lines": ["found: Flask app", "installing", "ready"]}),
        (("delete", "fruit", "--yes"), {"status": "deleted"}),
        (("delete", "fruit", "--dry-run"), {"would_delete": "ada/fruit", "versions": [2, 1]}),
        (("token",), {"token": KEY}),
        (("token", "--link"), {}),
        (("config", "show"), {"name": "apps_domain"}),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_json_stands_alone_on_standard_output(yarded: Run, words: tuple[str, ...], has: dict[str, object], *, before: bool) -> None:
    ended = yarded("--json", *words) if before else yarded(*words, "--json")

    document = json.loads(ended.stdout)
    first = document[0] if isinstance(document, list) else document
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert has.items() <= first.items()


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ("list",),
            ["MODEL      VERSION  STATUS  CREATED               DESCRIPTION", "ada/fruit  1        ready   2026-01-02T03:04:05Z  sorts"],
        ),
        (("predict", "fruit", "-d", "{}"), ['{"prediction": "application/json 2"}']),
        (("predict", "fruit", "--path", "words"), ["a [31mred[0m word"]),
        (("build-log", "fruit"), ["found: Flask app", "installing", "ready"]),
        (("build-log", "-f", "ada/fruit"), ["found: Flask app", "installing", "ready"]),
        (("delete", "fruit", "-y"), ["deleted ada/fruit, 7 bytes freed, 5 bytes kept"]),
        (("token",), [KEY]),
    ],
)
def test_data_is_plain_lines_off_a_terminal(yarded: Run, words: tuple[str, ...], lines: list[str]) -> None:
    ended = yarded(*words)

    assert (ended.exit_code, ended.stdout.splitlines(), ended.stderr) == (0, lines, "")


def test_show_names_versions_and_address(yarded: Run, yard: Yard) -> None:
    shown = yarded("show", "ada/fruit").stdout

    assert f"url          {yard.url}/m/ada/fruit/" in shown
    assert "version 2    ready  version-2" in shown


@pytest.mark.parametrize(
    ("refusal", "exit_code"),
    [
        (problem(400, "malformed"), 1),
        (problem(401, "unauthenticated"), 1),
        (problem(403, "forbidden"), 1),
        (problem(404, "not_found"), 3),
        (problem(409, "in_flight"), 4),
        (problem(413, "too_large"), 1),
        (problem(422, "refused", errors=[{"field": "file", "message": "no"}]), 1),
        (problem(429, "limited", headers={"Retry-After": "7"}), 1),
        (problem(500, "internal"), 1),
        (problem(502, "bad_answer"), 1),
        (problem(503, "not_ready"), 5),
        (problem(504, "too_slow"), 1),
        (problem(507, "disk_full"), 1),
    ],
)
def test_every_refusal_ends_with_its_exit_code_and_its_mend(yarded: Run, yard: Yard, refusal: tuple, exit_code: int) -> None:
    yard.refusals["GET", "/models/ada"] = refusal
    code = refusal[1]["code"]

    plain, as_json = yarded("list"), yarded("list", "--json")

    assert (plain.exit_code, plain.stdout, plain.stderr) == (exit_code, "", f"Error: It is {code}.\nTry: Do it better.\n")
    told = json.loads(as_json.stdout)["error"]
    assert (told["code"], told["status"], told["exit_code"], told["mend"]) == (code, refusal[0], exit_code, "Do it better.")


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (("show", "missing"), 3),
        (("build-log", "missing"), 3),
        (("delete", "fruit", "--version", "9", "--yes"), 3),
        (("delete", "fruit"), 2),
        (("show", "No_Such--Name"), 2),
        (("show", "root/fruit"), 2),
        (("upload", "/nowhere/at/all"), 2),
        (("predict", "fruit", "-d", "{not json"), 2),
        (("predict", "fruit", "-d", "@/nowhere.json"), 2),
        (("predict", "fruit", "-f", "image"), 2),
        (("predict", "fruit", "-f", "image=@/nowhere.jpg"), 2),
        (("predict", "fruit", "-d", "{}", "-f", "a=b"), 2),
        (("predict", "fruit", "--path", "/teapot"), 1),
        (("upload",), 2),
        (("lits",), 2),
        (("list", "--no-such-flag"), 2),
        (("config",), 2),
        (("up", "--port", "99999"), 2),
    ],
)
def test_every_failure_ends_with_what_to_try(yarded: Run, words: tuple[str, ...], exit_code: int) -> None:
    plain, as_json = yarded(*words), yarded(*words, "--json")

    assert (plain.exit_code, as_json.exit_code) == (exit_code, exit_code)
    assert plain.stderr.splitlines()[-1].startswith("Try: ")
    assert len(plain.stderr.splitlines()[-1]) > len("Try: ")
    assert "Traceback" not in plain.output
    assert json.loads(as_json.stdout)["error"]["exit_code"] == exit_code


def test_a_wrong_key_in_the_flag_is_told(yarded: Run) -> None:
    assert "Try: Pass a key." in yarded("list", "--token", "my_other").stderr


def test_no_server_ends_with_5_and_names_the_command_that_starts_one(run: Run, data: Path) -> None:
    ended = run("list")

    assert ended.exit_code == 5
    assert ended.stderr.splitlines() == [f"Error: No server runs on {data}.", f"Try: modelyard up --data {data}"]


def test_a_server_that_is_gone_ends_with_5(run: Run, data: Path) -> None:
    data.mkdir()
    (data / "server.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1}')

    ended = run("list")

    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (5, f"Try: modelyard up --data {data}")


def test_a_flag_wins_over_the_environment_and_that_over_the_data_folder(run: Run, yard: Yard, data: Path) -> None:
    data.mkdir()
    (data / "server.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1}')
    (data / "owner.token").write_text("my_wrong")
    right, wrong = (
        {"MODELYARD_SERVER": yard.url, "MODELYARD_TOKEN": KEY},
        {"MODELYARD_SERVER": "http://127.0.0.1:2", "MODELYARD_TOKEN": "my_wrong"},
    )

    assert run("list", env=right).exit_code == 0
    assert run("list", env=wrong).exit_code == 5
    assert run("list", "--server", yard.url, "--token", KEY, env=wrong).exit_code == 0
    assert run("--server", yard.url, "--token", KEY, "list", env=wrong).exit_code == 0
    assert run("--server", "http://127.0.0.1:3", "list", "--server", yard.url, "--token", KEY).exit_code == 0


def test_a_token_is_found_for_any_command_and_missing_ones_are_told(run: Run) -> None:
    missing = run("token")

    assert (missing.exit_code, missing.stdout) == (5, "")
    assert run("token", "--token", "my_said").stdout == "my_said\n"


def test_upload_packs_watches_and_tells_the_address(yarded: Run, yard: Yard, folder: Path) -> None:
    ended = yarded("upload", str(folder), "--description", "sorts")

    assert ended.exit_code == 0
    assert ended.stdout == f"ready  ada/fruit-sorter  version 1  {yard.url}/m/ada/fruit-sorter/\n"
    assert ended.stderr.splitlines() == [
        "left out: .git",
        "uploading Fruit Sorter.zip as ada/fruit-sorter ...",
        "  found: Flask app",
        "  installing",
        "  ready",
    ]
    assert b'filename="Fruit Sorter.zip"' in yard.last("POST").body


def test_upload_answers_json_alone_while_it_talks_on_standard_error(yarded: Run, yard: Yard, folder: Path) -> None:
    ended = yarded("upload", str(folder), "--model", "bob/pear", "--json")

    document = json.loads(ended.stdout)
    assert (document["username"], document["model_name"], document["status"]) == ("bob", "pear", "ready")
    assert document["url"] == f"{yard.url}/m/bob/pear/"
    assert "installing" in ended.stderr


def test_upload_does_not_watch_where_it_need_not(yarded: Run, yard: Yard, folder: Path) -> None:
    assert yarded("upload", str(folder), "--no-wait").stdout.startswith("received  ada/")
    yard.upload = {"status": "ready", "duplicate": True}
    again = yarded("upload", str(folder))

    assert again.stdout.startswith("ready  ada/")
    assert "these bytes are version 1 already" in again.stderr
    assert {each.method for each in yard.seen} == {"POST"}


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_failed_build_ends_with_its_reason_and_mend(yarded: Run, yard: Yard, folder: Path, status: str) -> None:
    yard.build = {"status": status, "reason": "no_entry", "message": "No app was found.", "mend": "Add app.py."}

    ended, as_json = yarded("upload", str(folder)), yarded("upload", str(folder), "--json")

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-2:] == ["Error: No app was found.", "Try: Add app.py."]
    assert json.loads(as_json.stdout)["error"]["build"]["status"] == status


def test_a_hostile_log_cannot_steer_the_terminal(yarded: Run, yard: Yard, folder: Path) -> None:
    yard.log = ["\x1b]0;title\x07\x9b2Jtext [red]not markup[/red]"]

    assert yarded("upload", str(folder)).stderr.splitlines()[-1] == "  ]0;title2Jtext [red]not markup[/red]"
    assert yarded("build-log", "-f", "fruit").stdout == "]0;title2Jtext [red]not markup[/red]\n"


def test_predict_takes_files_fields_and_standard_input(yarded: Run, yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "apple.jpg").write_bytes(b"JPEG")
    (tmp_path / "body.json").write_text('{"input": 1}')

    yarded("predict", "fruit", "-f", f"image=@{tmp_path / 'apple.jpg'}", "-f", "top=3")
    assert b'filename="apple.jpg"\r\nContent-Type: image/jpeg\r\n\r\nJPEG\r\n' in yard.last("POST").body
    yarded("predict", "fruit", "-d", f"@{tmp_path / 'body.json'}")
    assert json.loads(yard.last("POST").body) == {"input": 1}
    yarded("predict", "fruit", "-d", "@-", input='{"input": 2}')
    assert json.loads(yard.last("POST").body) == {"input": 2}


def test_predict_writes_bytes_as_they_are(yarded: Run) -> None:
    assert yarded("predict", "fruit", "--path", "/picture", "-X", "get").stdout_bytes == b"\x89PNG\x00\xff"


def test_a_models_own_error_shows_its_words(yarded: Run) -> None:
    ended = yarded("predict", "fruit", "--path", "/teapot")

    assert ended.stdout == '{"error": "teapot"}\n'
    assert "Error: The model answered 418" in ended.stderr


def test_delete_takes_one_version_by_its_number(yarded: Run, yard: Yard) -> None:
    yarded("delete", "fruit", "--version", "2", "--yes", "--purge")

    assert (yard.last("DELETE").path, yard.last("DELETE").query) == ("/models/version-2", {"purge": ["true"]})


def test_nothing_is_deleted_without_a_yes(yarded: Run, yard: Yard) -> None:
    yarded("delete", "fruit")
    yarded("delete", "fruit", "--dry-run")

    assert "DELETE" not in {each.method for each in yard.seen}


def test_an_empty_list_says_so_and_prints_an_empty_table(yarded: Run, yard: Yard) -> None:
    yard.models = []

    assert json.loads(yarded("list", "--json").stdout) == []
    assert "Try: modelyard upload" in yarded("list").stderr


def test_completion_offers_the_servers_models_and_stays_silent_without_one(yarded: Run, yard: Yard, data: Path) -> None:
    yard.models = [row(model_name="fruit"), row(model_name="frog"), row(model_name="apple"), row("bob", "frame")]

    def complete(words: str) -> list[str]:
        shell = {"_MODELYARD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        return yarded(env=shell, prog_name="modelyard").stdout.split()

    assert complete("modelyard show fr") == ["fruit", "frog"]
    assert complete("modelyard show bob/fr") == ["bob/frame"]
    (data / "server.json").unlink()
    assert complete("modelyard show fr") == []


def test_a_broken_settings_file_is_told_in_words(run: Run, data: Path) -> None:
    data.mkdir()
    (data / "settings.toml").write_text("port = 'many'\n")

    ended = run("config", "show")

    assert ended.exit_code == 2
    assert "port" in ended.stderr
    assert "Try: " in ended.stderr.splitlines()[-1]


def test_config_names_the_source_of_each_setting(run: Run, data: Path) -> None:
    data.mkdir()
    (data / "settings.toml").write_text("port = 9001\n")
    shown = json.loads(run("config", "show", "--json", env={"MODELYARD_HOST": "::1"}).stdout)

    told = {each["name"]: (each["value"], each["source"]) for each in shown}
    assert told["port"] == ("9001", str(data / "settings.toml"))
    assert told["host"] == ("::1", "environment")
    assert told["log_level"] == ("info", "default")


def test_the_local_username_is_one_that_uploads_may_use(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, expected in {"root": "root-1", "Ada Lovelace": "ada-lovelace", "modelyard": "modelyard-1", "_": "model"}.items():
        monkeypatch.setenv("LOGNAME", name)
        assert local_username() == expected


def test_the_doctor_leaves_nothing(run: Run, data: Path) -> None:
    assert run("doctor", "--json").exit_code in {0, 5}
    assert not data.exists()
