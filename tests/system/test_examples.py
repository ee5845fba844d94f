"""Every example deploys and answers, in sandboxed processes and in containers."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from yard import Yard, zipped

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module", params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def yard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, flags: tuple[str, ...]) -> Iterator[Yard]:
    """A server of each runtime, of which nothing is left in the engine."""
    data = tmp_path_factory.mktemp("yard") / "data"
    runtime = request.param
    with Yard(data, *(flags if runtime == "process" else ("--runtime", "docker"))) as running:
        yield running
    if runtime == "docker":
        words = [sys.executable, "-m", "modelyard", "--data", str(data), "down", "--volumes"]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
        named = ["docker", "images", "--quiet", "ml-models/examples/*"]
        assert subprocess.run(named, check=True, capture_output=True, timeout=60).stdout == b"", "people's names went too"


def packed(name: str) -> bytes:
    return zipped({path.name: path.read_bytes() for path in (EXAMPLES / name).iterdir() if path.is_file()})


def white_png(width: int, height: int) -> bytes:
    """A white greyscale PNG, written by hand so that the test needs no imaging library."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + b"\xff" * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_test_model(yard: Yard) -> None:
    yard.ready("examples", "test-model", packed("test-model"))
    assert yard.predict("examples", "test-model").json() == {"prediction": "Processed: hello", "model": "test-model"}
    assert yard.http.post("/m/examples/test-model/predict").json() == {"prediction": "Processed: no input", "model": "test-model"}


@pytest.mark.slow
def test_image_size(yard: Yard) -> None:
    yard.ready("examples", "image-size", packed("image-size"))
    found = yard.http.get("/models/examples/image-size").json()
    assert found["found"] == "found: FastAPI app `main:app` in modelyard.toml, requirements.txt, port 8080"
    assert found["settings"]["limits"]["memory_bytes"] == 512 * 1024 * 1024
    assert yard.http.post("/m/examples/image-size/predict", json={"width": 4000, "height": 3000}).json() == {
        "pixels": 12_000_000,
        "megapixels": 12.0,
    }
    assert yard.http.post("/m/examples/image-size/predict", json={"width": 0, "height": 1}).status_code == 422
    picture = {"file": ("white.png", io.BytesIO(white_png(40, 30)), "image/png")}
    assert yard.http.post("/m/examples/image-size/describe", files=picture).json() == {
        "width": 40,
        "height": 30,
        "format": "PNG",
        "brightness": 1.0,
    }
    assert yard.http.post("/m/examples/image-size/describe", files={"file": ("x", b"no picture")}).status_code == 422


def test_every_example_has_a_test() -> None:
    tested = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} <= tested
