"""`modelyard models pull`: from a folder and from a hub, resumed, checked, and without a network."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parts.checkpoints import write_mobilenet
from parts.hub import COMMIT, LoopbackHub, serving
from typer.testing import CliRunner, Result

from modelyard.cli.main import app
from modelyard.domain.weights import ENTRIES

Run = Callable[..., Result]
FILES = {"config.json", "preprocessor_config.json", "model.safetensors", "model.onnx"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_mobilenet(tmp_path / "checkpoint")


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[LoopbackHub]:
    files = {f"{ENTRIES['mobilenet'].hub}/{path.name}": path.read_bytes() for path in checkpoint.iterdir()}
    with serving(LoopbackHub(files)) as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path, hub: LoopbackHub) -> Run:
    runner = CliRunner(env={"MODELYARD_DATA": str(tmp_path / "data"), "MODELYARD_MODELS__HUB_URL": hub.url, "NO_COLOR": "1"})
    return lambda *words: runner.invoke(app, ["models", "pull", *words, "--json"])


def told(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> dict:
    assert result.exit_code != 0
    return json.loads(result.stdout)["error"]


def test_from_a_folder(run: Run, checkpoint: Path) -> None:
    answer = told(run("mobilenet", "--from", str(checkpoint)))
    assert set(answer["files"]) == FILES
    folder = Path(answer["folder"])
    assert (folder / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert not list(folder.parents[1].glob(".pull-*/"))


def test_from_the_hub_all_files_of_one_commit(run: Run, hub: LoopbackHub, checkpoint: Path) -> None:
    answer = told(run("mobilenet"))
    assert (answer["source"], answer["revision"]) == (ENTRIES["mobilenet"].hub, COMMIT)
    assert answer["files"]["model.safetensors"] == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert hub.revisions()[0] == "main"
    assert set(hub.revisions()[2:]) == {COMMIT}


def test_by_another_name_and_revision(run: Run, hub: LoopbackHub) -> None:
    hub.files |= {key.replace(ENTRIES["mobilenet"].hub, "ada/birds"): content for key, content in hub.files.items()}
    assert told(run("mobilenet", "--from", "ada/birds@v2"))["source"] == "ada/birds"
    assert hub.revisions()[0] == "v2"


def test_a_pull_that_ended_half_goes_on(run: Run, hub: LoopbackHub, tmp_path: Path) -> None:
    key = f"{ENTRIES['mobilenet'].hub}/model.safetensors"
    content = hub.files.pop(key)
    assert refused(run("mobilenet"))["code"] == "hub_has_no_such_file"
    stage = tmp_path / "data" / "weights" / ".pull-mobilenet" / "checkpoint"
    assert sorted(path.name for path in stage.iterdir()) == ["config.json", "preprocessor_config.json"]
    (stage / "model.safetensors.part").write_bytes(content[:1000])
    hub.files[key] = content
    hub.asked.clear()
    told(run("mobilenet"))
    assert [(path.rpartition("/")[2], ranged) for method, path, ranged in hub.asked if method == "GET"] == [
        ("model.safetensors", "bytes=1000-"),
        ("model.safetensors", "bytes=1000-"),
    ]


def test_what_is_here_is_checked_and_not_pulled_again(run: Run, hub: LoopbackHub) -> None:
    folder = Path(told(run("mobilenet"))["folder"])
    hub.asked.clear()
    assert told(run("mobilenet"))["folder"] == str(folder)
    assert told(run("mobilenet", "--offline"))["folder"] == str(folder)
    assert hub.asked == []
    (folder / "model.safetensors").write_bytes(b"changed")
    assert refused(run("mobilenet"))["code"] == "weights_broken"
    assert told(run("mobilenet", "--again"))["folder"] == str(folder)
    assert told(run("mobilenet", "--offline"))["folder"] == str(folder)


def test_offline_asks_no_hub(run: Run, hub: LoopbackHub, checkpoint: Path) -> None:
    assert refused(run("mobilenet", "--offline"))["code"] == "weights_missing"
    assert refused(run("mobilenet", "--offline", "--from", "ada/birds"))["code"] == "offline"
    assert told(run("mobilenet", "--offline", "--from", str(checkpoint)))
    assert hub.asked == []


def test_a_digest_that_was_asked_for_must_be_met(run: Run, checkpoint: Path) -> None:
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert refused(run("mobilenet", "--from", str(checkpoint), "--sha256", "0" * 64))["code"] == "digest_differs"
    assert refused(run("mobilenet", "--offline"))["code"] == "weights_missing"
    assert told(run("mobilenet", "--from", str(checkpoint), "--sha256", digest.upper()))


def test_what_cannot_be_used_leaves_what_was_there(run: Run, tmp_path: Path, checkpoint: Path) -> None:
    before = told(run("mobilenet", "--from", str(checkpoint)))
    bad = write_mobilenet(tmp_path / "bad", model_type="resnet")
    wrong = refused(run("mobilenet", "--from", str(bad)))
    assert (wrong["code"], "resnet" in wrong["message"]) == ("checkpoint_invalid", True)
    assert told(run("mobilenet", "--offline")) == before


def test_a_pickle_in_the_place_of_tensors_is_never_opened(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    payload = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    for name in ("model.safetensors", "pytorch_model.bin"):
        (checkpoint / name).write_bytes(payload)
    assert refused(run("mobilenet", "--from", str(checkpoint)))["code"] == "checkpoint_invalid"
    (checkpoint / "model.safetensors").unlink()
    assert refused(run("mobilenet", "--from", str(checkpoint)))["code"] == "checkpoint_invalid"
    assert not canary.exists()


@pytest.mark.parametrize(("words", "code"), [(["gpt"], "no_such_weights"), (["mobilenet", "--from", "no-such-folder"], "source_invalid")])
def test_names_that_are_none(run: Run, words: list[str], code: str) -> None:
    assert refused(run(*words))["code"] == code
