"""Weights are in force when they are whole, and stay what they were when they came."""

import stat
from pathlib import Path

import pytest

from modelyard.domain.errors import Conflict
from modelyard.weights.folder import RECORD, WeightsFolder, broken


def gathered(folder: Path, text: str = "weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_text(text)
    (folder / "config.json").write_text("{}")
    return folder


def test_there_is_nothing_before_a_pull_has_ended(tmp_path: Path) -> None:
    weights = WeightsFolder(tmp_path)
    assert weights.kept("mobilenet") is None
    with weights.pulling("mobilenet") as stage:
        gathered(stage / "checkpoint")
        assert weights.kept("mobilenet") is None


def test_what_is_put_is_in_force_and_open_to_apps_alone_in_reading(tmp_path: Path) -> None:
    weights = WeightsFolder(tmp_path)
    kept = weights.put("mobilenet", gathered(tmp_path / "stage"), "owner/name", "abc")
    assert weights.kept("mobilenet") == kept
    assert (kept.source, kept.revision, sorted(kept.files)) == ("owner/name", "abc", ["config.json", "model.onnx"])
    assert broken(kept) == []
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in (*kept.folder.iterdir(), tmp_path / "mobilenet" / RECORD)} == {0o644}


def test_the_next_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    weights = WeightsFolder(tmp_path)
    first = weights.put("mobilenet", gathered(tmp_path / "stage"), "a/b", "")
    second = weights.put("mobilenet", gathered(tmp_path / "stage", "others"), "a/b", "")
    assert weights.kept("mobilenet") == second
    assert second.folder != first.folder
    assert not first.folder.exists()


def test_the_same_again_is_the_same_folder(tmp_path: Path) -> None:
    weights = WeightsFolder(tmp_path)
    first = weights.put("mobilenet", gathered(tmp_path / "one"), "a/b", "")
    again = weights.put("mobilenet", gathered(tmp_path / "two"), "/a/folder", "")
    assert again.folder == first.folder
    assert again.source == "/a/folder"


def test_what_changed_since_is_named(tmp_path: Path) -> None:
    kept = WeightsFolder(tmp_path).put("mobilenet", gathered(tmp_path / "stage"), "a/b", "")
    (kept.folder / "model.onnx").write_text("changed")
    (kept.folder / "config.json").unlink()
    assert broken(kept) == ["config.json", "model.onnx"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"folder": "x"}', '{"folder": "gone", "source": "", "revision": "", "files": {}}'])
def test_a_record_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "mobilenet").mkdir()
    (tmp_path / "mobilenet" / RECORD).write_text(text)
    assert WeightsFolder(tmp_path).kept("mobilenet") is None


def test_two_do_not_pull_the_same_at_once(tmp_path: Path) -> None:
    weights = WeightsFolder(tmp_path)
    with weights.pulling("clip"):
        with pytest.raises(Conflict) as refused, weights.pulling("clip"):
            pass
        assert refused.value.code == "pull_in_progress"
        with weights.pulling("mobilenet"):
            pass
    with weights.pulling("clip"):
        pass
