"""What a person does at the local stack by the command line, from a log-in to a log-out."""

import json
from pathlib import Path

from local_stack import FRONT, ROOT, Stack
from test_accounts_journey import PASSWORD, Person

MODEL = "ada/by-hand"
CALL = ("-d", '{"input": "hello"}')
ANSWER = {"prediction": "Processed: hello", "model": "test-model"}
UNKNOWN = 3


def by_command_line(stack: Stack, folder: Path) -> None:
    """Every command that speaks to a server, against nginx and containers."""
    stack.in_shell(f'echo "{PASSWORD}" | modelyard users create ada --password-stdin')
    assert "ada" in stack.modelyard("users", "list")
    ada = Person(stack, folder, "ada")
    ada.said("login", "--username", "ada", "--password-stdin", told=f"{PASSWORD}\n")
    _uploads(ada)
    _looks(ada)
    _lets_others_call(ada)
    ada.said("delete", MODEL, "--yes")
    assert ada.run("show", MODEL).returncode == UNKNOWN
    assert ada.run("predict", MODEL, *CALL).returncode == UNKNOWN
    ada.said("logout")
    assert ada.run("list").returncode != 0


def _uploads(ada: Person) -> None:
    uploaded = json.loads(ada.said("upload", str(ROOT / "examples" / "test-model"), "--model", MODEL, "--json"))
    assert (uploaded["status"], uploaded["docker_image"]) == ("ready", f"ml-models/{MODEL}:latest")
    assert json.loads(ada.said("predict", MODEL, *CALL)) == ANSWER
    # As the flag of the whole program, too.
    assert json.loads(ada.said("--server", FRONT, "predict", MODEL, *CALL)) == ANSWER


def _looks(ada: Person) -> None:
    assert [each["model_name"] for each in json.loads(ada.said("list", "--json"))] == ["by-hand"]
    shown = json.loads(ada.said("show", MODEL, "--json"))
    assert (shown["serving"], shown["state"]) == (1, "running")
    assert "ready: port 8080" in ada.said("build-log", MODEL)
    ada.said("logs", MODEL)
    assert "apps.localhost:8080" in ada.said("open", MODEL) or f"{FRONT}/open/{MODEL}" in ada.said("open", MODEL)
    assert "model.uploaded" in ada.said("events", "list")


def _lets_others_call(ada: Person) -> None:
    key = json.loads(ada.said("keys", "create", "camera", "--scope", f"predict:{MODEL}", "--json"))["key"]
    assert json.loads(ada.said("predict", MODEL, *CALL, MODELYARD_TOKEN=key)) == ANSWER
    assert ada.run("list", MODELYARD_TOKEN=key).returncode != 0
    assert "camera" in ada.said("keys", "list")
    ada.said("share", MODEL, "--with", "testuser")
    assert "testuser" in ada.said("share", MODEL)
