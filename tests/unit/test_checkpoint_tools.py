"""What writes graphs reads what strangers published: a checkpoint that is wrong is refused in words, whatever is wrong with it."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from parts.checkpoints import TOOLS, write_clip, write_mobilenet, write_safetensors
from parts.model_modules import imported

WRITERS: dict[str, Callable[..., Path]] = {"mobilenet": write_mobilenet, "clip": write_clip}
ODD = (None, -1, 0, 7, 1e9, 2**70, "x", [], {}, True, float("nan"))


@pytest.fixture(params=list(WRITERS))
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return WRITERS[request.param](tmp_path / "checkpoint")


def refusals(folder: Path, changes: list[Callable[[], None]]) -> int:
    """How many of these changes are refused; each begins with the folder as it was."""
    kept, refused = shutil.copytree(folder, folder.with_name("kept")), 0
    with imported("tools", "checkpoint", "export") as tools:
        for change in changes:
            for path in kept.iterdir():
                shutil.copyfile(path, folder / path.name)
            change()
            try:
                tools.export.export(folder)
            except tools.checkpoint.CheckpointError:
                refused += 1
    return refused


def test_a_good_one_is_exported_the_same_every_time(checkpoint: Path) -> None:
    graphs = []
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-I", TOOLS, checkpoint], capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 0, ended.stderr
        graphs.append([(checkpoint / name).read_bytes() for name in ended.stdout.split()])
    assert graphs[0] == graphs[1]
    assert sum(map(len, graphs[0])) < (checkpoint / "model.safetensors").stat().st_size, "no tensor is copied"


def test_a_configuration_that_says_anything_is_exported_or_refused(checkpoint: Path, scaled: Callable[[int], int]) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    tables = [(), *((key,) for key in config if key.endswith("_config"))]

    def set_to(table: tuple[str, ...], key: str, value: object) -> Callable[[], None]:
        def change() -> None:
            told = json.loads(json.dumps(config))
            (told[table[0]] if table else told)[key] = value
            (checkpoint / "config.json").write_text(json.dumps(told))

        return change

    changes = [set_to(table, key, value) for table in tables for key in (config[table[0]] if table else config) for value in ODD]
    assert refusals(checkpoint, random.Random(5).sample(changes, min(len(changes), scaled(800)))) > 0


def test_a_header_with_changed_bytes_is_exported_or_refused(checkpoint: Path, scaled: Callable[[int], int]) -> None:
    content, chance = (checkpoint / "model.safetensors").read_bytes(), random.Random(7)
    length = int.from_bytes(content[:8], "little") + 8

    def change() -> None:
        changed = bytearray(content)
        for _ in range(chance.randint(1, 6)):
            changed[chance.randrange(length)] = chance.randrange(256)
        (checkpoint / "model.safetensors").write_bytes(changed)

    assert refusals(checkpoint, [change] * scaled(400)) > 0


def test_tensors_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    folder = write_mobilenet(tmp_path / "checkpoint")

    def change() -> None:
        write_safetensors(folder / "model.safetensors", {"classifier.weight": np.zeros((5, 31), np.float32)})

    assert refusals(folder, [change]) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 64,
        b"\2\0\0\0\0\0\0\0{}",
        b"\4\0\0\0\0\0\0\0[[[[",
        b"\x80\x04cos\nsystem\n",
        b"\x10\0\0\0\0\0\0\0" + b"[" * 16,
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_mobilenet(tmp_path / "checkpoint")
    assert refusals(folder, [lambda: (folder / "model.safetensors").write_bytes(content) and None]) == 1  # type: ignore[func-returns-value]
