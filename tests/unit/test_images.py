"""No word of an upload is part of a Dockerfile or of a command, whichever way an image is made; and what stands in what is loaded."""

import fnmatch
import hashlib
import io
import json
import random
import string
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from modelyard.domain.plan import Plan
from modelyard.runtime.engine import EngineRefusedError, Json
from modelyard.runtime.engine_names import code_image
from upload_service import image_recipes
from upload_service.base_image import BaseImage
from upload_service.builders import BuildError, Source
from upload_service.image_recipes import dockerfile
from upload_service.images import Images

YARD = "0123456789ab"
BASE = BaseImage(
    id="sha256:" + "b" * 64,
    name="python:3.11-slim-bookworm",
    diff_ids=("sha256:" + "d" * 64,),
    size_bytes=1,
    platform=("linux", "amd64"),
    python=(3, 11, 2),
    executable="/usr/bin/python3",
    interpreters=("/usr/bin/python3",),
    uv_platform="x86_64-manylinux_2_36",
    cache_tag="cpython-311",
)


@dataclass
class Shelf:
    """The verbs of an engine that make images: it keeps what it is given, and checks it as an engine does.

    Args:
        refuses: Why it takes no layer alone.
    """

    refuses: str = ""
    builds: list[tuple[dict[str, bytes], Mapping[str, str], Mapping[str, str]]] = field(default_factory=list)
    shelf: dict[str, dict[str, Any]] = field(default_factory=dict)

    def image(self, reference: str) -> Json | None:
        return self.shelf.get(reference) or next((each for each in self.shelf.values() if each["Id"] == reference), None)

    def images(self, pattern: str) -> list[str]:
        return sorted(tag for tag in self.shelf if fnmatch.fnmatchcase(tag, pattern))

    def load(self, parts: Iterable[bytes]) -> None:
        files = read(b"".join(parts))
        if self.refuses:
            raise EngineRefusedError(500, self.refuses)
        (told,) = json.loads(files["manifest.json"])
        config = json.loads(files[told["Config"]])
        assert told["Config"] == hashlib.sha256(files[told["Config"]]).hexdigest() + ".json"
        assert len(told["Layers"]) == len(config["rootfs"]["diff_ids"]) == len(config["history"])
        assert set(told["Layers"]) & set(files) == {told["Layers"][-1]}, "the new layer alone is sent"
        layer = files[told["Layers"][-1]]
        assert config["rootfs"]["diff_ids"][-1] == f"sha256:{hashlib.sha256(layer).hexdigest()}"
        self._keep(f"sha256:{told['Config'].removesuffix('.json')}", config, config["rootfs"]["diff_ids"], told["RepoTags"])

    def build(self, context: IO[bytes], tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[str]:
        files = read(context.read())
        self.builds.append((files, arguments, labels))
        below = self.image(arguments["BELOW"])
        diffs = [*(below["RootFS"]["Layers"] if below else BASE.diff_ids), hashlib.sha256(files["layer.tar"]).hexdigest()]
        self._keep(f"sha256:{random.randbytes(32).hex()}", {"config": {"Labels": dict(labels)}}, diffs, [tag])
        yield "Successfully built"

    def tag(self, reference: str, tag: str) -> None:
        found = self.shelf[reference]
        self._keep(found["Id"], {"config": found["Config"]}, found["RootFS"]["Layers"], [tag])

    def untag(self, tag: str) -> None:
        self.shelf.pop(tag, None)

    def _keep(self, image_id: str, config: Mapping[str, Any], diffs: list[str], tags: list[str]) -> None:
        for tag in tags:
            self.shelf[tag] = {"Id": image_id, "Config": config["config"], "RootFS": {"Layers": diffs}, "whole": config}
        for each in self.shelf.values():
            each["RepoTags"] = [tag for tag, other in self.shelf.items() if other["Id"] == each["Id"]]


def read(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as whole:
        return {member.name: (whole.extractfile(member) or io.BytesIO()).read() for member in whole if member.isreg()}


class Silent:
    def __call__(self, *lines: str) -> None:
        """Nobody reads them."""

    def check(self) -> None:
        """Go on."""


def environment() -> Iterator[bytes]:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("env", "env/lib"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
    yield made.getvalue()


def images(shelf: Shelf, folder: Path, *, loads: bool = True) -> Images:
    made = Images(shelf, YARD, folder, loads=loads)  # type: ignore[arg-type]
    made.add_environment("e1", BASE, environment(), "", Silent())
    return made


WORDS = [
    "\nRUN touch /canary",
    "${BELOW}",
    "$(id)",
    "`id`",
    '"], "x": ["',
    "'",
    "\\",
    "#",
    "FROM scratch",
    "\r\n",
    "--privileged",
    "\u2028USER root",
]


def fuzzed(chance: random.Random) -> Plan:
    """A plan whose every free text is hostile."""

    def text() -> str:
        return "".join(chance.choice([*WORDS, *string.ascii_letters]) for _ in range(chance.randint(1, 8)))

    server = chance.choice(["uvicorn", "gunicorn", "command"])
    words = tuple(text() for _ in range(chance.randint(1, 4)))
    return Plan(
        server=server, target=text(), command=words, folder=text(), health=text(), port=chance.randint(1, 65535), requirements=words
    )  # type: ignore[arg-type]


def archive(folder: Path) -> Path:
    path = folder / "app.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("app.py", "print('app')")
    return path


def test_the_dockerfile_is_the_same_for_every_upload(scaled: Callable[[int], int], tmp_path: Path) -> None:
    shelf, chance, packed = Shelf(), random.Random(8), archive(tmp_path)
    made = images(shelf, tmp_path, loads=False)
    for number in range(scaled(1000)):
        told = fuzzed(chance)
        source = Source(f"v{number}", packed, "ada/fruit", number + 1, "ab" * 32, "".join(chance.choices(WORDS, k=3)))
        made.add_code(source, BASE, "e1", told, Silent())
        (files, arguments, labels) = shelf.builds[-1]
        assert hashlib.sha256(files["Dockerfile"]).hexdigest() == hashlib.sha256(dockerfile()).hexdigest()
        assert set(files) == {"Dockerfile", "layer.tar"}
        assert set(arguments) == {"BELOW"}
        assert arguments["BELOW"].startswith("sha256:")
        start = json.loads(read(files["layer.tar"])["srv/start.json"])
        assert start["folder"] == told.folder
        assert labels["org.opencontainers.image.description"] == source.description
    assert len(shelf.builds) == scaled(1000) + 1
    assert "canary" not in dockerfile().decode()


def test_what_is_loaded_says_nothing_of_the_plan_but_in_its_layer(tmp_path: Path) -> None:
    shelf, chance, packed = Shelf(), random.Random(9), archive(tmp_path)
    made = images(shelf, tmp_path)
    seen = set()
    for number in range(20):
        made.add_code(Source(f"v{number}", packed, "ada/fruit", 1, "ab" * 32), BASE, "e1", fuzzed(chance), Silent())
        whole = shelf.shelf[code_image(YARD, f"v{number}")]["whole"]
        labels = whole["config"].pop("Labels")
        assert labels.pop("modelyard.layer_bytes").isdigit()
        whole["rootfs"]["diff_ids"].pop()
        seen.add(json.dumps([whole, labels], sort_keys=True))
    assert len(seen) == 1


def test_an_engine_that_refuses_a_layer_alone_is_asked_once_and_builds_from_then_on(tmp_path: Path) -> None:
    shelf = Shelf(refuses="open /var/tmp/x/0/layer.tar: no such file or directory")
    made = images(shelf, tmp_path)
    shelf.refuses = ""
    made.add_code(
        Source("v1", archive(tmp_path), "ada/fruit", 3, "ab" * 32), BASE, "e1", Plan(server="command", command=("python",)), Silent()
    )

    assert len(shelf.builds) == 2
    assert {tag for tag in shelf.shelf if "fruit" in tag or "code" in tag} == {code_image(YARD, "v1"), "ml-models/ada/fruit:v3"}


def test_a_full_disk_is_told_as_such_and_no_reason_to_build_otherwise(tmp_path: Path) -> None:
    shelf = Shelf(refuses="write /var/lib/x: no space left on device")
    with pytest.raises(BuildError) as refused:
        images(shelf, tmp_path)
    assert refused.value.code == "disk_full"
    assert shelf.builds == []
    assert list(tmp_path.iterdir()) == []


def test_the_same_version_is_the_same_image_and_another_is_not(tmp_path: Path) -> None:
    shelf, packed, told = Shelf(), archive(tmp_path), Plan(server="gunicorn", target="app:app")
    made = images(shelf, tmp_path)
    for version_id, number in (("a", 1), ("b", 1), ("c", 2)):
        made.add_code(Source(version_id, packed, "ada/fruit", number, "ab" * 32), BASE, "e1", told, Silent())
    ids = [shelf.shelf[code_image(YARD, each)]["Id"] for each in "abc"]

    assert ids[0] == ids[1] != ids[2]
    assert made.codes() == ["a", "b", "c"]
    assert [made.remove_code(each) for each in "ab"] == [0, 0], "another image has the same layer"
    assert made.remove_code("c") > 0
    assert made.codes() == []


def test_an_image_has_no_variable_of_one_plan() -> None:
    told = image_recipes.recipe().variables
    assert not [name for name in told if name == "PORT" or name.startswith("MODELYARD_") or name.endswith("_THREADS")]
    assert {"PATH", "HOME", "PYTHONPATH", "HF_HOME"} <= set(told)


def test_the_launcher_listens_for_the_world_outside_its_container() -> None:
    for server, said in (("uvicorn", image_recipes.ANYWHERE), ("gunicorn", "/etc/modelyard/gunicorn.conf.py")):
        start = json.loads(image_recipes.start_file(Plan(server=server, target="app:app"), ""))  # type: ignore[arg-type]
        assert said in start["words"]
        assert "MODELYARD_VERSION" not in start["variables"]
        assert start["variables"]["MODELYARD_CPUS"] == "1"
    assert b'bind = "0.0.0.0:"' in image_recipes.environment_files()["etc/modelyard/gunicorn.conf.py"]
